"""The network: which VGG, cut where, pooled how, with which weights, and what runs it."""
