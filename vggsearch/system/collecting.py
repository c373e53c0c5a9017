"""Python's search for garbage that refers to itself, which costs time where many objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Do not search for garbage inside, where little is made.

    Looking for it takes a third of the time of a loop that makes tuples by the million, and a twelfth of that of
    loading modules.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
