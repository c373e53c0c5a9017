"""python -m vggsearch is the vggsearch command."""

from vggsearch.cli import cli

if __name__ == "__main__":
    cli(prog_name="vggsearch")
