"""Where pieces of work run that need nothing but what they are given: here, or on other machines."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from vggsearch.progress import Monitor

Item = TypeVar("Item")
Done = TypeVar("Done")
Value = TypeVar("Value")


class Tasks(Protocol):
    """Runs pieces of work. Where that is another process, work, items, values and results are pickled."""

    def share(self, rows: int) -> int:
        """Return how many of `rows` rows one piece of work should be about, at most."""

    def put(self, value: Value) -> Callable[[], Value]:
        """Keep a value that many pieces of work need; return what gets it, in these, too."""

    def run(self, work: Callable[[Item, Monitor], Done], items: Sequence[Item], monitor: Monitor) -> Iterator[Done]:
        """Yield what `work` returns for each item, in order; a few are under way. Raises Stopped."""


class _Here:
    """Runs pieces of work in this process, one after the other."""

    def share(self, rows: int) -> int:
        return rows

    def put(self, value: Value) -> Callable[[], Value]:
        return lambda: value

    def run(self, work: Callable[[Item, Monitor], Done], items: Sequence[Item], monitor: Monitor) -> Iterator[Done]:
        return (work(item, monitor) for item in items)


HERE = _Here()
