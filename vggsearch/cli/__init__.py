"""The command line: each command parses, makes one call, and prints. Heavy imports wait inside the commands."""

from vggsearch.cli.main import cli

__all__ = ["cli"]
