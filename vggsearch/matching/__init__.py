"""Geometric matching of two images by feature maps or keypoints, and the re-ranking based on it."""
