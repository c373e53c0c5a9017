"""Pictures in the terminal that runs a command."""

import os
import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TextIO

import click

from vggsearch.cli.terminal import quiet_decoders
from vggsearch.render.terminal_images import Screen, Strip, preview, protocol_of


def show_pictures(strips: Sequence[Strip], alternative: str) -> None:
    """Show strips of pictures. Raises ClickException if the terminal cannot, naming an alternative command."""
    screen = picture_screen(sys.stdout)
    if screen is None:
        raise click.ClickException(f"This terminal cannot show pictures. Write an HTML page instead: {alternative}")
    with quiet_decoders():
        preview(strips, sys.stdout, screen)


def picture_screen(stream: TextIO) -> Screen | None:
    """Return how the terminal behind `stream` shows pictures; None if it cannot, or is not a terminal."""
    protocol = protocol_of(os.environ) if stream.isatty() else None
    if protocol is None or (protocol == "blocks" and stream.encoding.lower() not in ("utf-8", "utf8")):
        return None
    return Screen(protocol, get_terminal_size().columns)
