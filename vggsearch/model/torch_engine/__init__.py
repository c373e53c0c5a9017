"""The torch engine: the reference, and the one for CUDA and MPS."""
