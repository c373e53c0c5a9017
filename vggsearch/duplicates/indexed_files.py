"""The files of an index as they are now: which still hold the photo that was indexed, and which are one file."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from vggsearch.errors import ImageError
from vggsearch.photos.opening import open_photo
from vggsearch.photos.walk import Stamp
from vggsearch.store.known_files import known_files
from vggsearch.store.store import Store

Identity = tuple[int, int]  # device and inode
BLOCK = 1 << 20  # bytes


class IndexedFiles:
    """Looks at the files of the photos of a store, by row, each once and only when it is asked for.

    `key` returns the SHA-256 of a row's photo.
    """

    def __init__(self, store: Store, root: Path, paths: Sequence[str], key: Callable[[int], str]) -> None:
        self._root, self._paths, self._key = root, paths, key
        self._known = known_files(store)
        self._seen: dict[int, Identity | None] = {}

    def identity(self, row: int) -> Identity | None:
        """Return which file a photo is, whatever its name; None if the file is gone or no longer the photo."""
        if row not in self._seen:
            self._seen[row] = self._look_at(row)
        return self._seen[row]

    @property
    def stale(self) -> tuple[str, ...]:
        """The paths of the photos looked at whose file is gone or no longer the photo, sorted."""
        return tuple(sorted(self._paths[row] for row, identity in self._seen.items() if identity is None))

    @property
    def are_all_stale(self) -> bool:
        """Whether photos were looked at, and the file of none is as it was."""
        return bool(self._seen) and not any(self._seen.values())

    def _look_at(self, row: int) -> Identity | None:
        path = self._paths[row]
        try:
            status = (self._root / path).lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != self._known.bytes[row]:
                return None
            if self._is_untouched(path, status, row) or self._has_its_bytes(path, row):
                return status.st_dev, status.st_ino
        except (OSError, ImageError):
            pass
        return None

    def _is_untouched(self, path: str, status: os.stat_result, row: int) -> bool:
        has_same_time = status.st_mtime_ns == int(self._known.mtime_ns[row])
        return has_same_time and self._known.stamp(row, path) in (None, Stamp.of(status))

    def _has_its_bytes(self, path: str, row: int) -> bool:
        """Read a file that was touched, linked or moved to another disk since."""
        digest = hashlib.sha256()
        with open_photo(self._root, path) as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest() == self._key(row)
