"""The photos of an index where other programs and machines read them: a Parquet file, a table in a database."""
