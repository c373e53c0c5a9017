"""The index on disk: Parquet parts, the files derived from them, and the manifest that lists what is valid."""
