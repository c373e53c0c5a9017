"""Decoding in processes of its own, so that a file that crashes, hangs or floods its decoder costs only itself."""
