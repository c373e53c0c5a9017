"""From files on disk to the square RGB images that the network takes as input."""
