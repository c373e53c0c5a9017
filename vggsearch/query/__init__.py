"""Queries: which photos may be found, and which are most like a picture or contain it, in one index or several."""
