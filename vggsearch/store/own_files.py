"""The only code that deletes files of an index: those with a name that vggsearch gives, and nothing else.

A name is looked up in `OWN`, folder by folder, and no folder is opened through a symbolic link. What has another
name, another type or lies behind a link belongs to the user and stays. No folder is deleted unless it is empty.
"""

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vggsearch.errors import IndexDamaged, IndexLinked
from vggsearch.store.contents import (
    CACHES,
    DAMAGED_DECISIONS,
    DECISIONS,
    EDGES,
    EMBEDDINGS,
    JOURNALS,
    KEYPOINT_VOTES,
    LOCAL,
    LOCAL_FEATURE_FILES,
    LOCK,
    LOCK_HOLDER,
    MANIFEST,
    SEARCH_FOLDER,
    SEGMENT_FILES,
    SKIPPED,
    SKIPPED_NEXT,
    VECTOR_INDEX_FILES,
)

# Without these (on Windows), each path is checked just before it is used.
HAS_DESCRIPTORS = {os.open, os.stat, os.unlink, os.rmdir} <= os.supports_dir_fd and os.listdir in os.supports_fd
JUNCTION = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)  # Windows alone has them
TEMPORARY_SUFFIX = r"\.[0-9]+\.tmp"
UNFINISHED = re.compile(rf".+{TEMPORARY_SUFFIX}")
NUMBER = "[0-9]{6,}"
FINGERPRINT = "[0-9a-f]{16}"  # named the folder of a vector index in formats 1 and 2


@dataclass(frozen=True)
class Folder:
    """What vggsearch writes into a folder: patterns of the whole names of files, and of folders with their own."""

    files: str = ""
    folders: Mapping[str, "Folder"] = field(default_factory=dict)

    def has_file(self, name: str) -> bool:
        """Return whether a file of this name is written here."""
        return bool(self.files) and re.fullmatch(self.files, name) is not None

    def inner(self, name: str) -> "Folder | None":
        """Return what a folder of this name holds, None if it is not ours."""
        return next((inner for pattern, inner in self.folders.items() if re.fullmatch(pattern, name)), None)


def _one_of(*names: str) -> str:
    return "|".join(map(re.escape, names))


_SHARDS = Folder(folders={"[0-9]+": Folder(_one_of(*VECTOR_INDEX_FILES))})
_VECTOR_INDEX = Folder(
    # Pairs were beside the vector index they were found in; now they outlive it.
    rf"{_one_of(*VECTOR_INDEX_FILES)}|{SEGMENT_FILES}|(?:{_one_of(EDGES, KEYPOINT_VOTES)})(?:{TEMPORARY_SUFFIX})?",
    {"tmp[a-z0-9_]{8}": _SHARDS},
)
_REWRITTEN = (MANIFEST, SKIPPED, SKIPPED_NEXT, *CACHES, DECISIONS, DAMAGED_DECISIONS)
OWN = Folder(
    rf"{_one_of(SKIPPED, SKIPPED_NEXT, LOCK_HOLDER, *CACHES)}|(?:{_one_of(*_REWRITTEN)}){TEMPORARY_SUFFIX}",
    {
        EMBEDDINGS: Folder(rf"(?:part-{NUMBER}\.parquet|dead-[0-9a-f]{{64}}\.bits)(?:{TEMPORARY_SUFFIX})?"),
        SEARCH_FOLDER: Folder(folders={rf"(?:{NUMBER}|{FINGERPRINT})(?:{TEMPORARY_SUFFIX})?": _VECTOR_INDEX}),
        LOCAL: Folder(folders={rf"{NUMBER}(?:{TEMPORARY_SUFFIX})?": Folder(_one_of(*LOCAL_FEATURE_FILES))}),
    },
)
"""What may be deleted in the folder of an index. Decisions, journals and the manifest are not among it."""


def followed(directory: Path) -> Path:
    """Return the folder to which a link leads that was named as an index; any other path as it is.

    Naming a link is naming what it leads to. Only a link in an index could lead somewhere unnoticed.
    """
    return directory.resolve() if is_link(directory) and directory.is_dir() else directory


def check_links(directory: Path) -> None:
    """Raise IndexLinked for a symbolic link in place of an index, of a folder in it or of a file that is rewritten.

    vggsearch writes and deletes files in these folders, and a link could lead to photos. Raises IndexDamaged for a
    pipe, a socket or a device in place of such a file: reading it might never end.
    """
    for path in (directory, *(directory / name for name in (EMBEDDINGS, SEARCH_FOLDER, LOCAL, JOURNALS))):
        _check_link(path)
    for parent in (directory / SEARCH_FOLDER, directory / LOCAL):
        for name in _names(parent):
            _check_link(parent / name)
    for name in (*_REWRITTEN, LOCK, LOCK_HOLDER):
        _check_file(directory / name)
    for path in directory.glob(f"{JOURNALS}/*.jsonl"):
        _check_file(path)


