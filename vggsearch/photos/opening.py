"""Open a photo without waiting: a regular file, and for one that an index names, below its photo folder."""

import os
import stat
from io import BufferedReader
from pathlib import Path

from vggsearch.errors import ImageError

FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC", "O_NOCTTY"))


def open_photo(root: Path, path: str) -> BufferedReader:
    """Open the photo `path` below the folder `root`, wherever links would lead.

    The index may be from somebody else, and the files may have changed. Raises ImageError for a link that leads out
    of `root` and for anything but a regular file, OSError if it cannot be opened.
    """
    real, folder = os.path.realpath(root / path), os.path.realpath(root)
    if not Path(real).is_relative_to(folder):
        raise ImageError(f"leads out of the photo folder, to {real}", "link")
    return open_regular(Path(real))


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file. Raises ImageError for a pipe, a device or a folder, OSError if it cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY | FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("not a regular file", "special file")
    return os.fdopen(descriptor, "rb")
