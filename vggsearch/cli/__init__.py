"""The command line: each command parses its options, makes one call, and prints the result."""

from vggsearch.cli.main import cli

__all__ = ["cli"]
