"""How far long work is and how to stop it: one shape for every long call, and a progress bar that shows it.

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
REDRAW_SECONDS = 0.2  # between two pictures of the bars in a notebook

Unit: TypeAlias = Literal["photos", "pairs", "vectors", "bytes", "files", "stages"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage of long work is: `done` of `total`, counted in `unit`.

    `stage` names what is being done, "embedding photos"; `note` adds what a user may want to know meanwhile, such
    as the inference backend or how many files were skipped.
    """

    stage: str
    done: int
    total: int
    unit: Unit = "photos"
    note: str = ""


OnProgress: TypeAlias = Callable[[Progress], None]  # called as work advances; it must not raise
Stop: TypeAlias = Callable[[], bool]  # asked between steps; once it returns True, the work ends with Stopped


def ignore_progress(_progress: Progress) -> None:
    """Show nothing: the default where a caller passes no `progress`."""


def never_stop() -> bool:
    """Return False: the default where a caller passes no `stop`."""
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
        """Report how far one stage is."""
        self._progress(Progress(stage, done, total, unit, note))

    def check(self) -> None:
        """Raise Stopped if the work is to end."""
        if self._stop():
            raise Stopped

    def step(self, stage: str, done: int, total: int, unit: Unit = "photos", note: str = "") -> None:
        """Report how far one stage is, then raise Stopped if the work is to end."""
        self.show(stage, done, total, unit, note)
        self.check()


SILENT = Monitor()  # shows nothing and never stops


@contextmanager
def progress_bar(console: "Console | None" = None) -> Iterator[OnProgress]:
    """Show a progress bar for each stage, with rate and time left, on a terminal or in a Jupyter notebook.

    Pass what it yields as `progress=` to any long call. Nothing is shown where there is neither, as when stderr is
    redirected to a file. `console` is rich's; by default the one of stderr, or the notebook's own.
    """
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Counted(ProgressColumn):
        """How many of how many, and how many a second."""

        def render(self, task: "Task") -> Text:
            words = counted(task.fields["unit"], task.completed, task.total, task.speed)
            return Text(words, no_wrap=True)

    if console is None and Console().is_jupyter:
        yield _NotebookBars().show  # rich needs ipywidgets for that, which few have
        return
    console = console or Console(stderr=True)
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
    """A row per stage in the output of a notebook cell, drawn anew a few times a second."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()
        self._handle.display(self._html([]), raw=True)
        self._last: dict[str, Progress] = {}
        self._started: dict[str, float] = {}
        self._drawn = 0.0

    def show(self, progress: Progress) -> None:
        """Show how far a stage is."""
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
    """Return "120/4,000 photos, 32.1/s", or the same in megabytes.

    >>> counted("photos", 120, 4000, 32.1)
    '120/4,000 photos, 32.1/s'
    """
    by, name, digits = (1e6, "MB", 1) if unit == "bytes" else (1.0, unit, 0)
    of = f"/{total / by:,.{digits}f}" if total is not None else ""
    rate = f", {speed / by:,.1f}/s" if speed else ""
    return f"{done / by:,.{digits}f}{of} {name}{rate}"
