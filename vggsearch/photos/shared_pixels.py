"""Memory that a process shares with one decoder process, for the pixels of one picture.

Pixels of 192 x 192 take 110 kB: through a pipe, which holds 64 kB, that is several system calls and changes of
process for each photo. The memory belongs to the two processes alone and has no name in the file system, so nothing
is left behind however they end.
"""

import mmap
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EMBEDDING, IMAGE

CAPACITY = 3 * max(EMBEDDING.largest_size**2, IMAGE.picture_pixels)  # bytes; only what is written takes memory


class SharedPixels:
    """The memory for one picture. Whoever makes it passes `name` and `file_descriptors` to the decoder."""

    def __init__(self) -> None:
        self.name, self.file_descriptors = _create()
        self._memory = open_shared(self.name)

    def copy(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Return a copy of the pixels: uint8 (height, width, channels)."""
        height, width, channels = shape
        return np.frombuffer(self._memory, np.uint8, height * width * channels).reshape(shape).copy()

    def close(self) -> None:
        """Close the file descriptors. The memory itself is freed with the last object and process that maps it."""
        for number in self.file_descriptors:
            os.close(number)
        self.file_descriptors = ()


def open_shared(name: str) -> mmap.mmap:
    """Map the memory of this name: a file descriptor that the process inherited or, on Windows, a tag name."""
    if sys.platform == "win32":
        return mmap.mmap(-1, CAPACITY, tagname=name)
    return mmap.mmap(int(name), CAPACITY)


def _create() -> tuple[str, tuple[int, ...]]:
    """Return the name of new memory and the file descriptors to pass on."""
    if sys.platform == "win32":
        return f"vggsearch-{uuid.uuid4()}", ()
    if sys.platform == "linux":
        number = os.memfd_create("vggsearch")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, CAPACITY)
    return str(number), (number,)
