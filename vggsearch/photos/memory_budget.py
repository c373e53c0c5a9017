"""Share a bounded amount of memory among the decoder processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class MemoryBudget:
    """`total` bytes, of which any number of threads reserve some for a while."""

    def __init__(self, total: int) -> None:
        self._total, self._reserved = total, 0
        self._turn, self._freed = Lock(), Condition()

    @contextmanager
    def reserved(self, count: int) -> Iterator[None]:
        """Reserve `count` bytes, once so many are free, or all of them if it is more than there are."""
        count = min(count, self._total)
        with self._turn, self._freed:  # in turn, or many small pictures would keep a large one waiting for ever
            self._freed.wait_for(lambda: self._reserved + count <= self._total)
            self._reserved += count
        try:
            yield
        finally:
            with self._freed:
                self._reserved -= count
                self._freed.notify()
