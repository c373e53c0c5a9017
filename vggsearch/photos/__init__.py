"""Files on disk, and the square of pixels that the network sees of each."""
