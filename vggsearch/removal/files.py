"""File operations of a removal: find, read, rename and copy files, never replacing anything."""

import ctypes
import errno
import functools
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath

from vggsearch.errors import ActionRefused

PREFIX = ".vggsearch-"  # hidden, so no index takes it for a photo
MAX_SUFFIX_LENGTH = 16  # characters: a longer suffix is dropped from the temporary name
COPY_BLOCK = 1 << 20  # bytes
PERMISSIONS = 0o777  # without setuid, setgid and sticky
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file below the photo folder: its path relative to it, as given, and its resolved path."""

    relative: str
    path: Path
    status: os.stat_result

    def is_same_file(self, other: "FoundFile") -> bool:
        """Return whether both are one file: hard links, two spellings of a name, a second mount."""
        return os.path.samestat(self.status, other.status)


@contextmanager
def refusing_os_errors(relative: str) -> Iterator[None]:
    """Raise ActionRefused, naming the file, for any OSError."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename
        raise ActionRefused(f"{relative}: {error.strerror or error}" + (f" ({where})" if where else "")) from error


@contextmanager
def refusing_read_errors(relative: str) -> Iterator[None]:
    """Raise ActionRefused, naming the file, if it cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ActionRefused(f"{relative} no longer exists") from error
    except OSError as error:
        raise ActionRefused(f"{relative} cannot be read: {error.strerror or error}") from error


def resolve_inside(root: Path, relative: str) -> Path:
    """Return the absolute path of `relative` below `root`, which is resolved already, with its folder resolved.

    Raises ActionRefused if that is not below `root`, or the folder is missing.
    """
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or PurePosixPath(relative).is_absolute():
        raise ActionRefused(f"{relative} is not a path below the photo folder")
    with refusing_read_errors(relative):
        folder = Path(os.path.realpath((root / relative).parent, strict=True))
    if not folder.is_relative_to(root):
        raise ActionRefused(f"{relative} leads out of the photo folder, to {folder}")
    return folder / parts[-1]


def find_file(root: Path, relative: str) -> FoundFile:
    """Find a file without opening it. Raises ActionRefused unless it is a regular file below `root`."""
    path = resolve_inside(root, relative)
    with refusing_read_errors(relative):
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ActionRefused(f"{relative} is a symbolic link, not a photo")
    if not stat.S_ISREG(status.st_mode):
        raise ActionRefused(f"{relative} is not a regular file")
    return FoundFile(relative, path, status)


def open_to_read(path: Path) -> BufferedReader:
    """Open a file without following a symbolic link or waiting for a pipe."""
    flags = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    return os.fdopen(os.open(path, os.O_RDONLY | flags), "rb")


def sha256_of(path: Path) -> tuple[str, os.stat_result]:
    """Return the sha256 of a file's bytes and its status before. Raises ActionRefused if it changes meanwhile."""
    with open_to_read(path) as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not is_unchanged(before, path.lstat()):
        raise ActionRefused(f"{path} changed while it was being read")
    return digest, before


def is_unchanged(before: os.stat_result, now: os.stat_result) -> bool:
    """Return whether a name still refers to the same file, of the same size and modification time."""
    same = os.path.samestat(before, now) and stat.S_ISREG(now.st_mode)
    return same and (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns)


def check_sha256(path: Path, relative: str, sha256: str) -> os.stat_result:
    """Read a file and return its status. Raises ActionRefused, naming `relative`, unless it has this sha256."""
    with refusing_read_errors(relative):
        digest, status = sha256_of(path)
    if digest != sha256:
        raise ActionRefused(f"{relative} has changed since it was indexed: update the index")
    return status


def has_bytes(path: Path, sha256: str) -> bool:
    """Return whether this is a regular file, not a link, with this sha256."""
    try:
        return stat.S_ISREG(path.lstat().st_mode) and sha256_of(path)[0] == sha256
    except (OSError, ActionRefused):
        return False


def aside_name(path: Path, token: str) -> Path:
    """Return the hidden name of a file, in its own folder, while it is being removed."""
    suffix = path.suffix if len(path.suffix) <= MAX_SUFFIX_LENGTH else ""
    return path.with_name(f"{PREFIX}{token}{suffix}")


def copy_name(path: Path, token: str) -> Path:
    """Return the name of a copy of `path` while it is written."""
    return path.with_name(f"{PREFIX}{token}.part")


def old_link_name(path: Path, token: str) -> Path:
    """Return the name of the link at `path` while it is being replaced."""
    return path.with_name(f"{PREFIX}{token}.link")


def rename_exclusively(source: Path, target: Path) -> None:
    """Rename without replacing. Raises FileExistsError if anything exists at `target`.

    Linux and macOS can rename exclusively. On volumes that cannot, a hard link is made and the first name removed.
    FAT on a network share supports neither, so the target is checked before a plain rename.
    """
    if sys.platform == "win32":
        source.rename(target)  # Windows never replaces
        return
    if _system_renamed(source, target):
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    else:
        source.unlink()
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


@functools.cache
def _exclusive_rename() -> Callable[[bytes, bytes], int] | None:
    """Return the system's exclusive rename, which returns 0 on success; None if none exists."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda source, target: int(library.renamex_np(source, target, 4))  # RENAME_EXCL
    if hasattr(library, "renameat2"):
        here = -100  # AT_FDCWD
        return lambda source, target: int(library.renameat2(here, source, here, target, 1))  # RENAME_NOREPLACE
    return None


def _system_renamed(source: Path, target: Path) -> bool:
    rename = _exclusive_rename()
    if rename is None:
        return False
    if rename(os.fsencode(source), os.fsencode(target)) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def make_folders(folder: Path) -> None:
    """Create a folder and its parents, and flush their names to the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush_folder(each.parent)


def copy_to(part: Path, source: Path, sha256: str, mtime_ns: int, mode: int) -> None:
    """Copy a file to the temporary name `part` and flush it. Raises ActionRefused unless the copy has this sha256.

    The copy is read back, and gets the modification time, owner, permissions and attributes, as far as the volume
    supports them; but never the bits that let a program run as another user, as `mode` is read from a journal.
    """
    part.unlink(missing_ok=True)  # left by an interrupted run
    try:
        with open_to_read(source) as old, part.open("xb") as new:
            shutil.copyfileobj(old, new, COPY_BLOCK)
            new.flush()
            os.fsync(new.fileno())
        if sha256_of(part)[0] != sha256:
            raise ActionRefused(f"{source} could not be copied: the copy has other bytes")
        with suppress(OSError):
            shutil.copystat(source, part)
        with suppress(OSError, AttributeError):  # Windows has no such owners
            owner = source.stat()
            os.chown(part, owner.st_uid, owner.st_gid)
        with suppress(OSError):
            part.chmod(mode & PERMISSIONS)
        with suppress(OSError):
            os.utime(part, ns=(mtime_ns, mtime_ns))
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system supports it: some network volumes do not."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
