"""Duplicates: which photos are copies of each other, with what confidence, and which of them to keep."""
