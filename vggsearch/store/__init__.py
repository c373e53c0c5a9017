"""The embeddings on disk: Parquet parts and the manifest that says which of them are true."""
