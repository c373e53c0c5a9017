"""The PyTorch backend: the reference, and the one for CUDA and MPS."""
