"""The OpenVINO backend: the fastest on a CPU, and without torch."""
