"""Write files so that a crash leaves the old one or the new one, never half of either, and know them again."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vggsearch.errors import IndexDamaged, IndexNotReadable, IndexNotWritable
from vggsearch.store.contents import TEMPORARY


@dataclass(frozen=True)
class FileHash:
    """A file as it was written: its name, its size in bytes, the sha256 of its bytes."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raise ValueError for a name that leads to another folder."""
        if Path(self.name).name != self.name:
            raise ValueError(f"the file name {self.name!r} leaves the index")

    @classmethod
    def of(cls, path: Path) -> "FileHash":
        """Read a file through."""
        with path.open("rb") as file:
            return cls(path.name, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def check_size(self, folder: Path) -> Path:
        """Return the file's path in `folder`. Raises IndexDamaged where it is missing or of another size."""
        path = folder / self.name
        with reading_from(path):
            size = path.stat().st_size
        if size != self.bytes:
            raise IndexDamaged(path, f"has {size:,} bytes, the manifest says {self.bytes:,}")
        return path

    def check(self, folder: Path) -> Path:
        """Read the file through and return its path. Raises IndexDamaged where it is not what was written."""
        path = self.check_size(folder)
        with reading_from(path):
            found = FileHash.of(path).sha256
        if found != self.sha256:
            raise IndexDamaged(path, f"has sha256 {found[:12]}..., the manifest says {self.sha256[:12]}...")
        return path


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Raise IndexDamaged where a file is missing or its disk lost it, IndexNotReadable where it may be whole."""
    try:
        yield
    except FileNotFoundError as error:
        raise IndexDamaged(path, "is missing, though the manifest lists it") from error
    except OSError as error:
        if error.errno not in (None, errno.EIO):  # None is how a Parquet reader says that it understands nothing
            raise IndexNotReadable(
                f"{path} cannot be read ({error.strerror}). Is its disk there, and are you allowed to?"
            ) from error
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})") from error


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Raise IndexNotWritable, one line, for what the operating system refuses: full, read-only, not permitted."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"is the disk full? {str(error).splitlines()[0]}"  # numpy and FAISS do not say
        raise IndexNotWritable(
            f"{path} cannot be written ({reason}). The index is as it was last committed: make room, or allow "
            "writing, and run the same command again."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, then rename it to `path`.

    What `write` raises goes on, an OSError as IndexNotWritable, with the temporary file removed and `path` as it
    was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with writing_to(path):
        try:
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_directory(path.parent)


def write_folder_atomically(folder: Path, write: Callable[[Path], None]) -> tuple[FileHash, ...]:
    """Let `write` fill a temporary folder, flush it, rename it to `folder`; return its files in name order."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}{TEMPORARY}")
    with writing_to(folder):
        try:
            temporary.mkdir(parents=True)
            write(temporary)
            written = sorted(temporary.iterdir())
            for path in written:
                _flush(path)
            flush_directory(temporary)
            files = tuple(FileHash.of(path) for path in written)
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush_directory(folder.parent)
    return files


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_directory(directory: Path) -> None:
    """Make renames in `directory` last through a power cut. Windows does so by itself and cannot open one."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
