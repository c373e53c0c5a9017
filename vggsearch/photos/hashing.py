"""Hash a photo file, and notice that it changed since the walk."""

import hashlib
import os
from pathlib import Path

from vggsearch.errors import ImageError
from vggsearch.photos.walk import PhotoFile


def hash_unchanged(root: Path, file: PhotoFile) -> str:
    """Return the sha256 of `file`. Raises ImageError if it cannot be read, or has changed since the walk."""
    try:
        with (root / file.path).open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            status = os.fstat(opened.fileno())
    except OSError as error:
        raise ImageError(error.strerror or str(error), "unreadable") from error
    if (status.st_size, status.st_mtime_ns) != (file.bytes, file.mtime_ns):
        raise ImageError("changed while it was read; the next update indexes it", "unreadable")
    return sha256