def leftovers(directory: Path, needed: Collection[str]) -> list[Path]:
    """Return the files and folders of an index that may be deleted, but for `needed`, which are relative paths.

    What cannot be listed is left to the next writer.
    """
    found: set[str] = set()
    with suppress(OSError), _open(directory) as root:
        found.update(name for name in root.names() if _is_own(root, OWN, name))
        for name, kind in OWN.folders.items():
            with suppress(OSError), root.open(name) as folder:
                found.update(f"{name}/{each}" for each in folder.names() if _is_own(folder, kind, each))
    return [directory / name for name in sorted(found.difference(needed))]


def delete(directory: Path, path: Path) -> None:
    """Delete a file or folder of the index in `directory`, as far as it is ours. Raises OSError if that fails.

    What is not ours stays, and so does the folder that holds it.
    """
    *parents, name = path.relative_to(directory).parts
    kind: Folder | None = OWN
    with ExitStack() as stack:
        folder = stack.enter_context(_open(directory))
        for parent in parents:
            kind = kind.inner(parent) if kind is not None else None
            folder = stack.enter_context(folder.open(parent))
        if kind is not None and _is_own(folder, kind, name):
            _delete(folder, kind, name)


def delete_unfinished(path: Path) -> None:
    """Delete a file that was being written, a regular file called NAME.PROCESS.tmp; do nothing if it is not one."""
    if UNFINISHED.fullmatch(path.name):
        with _open(path.parent) as folder:
            if stat.S_ISREG(folder.mode(path.name)):
                folder.unlink(path.name)


def _delete(folder: "_OpenFolder", kind: Folder, name: str) -> None:
    """Delete an entry that is ours; of a folder, what is ours in it, and itself if that was all."""
    inner = kind.inner(name)
    if inner is None:
        folder.unlink(name)
        return
    with folder.open(name) as opened:
        for each in filter(lambda each: _is_own(opened, inner, each), opened.names()):
            _delete(opened, inner, each)
        is_empty = not opened.names()
    if is_empty:
        folder.rmdir(name)


def _is_own(folder: "_OpenFolder", kind: Folder, name: str) -> bool:
    """Return whether an entry is ours by name and type. A folder must also be empty or hold something of ours."""
    if kind.has_file(name):
        return stat.S_ISREG(folder.mode(name))
    inner = kind.inner(name)
    if inner is None or kind is OWN or not stat.S_ISDIR(folder.mode(name)):
        return False
    with folder.open(name) as opened:
        names = opened.names()
        return not names or any(_is_own(opened, inner, each) for each in names)


def _check_link(path: Path) -> None:
    if is_link(path):
        raise IndexLinked(path, path.readlink())


def _check_file(path: Path) -> None:
    _check_link(path)
    with suppress(OSError):  # asked once: while we look, another process may write the file or delete it
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise IndexDamaged(path, "is a pipe, a socket or a device, not a file", "Delete it.")


def is_link(path: Path) -> bool:
    """Return whether a path is a symbolic link or, on Windows, a junction."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_junction = JUNCTION is not None and getattr(status, "st_reparse_tag", None) == JUNCTION
    return stat.S_ISLNK(status.st_mode) or is_junction


def _names(folder: Path) -> list[str]:
    with suppress(OSError):  # missing, or reported where it is read
        return os.listdir(folder)  # noqa: PTH208 - there may be many
    return []


class _OpenFolder:
    """A folder opened without following a link; its entries are reached through its descriptor, if there is one."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def names(self) -> list[str]:
        """Return the names of all entries."""
        return os.listdir(self._path if self._descriptor is None else self._descriptor)  # noqa: PTH208

    def mode(self, name: str) -> int:
        """Return the type of an entry, without following a link; 0 if there is none."""
        try:
            return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return 0

    def unlink(self, name: str) -> None:
        """Delete a file."""
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def rmdir(self, name: str) -> None:
        """Delete an empty folder."""
        os.rmdir(self._at(name), dir_fd=self._descriptor)

    @contextmanager
    def open(self, name: str) -> Iterator["_OpenFolder"]:
        """Open a folder in this one. Raises OSError if it is a link or not a folder."""
        with _opened(Path(self._at(name)), self._descriptor) as descriptor:
            yield _OpenFolder(self._path / name, descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else str(self._path / name)


@contextmanager
def _open(path: Path) -> Iterator[_OpenFolder]:
    with _opened(path, None) as descriptor:
        yield _OpenFolder(path, descriptor)


@contextmanager
def _opened(path: Path, parent: int | None) -> Iterator[int | None]:
    """Yield the descriptor of a folder, None on a system without; `path` is relative to the descriptor `parent`."""
    if not HAS_DESCRIPTORS:
        if is_link(path) or not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
