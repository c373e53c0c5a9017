"""Hash a photo file, and notice that it changed since the walk."""

import hashlib
import os
from pathlib import Path

from vggsearch.defaults import IMAGE
from vggsearch.errors import ImageError
from vggsearch.photos.addresses import is_address
from vggsearch.photos.opening import open_photo
from vggsearch.photos.sources import read_unchanged
from vggsearch.photos.walk import PhotoFile


def hash_unchanged(root: Path, file: PhotoFile) -> str:
    """Return the sha256 of `file`. Raises ImageError if it cannot be read, or has changed since the walk.

    More than IMAGE.file_bytes are not read.
    """
    if is_address(root):
        return hashlib.sha256(read_unchanged(root, file)).hexdigest()
    if file.bytes > IMAGE.file_bytes:
        raise ImageError(
            f"has {file.bytes / 1e9:,.1f} GB; the limit for a photo is {IMAGE.file_bytes / 1e9:.1f} GB", "too large"
        )
    try:
        with open_photo(root, file.path) as opened:
            _check_unchanged(os.fstat(opened.fileno()), file)
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            _check_unchanged(os.fstat(opened.fileno()), file)
    except OSError as error:
        raise ImageError(error.strerror or str(error), "unreadable") from error
    return sha256


def _check_unchanged(status: os.stat_result, file: PhotoFile) -> None:
    if (status.st_size, status.st_mtime_ns) != (file.bytes, file.mtime_ns):
        raise ImageError("changed while it was read; the next update indexes it", "unreadable")
