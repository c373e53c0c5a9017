"""The network: VGG variant, feature layer, pooling and weights, and the inference backends that run it."""
