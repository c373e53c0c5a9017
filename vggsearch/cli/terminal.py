"""What the command line shows while it works: progress, log lines, and a Ctrl-C that keeps finished work."""

import copy
import faulthandler
import io
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TypeVar

import click

from vggsearch.cli.streams import STDERR, messages_to
from vggsearch.errors import Spelled, Stopped, VggsearchError
from vggsearch.photos.walk import one_line
from vggsearch.progress import OnProgress, Progress, Stop, progress_bar

T = TypeVar("T")

REFRESH_S = 0.05  # between two updates of a progress bar; a GPU embeds hundreds of photos meanwhile
RATE_S = 5.0  # after which the rate of a stage is known well enough
LONG_S = 600.0  # of a stage that is worth a suggestion


class ToStderr(logging.Handler):
    """Writes to the current sys.stderr, which `quiet_decoders` moves away from that of the decoders."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, with errors as the command line spells them."""
        shown = copy.copy(record)
        if isinstance(record.args, tuple):
            shown.args = tuple(map(_for_shell, record.args))
        click.echo(one_line(self.format(shown)), err=True)


def _for_shell(value: object) -> object:
    if isinstance(value, Spelled):
        return value.shell
    return value.for_shell() if isinstance(value, VggsearchError) else value


def log_to_stderr() -> None:
    """Show the log lines of vggsearch, not those of the decoders: a skipped file is reported with its reason."""
    handler = ToStderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("vggsearch")
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\..*")


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence libtiff and libheif, which write a line for each odd tag to file descriptor 2 directly.

    Meanwhile Python's stderr, and the traceback of a native crash, go to a copy of the descriptor.
    """
    if not _is_descriptor(STDERR):
        yield
        return
    shown = sys.stderr
    shown.flush()
    kept, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)
    with messages_to(io.FileIO(kept, "w"), shown.encoding) as spare:
        was_enabled = faulthandler.is_enabled()
        faulthandler.enable(spare)
        sys.stderr = spare
        try:
            yield
        finally:
            sys.stderr = shown
            spare.flush()
            os.dup2(kept, STDERR)
            faulthandler.enable() if was_enabled else faulthandler.disable()


def _is_descriptor(number: int) -> bool:
    """Return whether Python's stderr is this descriptor; tests and notebooks replace it."""
    try:
        return sys.stderr.fileno() == number
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def stopping_on_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield a `stop` that is True after Ctrl-C, so that finished work is kept; a second Ctrl-C aborts at once."""
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        click.echo("\nStopping, finished work is kept. Press Ctrl-C again to abort at once.", err=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def announced(title: str, progress: OnProgress) -> OnProgress:
    """Return `progress`, which first prints `title` and the inference backend, the first note.

    The bar then shows only what later notes add to it, such as how many files were skipped.
    """
    backend, shown = "", 0.0

    def show(each: Progress) -> None:
        nonlocal backend, shown
        now = time.monotonic()
        if 0 < each.done < each.total and now - shown < REFRESH_S:
            return
        shown = now
        if each.note and not backend:
            backend = each.note
            click.echo(f"{one_line(title)}\non {one_line(backend)}", err=True)
        progress(replace(each, note=each.note.removeprefix(backend).removeprefix(", ")))

    return show


def suggested(words: str, stage: str, progress: OnProgress, unless: Callable[[], object]) -> OnProgress:
    """Return `progress`, which prints `words` after RATE_S of a stage if LONG_S are left of it at its rate.

    It prints one line at most, "about N minutes left" and then `words`; and none if `unless` returns something.
    """
    started: tuple[float, int] | None = None
    is_decided = False

    def show(each: Progress) -> None:
        nonlocal started, is_decided
        progress(each)
        if is_decided or each.stage != stage or not each.done:
            return
        now = time.monotonic()
        if started is None:
            started = now, each.done
        seconds, done = now - started[0], each.done - started[1]
        if seconds < RATE_S or not done:
            return
        is_decided = True
        left = (each.total - each.done) * seconds / done
        if left > LONG_S and not unless():
            click.echo(f"About {left / 60:.0f} minutes left. {words}", err=True)

    return show


def until_stopped(work: Callable[[OnProgress, Stop], T], kind: type[T]) -> tuple[T, Stopped | None]:
    """Run long work with a progress bar; return its report and, if Ctrl-C stopped it early, the Stopped to raise.

    `kind` is the type of the report. Raises Stopped where the work was stopped before there was a report.
    """
    try:
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            return work(progress, stop), None
    except Stopped as stopped:
        if isinstance(stopped.report, kind):
            return stopped.report, stopped
        raise
