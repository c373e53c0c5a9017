"""What the command line shows while it works: progress, log lines, and a Ctrl-C that keeps what was done."""

import faulthandler
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

import click

from vggsearch.progress import OnProgress, Progress

if TYPE_CHECKING:
    from vggsearch.render.terminal_images import Screen, Way

STDERR = 2
KONSOLE_WITH_PICTURES = 220400  # Konsole 22.04


class ToStderr(logging.Handler):
    """Writes to what sys.stderr is at the time, as `quiet_decoders` moves it away from the decoders' own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        click.echo(self.format(record), err=True)


def log_to_stderr() -> None:
    """Show vggsearch's own log lines, and not those of the decoders: what a file lacks is told as its reason."""
    handler = ToStderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("vggsearch")
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\..*")


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep libtiff and libheif quiet, which write to file descriptor 2 themselves, a line for each odd tag.

    Python's own stderr moves to a copy of the descriptor meanwhile, and so does the trace of a native crash.
    """
    if not _is_descriptor(STDERR):
        yield
        return
    shown = sys.stderr
    shown.flush()
    kept, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)
    with os.fdopen(kept, "w", encoding=shown.encoding, errors="backslashreplace", buffering=1) as copy:
        was_enabled = faulthandler.is_enabled()
        faulthandler.enable(copy)
        sys.stderr = copy
        try:
            yield
        finally:
            sys.stderr = shown
            copy.flush()
            os.dup2(kept, STDERR)
            faulthandler.enable() if was_enabled else faulthandler.disable()


def _is_descriptor(number: int) -> bool:
    """Say whether Python's stderr is this descriptor: tests and notebooks put something else in its place."""
    try:
        return sys.stderr.fileno() == number
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def stopping_on_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Give a question that is answered True after Ctrl-C, so that work in hand is kept; a second one breaks off."""
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        click.echo("\nStopping: keeping what is done. Ctrl-C again breaks off at once.", err=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def counting_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many photos of how many are done, and the time left, where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        row = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(row, completed=done, total=total)


def announced(title: str, progress: OnProgress) -> OnProgress:
    """Return `progress`, which prints `title`, and the inference backend, before the first that names one."""
    is_announced = False

    def show(each: Progress) -> None:
        nonlocal is_announced
        if each.note and not is_announced:
            is_announced = True
            click.echo(f"{title}\non {each.note}", err=True)
        progress(each)

    return show


def picture_screen(stream: TextIO) -> "Screen | None":
    """Return how the terminal behind `stream` shows pictures; None where it cannot, or where there is none."""
    from shutil import get_terminal_size  # here, since help needs none of what it imports

    from vggsearch.render.terminal_images import Screen

    way = _picture_way(os.environ) if stream.isatty() else None
    if way is None or (way == "blocks" and stream.encoding.lower() not in ("utf-8", "utf8")):
        return None
    return Screen(way, get_terminal_size().columns)


def _picture_way(environment: Mapping[str, str]) -> "Way | None":
    """Tell from its variables what a terminal shows. Asking it would take a time-out where it does not answer."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    has_all_colours = environment.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environment
    if "TMUX" in environment or term.startswith(("screen", "tmux")):  # which keeps pictures from its terminal
        return "blocks" if has_all_colours else None
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    konsole = environment.get("KONSOLE_VERSION", "")
    if konsole.isdecimal() and int(konsole) >= KONSOLE_WITH_PICTURES:
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "blocks" if has_all_colours and term != "dumb" else None
