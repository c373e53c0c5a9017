"""Walk a photo folder and list its files with size and modification time. No file is opened."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import NamedTuple

from vggsearch.errors import PhotosError, SkipKind
from vggsearch.tables import Table, Tabular, arrow_table

CLUTTER_NAMES = frozenset(
    name.casefold()
    for name in (
        "@eaDir",  # Synology thumbnails
        "#recycle",  # Synology
        "#snapshot",  # Synology
        "@Recycle",  # QNAP
        "@Recently-Snapshot",  # QNAP
        "$RECYCLE.BIN",  # Windows
        "System Volume Information",  # Windows
        "Thumbs.db",  # Windows
        "ehthumbs.db",  # Windows
        "desktop.ini",  # Windows
        "__MACOSX",  # AppleDouble files in ZIP archives
        "Icon\r",  # macOS
        "Network Trash Folder",  # AFP shares
        "Temporary Items",  # AFP shares
        "lost+found",  # ext file systems
    )
)
CLUTTER_SUFFIXES = (".lrdata",)  # Lightroom previews: thousands of small copies of the photos
MOST_INODE = 2**63 - 1  # int64: a number of 128 bits, as ReFS has, is cut


class Stamp(NamedTuple):
    """What changes with a file, even if its size and modification time are kept.

    `ctime_ns` is the time of the last change of the file or its status, in nanoseconds; on Windows, when the file
    was created. `inode` is the number of the file on its disk, which some file systems assign anew. Both are hints.
    """

    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """Return the stamp of a file."""
        return cls(status.st_ctime_ns, status.st_ino & MOST_INODE)

    @classmethod
    def of_etag(cls, etag: str) -> "Stamp":
        """Return the stamp of an object: 126 bits of the SHA-256 of its ETag, in place of time and number."""
        digest = hashlib.sha256(etag.encode()).digest()
        return cls(*(int.from_bytes(digest[at : at + 8], "big") & MOST_INODE for at in (0, 8)))


class PhotoFile(NamedTuple):
    """A file that may be a photo, as the walk found it. A tuple, since there may be millions of them.

    `path` is a POSIX path relative to the photo folder, `bytes` the size of the file, `mtime_ns` its modification
    time in nanoseconds since the epoch. `stamp` is None where only path, size and time are known.
    """

    path: str
    bytes: int
    mtime_ns: int
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that could not be used. `reason` is for display, `kind` for programs.

    "unreadable" means that the disk, not the file, is at fault: it is tried again on the next update, and whatever
    the index holds for `path` and everything below it is kept. `bytes` and `mtime_ns` are 0 if they could not be
    read. `path` is exact: bytes of a name that are not UTF-8 are surrogate escapes, as in all of Python.

    >>> index.skipped()[0].path, index.skipped()[0].kind
    ('notes.txt', 'not a picture')
    """

    path: str
    reason: str
    kind: SkipKind
    bytes: int = 0
    mtime_ns: int = 0


class SkippedFiles(tuple[Skipped, ...], Tabular):
    """The files that could not be used, by path: a tuple of Skipped.

    >>> index.skipped().to_arrow().column_names
    ['path', 'kind', 'reason', 'bytes', 'mtime_ns']
    """

    __slots__ = ()

    def to_arrow(self) -> Table:
        """Return one row per file: path, kind, reason, bytes and mtime_ns, its modification time.

        Arrow's text is UTF-8, so other bytes of a path are escaped: `caf\\xe9.jpg`.
        """
        columns = {"path": "string", "kind": "string", "reason": "string", "bytes": "int64", "mtime_ns": "int64"}
        rows = ((printable(row.path), row.kind, row.reason, row.bytes, row.mtime_ns) for row in self)
        return arrow_table(columns, rows)


def is_clutter(name: str) -> bool:
    """Return whether a file or folder of this name never holds photos: hidden, a thumbnail cache, a recycle bin."""
    folded = name.casefold()
    return name.startswith(".") or folded in CLUTTER_NAMES or folded.endswith(CLUTTER_SUFFIXES)


def is_indexed(folder: Path, root: Path) -> bool:
    """Return whether an update of the photo folder `root` would index photos in `folder`, which need not exist."""
    inner, outer = (Path(os.path.realpath(path)) for path in (folder, root))
    return inner.is_relative_to(outer) and not any(map(is_clutter, inner.relative_to(outer).parts))


def check_folder(folder: Path) -> Path:
    """Return `folder`. Raises PhotosError if it is not a folder."""
    if not folder.is_dir():
        raise PhotosError(f"{folder} is not a folder. Is its disk mounted?")
    return folder


def walk(folder: Path, exclude: Path | None = None) -> Iterator[PhotoFile | Skipped]:
    """Yield every file below `folder`, sorted by name, without clutter and without the folder `exclude`.

    Symbolic links below `folder` are reported as skipped and not followed, which avoids loops and gives each photo
    one path. Raises PhotosError if `folder` itself cannot be read.
    """
    check_folder(folder)
    excluded = exclude.resolve() if exclude is not None else None
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(folder / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not inside:
                raise PhotosError(f"{folder} cannot be read: {error.strerror}.") from error
            yield Skipped(inside, error.strerror or str(error), "unreadable")
            continue
        subfolders = []
        for entry in entries:
            if is_clutter(entry.name):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield _classify(entry, path)
            elif excluded is None or entry.name != excluded.name or Path(entry.path).resolve() != excluded:
                subfolders.append(path)
        pending.extend(reversed(subfolders))


def printable(path: str) -> str:
    """Return `path` as text that can be stored and shown: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """Escape control characters, so that a file name cannot break a table or a terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _classify(entry: "os.DirEntry[str]", path: str) -> PhotoFile | Skipped:
    if not path.isascii() and printable(path) != path:
        return Skipped(path, "its path is not valid UTF-8: rename the file or its folder", "bad name")
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped(path, error.strerror or str(error), "unreadable")
    if S_ISREG(status.st_mode):
        stamp = Stamp(
            status.st_ctime_ns, status.st_ino & MOST_INODE
        )  # not Stamp.of: this is called a million times
        return PhotoFile(path, status.st_size, status.st_mtime_ns, stamp)
    if S_ISLNK(status.st_mode):
        return Skipped(path, "a symbolic link, not followed: index the folder it points to", "link")
    return Skipped(path, "not a regular file", "special file")
