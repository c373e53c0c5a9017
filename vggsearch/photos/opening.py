"""Open a photo that an index names: a regular file below the photo folder, wherever links would lead."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from vggsearch.errors import ImageError

FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC", "O_NOCTTY"))


def open_photo(root: Path, path: str) -> BinaryIO:
    """Open the photo `path` below the folder `root`, without waiting for a pipe.

    The index may be from somebody else, and the files may have changed. Raises ImageError for a link that leads out
    of `root` and for anything but a regular file, OSError if it cannot be opened.
    """
    real, folder = os.path.realpath(root / path), os.path.realpath(root)
    if not Path(real).is_relative_to(folder):
        raise ImageError(f"leads out of the photo folder, to {real}", "link")
    descriptor = os.open(real, os.O_RDONLY | FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("not a regular file", "special file")
    return os.fdopen(descriptor, "rb")
