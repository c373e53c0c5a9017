"""Files as an act needs them: looked at, read through, set aside, renamed and copied, never onto something else."""

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

PREFIX = ".vggsearch-"  # hidden, so that no index takes it for a photo
LONGEST_SUFFIX = 16  # characters of a file's suffix that its name keeps while it is aside
BLOCK = 1 << 20  # bytes copied at once
NOT_HERE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file below the photo folder: `inside`, as it was asked for, and where it really is."""

    inside: str
    path: Path
    status: os.stat_result

    def is_same_file(self, other: "FoundFile") -> bool:
        """Say whether both names lead to one file: a hard link, another spelling of one name, a second mount."""
        return os.path.samestat(self.status, other.status)


@contextmanager
def refusing(inside: str) -> Iterator[None]:
    """Raise ActionRefused, naming the file, for what the operating system refuses."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename
        raise ActionRefused(f"{inside}: {error.strerror or error}" + (f" ({where})" if where else "")) from error


@contextmanager
def reading(inside: str) -> Iterator[None]:
    """Raise ActionRefused, naming the file, where it cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ActionRefused(f"{inside} is gone") from error
    except OSError as error:
        raise ActionRefused(f"{inside} cannot be read: {error.strerror or error}") from error


def place(root: Path, inside: str) -> Path:
    """Return where `inside` is, its folder resolved. `root` is resolved already.

    Raises ActionRefused where that is not below `root`, or its folder is missing.
    """
    parts = PurePosixPath(inside).parts
    if not parts or ".." in parts or PurePosixPath(inside).is_absolute():
        raise ActionRefused(f"{inside} is no path below the photo folder")
    with reading(inside):
        folder = Path(os.path.realpath((root / inside).parent, strict=True))
    if not folder.is_relative_to(root):
        raise ActionRefused(f"{inside} leads out of the photo folder, to {folder}")
    return folder / parts[-1]


def look(root: Path, inside: str) -> FoundFile:
    """Look at a file, opening nothing. Raises ActionRefused unless it is a regular file below `root`."""
    path = place(root, inside)
    with reading(inside):
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ActionRefused(f"{inside} is a symbolic link, not a photo of its own")
    if not stat.S_ISREG(status.st_mode):
        raise ActionRefused(f"{inside} is not a regular file")
    return FoundFile(inside, path, status)


def open_to_read(path: Path) -> BufferedReader:
    """Open a file, never through a symbolic link and never waiting for a pipe."""
    flags = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    return os.fdopen(os.open(path, os.O_RDONLY | flags), "rb")


def sha256_of(path: Path) -> tuple[str, os.stat_result]:
    """Read a file through: the sha256 of its bytes, and what it was before. Raises ActionRefused if it changes."""
    with open_to_read(path) as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not is_unchanged(before, path.lstat()):
        raise ActionRefused(f"{path} changed while it was read")
    return digest, before


def is_unchanged(before: os.stat_result, now: os.stat_result) -> bool:
    """Say whether a name still leads to the same file, of the same size and age."""
    same = os.path.samestat(before, now) and stat.S_ISREG(now.st_mode)
    return same and (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns)


def check(path: Path, inside: str, sha256: str) -> os.stat_result:
    """Read a file through. Raises ActionRefused, naming `inside`, unless its bytes have this sha256."""
    with reading(inside):
        digest, status = sha256_of(path)
    if digest != sha256:
        raise ActionRefused(f"{inside} has changed since it was indexed: run vggsearch index again")
    return status


def has_bytes(path: Path, sha256: str) -> bool:
    """Say whether this is a regular file, no link, with these bytes."""
    try:
        return stat.S_ISREG(path.lstat().st_mode) and sha256_of(path)[0] == sha256
    except (OSError, ActionRefused):
        return False


def aside_name(path: Path, token: str) -> Path:
    """Return what a file is called while an act decides about it: hidden, in its own folder."""
    suffix = path.suffix if len(path.suffix) <= LONGEST_SUFFIX else ""
    return path.with_name(f"{PREFIX}{token}{suffix}")


def part_name(path: Path, token: str) -> Path:
    """Return what a copy that is to become `path` is called while it is written."""
    return path.with_name(f"{PREFIX}{token}.part")


def link_name(path: Path, token: str) -> Path:
    """Return what a link that is to be replaced at `path` is called meanwhile."""
    return path.with_name(f"{PREFIX}{token}.link")


def rename_new(source: Path, target: Path) -> None:
    """Rename, with FileExistsError where there is a `target` already, whatever it is.

    Linux and macOS have a rename that does not replace; where the volume lacks it, a hard link and the removal of
    the first name do the same. FAT over the network has neither: there a look goes before a plain rename.
    """
    if sys.platform == "win32":
        source.rename(target)  # never replaces there
        return
    if _renamed_exclusively(source, target):
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
    else:
        source.unlink()
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


@functools.cache
def _exclusive_rename() -> Callable[[bytes, bytes], int] | None:
    """Return the system's rename that never replaces, 0 on success, or None where there is none."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda source, target: int(library.renamex_np(source, target, 4))  # RENAME_EXCL
    if hasattr(library, "renameat2"):
        here = -100  # AT_FDCWD
        return lambda source, target: int(library.renameat2(here, source, here, target, 1))  # RENAME_NOREPLACE
    return None


def _renamed_exclusively(source: Path, target: Path) -> bool:
    rename = _exclusive_rename()
    if rename is None:
        return False
    if rename(os.fsencode(source), os.fsencode(target)) == 0:
        return True
    number = ctypes.get_errno()
    if number in NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, and write their names to the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush_folder(each.parent)


def copy_to(part: Path, source: Path, sha256: str, mtime_ns: int, mode: int) -> None:
    """Copy a file to a temporary name of ours, on the disk when this returns. Raises ActionRefused for other bytes.

    It is read again from where it was written, and gets what the volume keeps: age, owner, permissions, attributes.
    """
    part.unlink(missing_ok=True)  # of an act that was interrupted
    try:
        with open_to_read(source) as old, part.open("xb") as new:
            shutil.copyfileobj(old, new, BLOCK)
            new.flush()
            os.fsync(new.fileno())
        if sha256_of(part)[0] != sha256:
            raise ActionRefused(f"{source} could not be copied whole: the copy has other bytes")
        with suppress(OSError):
            shutil.copystat(source, part)
        with suppress(OSError, AttributeError):  # Windows has no owners of this kind
            owner = source.stat()
            os.chown(part, owner.st_uid, owner.st_gid)
        with suppress(OSError):
            part.chmod(stat.S_IMODE(mode))
        with suppress(OSError):
            os.utime(part, ns=(mtime_ns, mtime_ns))
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can: some network disks do so of themselves."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
    finally:
        os.close(descriptor)
