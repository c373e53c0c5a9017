"""Compare several photos at once: each thread takes its own pair, so the operations on one need no threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2

from vggsearch.system.threads import SingleThreaded, single_threaded_blas


def _limit_opencv() -> Callable[[], None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    return lambda: cv2.setNumThreads(before)


single_threaded_opencv = SingleThreaded(_limit_opencv)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit each operation on a picture or a matrix to one thread, in the whole process."""
    with single_threaded_blas(), single_threaded_opencv():
        yield
