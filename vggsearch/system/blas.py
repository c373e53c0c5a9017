"""The threads of NumPy's linear algebra (BLAS): they wait for each other where other programs use the processor."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from threadpoolctl import threadpool_limits


class _SingleThreadedBlas:
    """Limits BLAS to one thread for as long as anyone needs it: the limit is one for the whole process."""

    def __init__(self) -> None:
        self._changing, self._users = Lock(), 0
        self._limits: threadpool_limits | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._changing:
            self._users += 1
            if self._limits is None:
                self._limits = threadpool_limits(limits=1, user_api="blas")
        try:
            yield
        finally:
            with self._changing:
                self._users -= 1
                if not self._users and self._limits is not None:
                    self._limits.restore_original_limits()
                    self._limits = None


single_threaded_blas = _SingleThreadedBlas()
"""Limit each operation on matrices to one thread inside, where they are small or several threads have some to do.

With BLAS threads on top, synchronisation makes a product ten times slower.
"""
