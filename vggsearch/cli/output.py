"""Output: text for people, in which nothing acts on a terminal, and exact bytes for programs."""

import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TextIO

import click

from vggsearch.cli.options import collected, format_option
from vggsearch.defaults import Format
from vggsearch.photos.walk import one_line
from vggsearch.render.text import NUL, folded

INVISIBLE = re.compile(r"[^\x20-\x7e\n]+")


def say(text: str, *, err: bool = False, is_data: bool = False) -> None:
    """Print lines for people: of a name, whatever a terminal would act on is shown as an escape sequence.

    A terminal breaks a long line within a word; so it is broken before one, unless the text `is_data`.
    """
    lines: Iterable[str] = map(one_line, text.split("\n"))
    if not is_data and _is_terminal(sys.stderr if err else sys.stdout):
        columns = get_terminal_size().columns
        lines = (part for line in lines for part in folded(line, columns))
    click.echo("\n".join(lines), err=err)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def show(text: str, format: Format) -> None:
    """Print a result in a format, for programs byte for byte; in a terminal, it is for people whatever the format.

    Paths are separated by NUL in `text`, and end with a newline. A path that contains a newline is an error on
    stderr and not printed; the exit status is then 1.
    """
    if format in ("json", "jsonl"):
        text = INVISIBLE.sub(_json_escapes, text)
    if format == "paths":
        _show_paths([path for path in text.split(NUL) if path])
    elif format == "table" or (text and sys.stdout.isatty()):
        say(text, is_data=format != "table")
    elif text:
        _write(text.encode("utf-8", "surrogateescape") + b"\n")


def _show_paths(paths: list[str]) -> None:
    if sys.stdout.isatty():
        if paths:
            say("\n".join(map(one_line, paths)), is_data=True)
        return
    broken = [path for path in paths if "\n" in path]
    _write(b"".join(os.fsencode(path) + b"\n" for path in paths if "\n" not in path))
    for path in broken:
        say(f"Error: {one_line(path)} contains a line break and is left out: use --print0.", err=True)
    if broken:
        click.get_current_context().exit(1)


def _write(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _json_escapes(found: re.Match[str]) -> str:
    """Escape what is not printable, also bytes of a name that are not UTF-8: a JSON reader gets the same string."""
    text = found[0]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@dataclass(frozen=True, slots=True)
class Output:
    """The format of a result. With `print0`, paths end with NUL instead of a newline."""

    format: Format
    print0: bool

    @classmethod
    def of(cls, format: Format, print0: bool) -> "Output":
        """Return the output that the options ask for. Raises UsageError if they contradict each other."""
        if not print0:
            return cls(format, print0)
        if format not in ("table", "paths"):
            raise click.UsageError(f"--print0 prints paths, and cannot be combined with --format {format}.")
        return cls("paths", print0)

    def show(self, text: str) -> None:
        """Print a result that is rendered in this format."""
        if self.print0:
            _write(b"".join(os.fsencode(path) + b"\0" for path in text.split(NUL) if path))
        else:
            show(text, self.format)


# A command gets them as `output`.
output_options: Callable[..., Callable[..., None]] = collected(
    "output",
    Output.of,
    ("format", "print0"),
    format_option,
    click.option("-0", "--print0", is_flag=True, help="Print paths that end with NUL, for xargs -0."),
)
