"""The server of `vggsearch serve`: a page to look, search and decide in, and an HTTP API for programs."""
