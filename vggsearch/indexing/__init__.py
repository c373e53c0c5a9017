"""The write path: bring an index up to date with its photo folder, and check that it is whole."""
