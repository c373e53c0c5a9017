"""Nearest neighbours among rows of vectors: whitening, FAISS, exact search and all pairs. Knows rows, not paths."""
