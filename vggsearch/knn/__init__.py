"""The FAISS layer. It knows rows and vectors, never paths."""
