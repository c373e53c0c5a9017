"""Evaluation: ground truth, retrieval metrics, the precision and recall curve, a linear probe, and throughput."""
