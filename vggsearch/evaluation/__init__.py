"""Evaluation: retrieval quality, the precision and recall curve, a linear probe, and throughput."""
