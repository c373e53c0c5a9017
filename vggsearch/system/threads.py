"""The threads inside the operations of other libraries: where they are small, these threads mostly wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from threadpoolctl import threadpool_limits


class SingleThreaded:
    """Limits a library to one thread for as long as anyone needs it: the limit is one for the whole process.

    `limit` does so, and returns what undoes it.
    """

    def __init__(self, limit: Callable[[], Callable[[], object]]) -> None:
        self._changing, self._users, self._limit = Lock(), 0, limit
        self._restore: Callable[[], object] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._changing:
            self._users += 1
            if self._restore is None:
                self._restore = self._limit()
        try:
            yield
        finally:
            with self._changing:
                self._users -= 1
                if not self._users and self._restore is not None:
                    self._restore()
                    self._restore = None


single_threaded_blas = SingleThreaded(lambda: threadpool_limits(limits=1, user_api="blas").restore_original_limits)
"""Limit NumPy's linear algebra (BLAS) to one thread: on small matrices, two take ten times as long as one."""
