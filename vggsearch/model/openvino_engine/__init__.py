"""The OpenVINO engine: the fastest on a CPU, and without torch."""
