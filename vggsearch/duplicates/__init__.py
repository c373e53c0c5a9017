"""Near-duplicates: which photos are copies of one another, how sure that is, and which of them to keep."""
