"""Progress and cancellation of long calls: one interface for all of them, and a progress bar.

>>> from vggsearch import ImageIndex, progress_bar
>>> with ImageIndex.for_photos("photos") as index, progress_bar() as progress:
...     index.update("photos", progress=progress)
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

from vggsearch.errors import Stopped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task, TaskID

BAR_WIDTH = 24  # characters; the rest of a line of 80 is text
REDRAW_SECONDS = 0.2  # between two updates of the bars in a notebook

Unit: TypeAlias = Literal["photos", "pairs", "vectors", "bytes", "files", "stages"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one stage of a long call: `done` of `total`, counted in `unit`.

    `stage` is a short description such as "embedding photos"; `note` adds details such as the inference backend or
    the number of skipped files.

    >>> seen = []
    >>> report = index.verify(progress=seen.append)
    >>> seen[-1].stage, seen[-1].done == seen[-1].total, seen[-1].unit
    ('checking', True, 'bytes')
    """

    stage: str
    done: int
    total: int
    unit: Unit = "photos"
    note: str = ""


OnProgress: TypeAlias = Callable[[Progress], None]  # called as work advances; it must not raise
Stop: TypeAlias = Callable[[], bool]  # called between steps; once it returns True, the call raises Stopped


def ignore_progress(_progress: Progress) -> None:
    """Do nothing: the default for `progress`."""


def never_stop() -> bool:
    """Return False: the default for `stop`."""
    return False


class Monitor:
    """The `progress` and `stop` of one long call, passed down to every step of it.

    >>> monitor = Monitor(progress=lambda progress: print(progress.done, "of", progress.total))
    >>> for done in range(1, 3):
    ...     monitor.step("reading", done, 2, "files")
    1 of 2
    2 of 2
    """

    def __init__(self, progress: OnProgress | None = None, stop: Stop | None = None) -> None:
        self._progress, self._stop = progress or ignore_progress, stop or never_stop

    def show(self, stage: str, done: int, total: int, unit: Unit = "photos", note: str = "") -> None:
        """Report the progress of one stage."""
        self._progress(Progress(stage, done, total, unit, note))

    def check(self) -> None:
        """Raise Stopped if `stop` returns True."""
        if self._stop():
            raise Stopped

    def step(self, stage: str, done: int, total: int, unit: Unit = "photos", note: str = "") -> None:
        """Report the progress of one stage, then raise Stopped if `stop` returns True."""
        self.show(stage, done, total, unit, note)
        self.check()


SILENT = Monitor()  # shows nothing and never stops


@contextmanager
def progress_bar(console: "Console | None" = None) -> Iterator[OnProgress]:
    """Show a progress bar for each stage, with rate and time left, in a terminal or a Jupyter notebook.

    Pass the yielded function as `progress=` to any long call. Without a terminal or notebook, for example when
    stderr is redirected to a file, nothing is shown. `console` is a rich console; the default writes to stderr or
    to the output of the notebook cell.

    >>> with progress_bar() as progress:
    ...     report = index.update(progress=progress)
    >>> report.unchanged
    4
    """
    try:
        from rich.console import Console
    except ModuleNotFoundError:  # where only the network is tested, without the other dependencies
        yield ignore_progress
        return
    if console is None and Console().is_jupyter:
        yield _NotebookBars().show  # rich would need ipywidgets for that
        return
    with _terminal_bars(console or Console(stderr=True)) as show:
        yield show


@contextmanager
def _terminal_bars(console: "Console") -> Iterator[OnProgress]:
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Counted(ProgressColumn):
        """A column with the count, the total and the rate per second."""

        def render(self, task: "Task") -> Text:
            words = counted(task.fields["unit"], task.completed, task.total, task.speed)
            return Text(words, no_wrap=True)

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        Counted(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        rows: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in rows:
                rows[progress.stage] = bars.add_task(
                    progress.stage, total=progress.total, unit=progress.unit, note=""
                )
            row = rows[progress.stage]
            bars.update(row, completed=progress.done, total=progress.total, note=progress.note)

        yield show


class _NotebookBars:
    """One row per stage in the output of a notebook cell, redrawn a few times per second."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()
        self._handle.display(self._html([]), raw=True)
        self._last: dict[str, Progress] = {}
        self._started: dict[str, float] = {}
        self._drawn = 0.0

    def show(self, progress: Progress) -> None:
        """Show the progress of a stage."""
        now = time.monotonic()
        self._started.setdefault(progress.stage, now)
        self._last[progress.stage] = progress
        if now - self._drawn >= REDRAW_SECONDS or progress.done >= progress.total:
            self._drawn = now
            self._handle.update(self._html([self._row(each, now) for each in self._last.values()]), raw=True)

    def _row(self, progress: Progress, now: float) -> str:
        seconds = now - self._started[progress.stage]
        speed = progress.done / seconds if seconds > 0 else None
        words = [counted(progress.unit, progress.done, progress.total, speed)]
        if speed and progress.done < progress.total:
            words.append(f"{timedelta(seconds=round((progress.total - progress.done) / speed))} left")
        text = escape(", ".join(filter(None, [*words, progress.note])))
        bar = f'<progress max="{progress.total}" value="{progress.done}"></progress>'
        return f"<div>{escape(progress.stage)} {bar} {text}</div>"

    @staticmethod
    def _html(rows: list[str]) -> dict[str, str]:
        return {"text/html": "".join(rows), "text/plain": ""}


def counted(unit: Unit, done: float, total: float | None, speed: float | None) -> str:
    """Return count, total and rate as text; bytes are shown in megabytes.

    >>> counted("photos", 120, 4000, 32.1)
    '120/4,000 photos, 32.1/s'
    """
    by, name, digits = (1e6, "MB", 1) if unit == "bytes" else (1.0, unit, 0)
    of = f"/{total / by:,.{digits}f}" if total is not None else ""
    rate = f", {speed / by:,.1f}/s" if speed else ""
    return f"{done / by:,.{digits}f}{of} {name}{rate}"
