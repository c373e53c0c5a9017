"""Learn from labels: a transform of embeddings for queries, and labels for the other photos."""
