"""Indexing by several machines at once, which Ray joins to a cluster."""
