"""Open a photo without waiting: a regular file, and for one that an index names, below its photo folder."""

import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from vggsearch.errors import ImageError

FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC", "O_NOCTTY"))
HAS_DESCRIPTORS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")  # of folders; Windows has none


def open_photo(root: Path, path: str) -> BufferedReader:
    """Open the photo `path` below the folder `root`, wherever links would lead.

    The index may be from somebody else, and the files may have changed, or change now: a folder that becomes a link
    between the check and the opening is not followed. Raises ImageError for a link that leads out of `root` and for
    anything but a regular file, OSError if it cannot be opened.
    """
    real, folder = Path(os.path.realpath(root / path)), Path(os.path.realpath(root))
    if not real.is_relative_to(folder):
        raise ImageError(f"leads out of the photo folder, to {real}", "link")
    parts = real.relative_to(folder).parts
    if not (HAS_DESCRIPTORS and parts):
        return open_regular(real)
    return _regular(_open_below(folder, parts))


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file. Raises ImageError for a pipe, a device or a folder, OSError if it cannot be opened."""
    return _regular(os.open(path, os.O_RDONLY | FLAGS))


def _open_below(folder: Path, parts: Sequence[str]) -> int:
    """Open a file by its names below a folder, none of which may be a link; return the descriptor."""
    through = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH needs no right to list it
    at = os.open(folder, through)
    for name in parts[:-1]:
        above = at
        try:
            at = os.open(name, through | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    try:
        return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | FLAGS, dir_fd=at)
    finally:
        os.close(at)


def _regular(descriptor: int) -> BufferedReader:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("not a regular file", "special file")
    return os.fdopen(descriptor, "rb")
