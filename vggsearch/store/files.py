"""Write files atomically, so that a crash leaves the old or the new one, and verify them by size and hash."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vggsearch.errors import IndexDamaged, IndexNotWritable
from vggsearch.store.contents import TEMPORARY
from vggsearch.store.own_files import delete, delete_unfinished
from vggsearch.system.reading import reading_from


def check_name(name: str) -> None:
    """Raise ValueError for the name of a file or folder that leads to another folder."""
    if name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name) or Path(name).name != name:
        raise ValueError(f"the name {name!r} points outside the index")


@dataclass(frozen=True)
class FileHash:
    """A file as it was written: its name, its size in bytes, and the SHA-256 of its content."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raise ValueError for a name that points to another folder."""
        check_name(self.name)

    @classmethod
    def of(cls, path: Path) -> "FileHash":
        """Return the size and the hash of a file."""
        with path.open("rb") as file:
            return cls(path.name, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def check_size(self, folder: Path) -> Path:
        """Return the path of the file in `folder`. Raises IndexDamaged if it is missing or has another size."""
        path = folder / self.name
        with reading_from(path):
            size = path.stat().st_size
        if size != self.bytes:
            raise IndexDamaged(path, f"has {size:,} bytes, but the manifest says {self.bytes:,}")
        return path

    def check(self, folder: Path) -> Path:
        """Check size and hash and return the path. Raises IndexDamaged if the file is not as it was written."""
        path = self.check_size(folder)
        with reading_from(path):
            found = FileHash.of(path).sha256
        if found != self.sha256:
            raise IndexDamaged(path, f"has sha256 {found[:12]}..., but the manifest says {self.sha256[:12]}...")
        return path


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError into IndexNotWritable, one line: disk full, read-only, or no permission."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"is the disk full? {str(error).splitlines()[0]}"  # numpy and FAISS set no errno
        raise IndexNotWritable(
            f"{path} cannot be written ({reason}). The index keeps its last committed state: free disk space or "
            "allow writing, then run the same command again."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary file, flush it to disk, then rename it to `path`.

    If `write` raises, the temporary file is removed and `path` is unchanged. An OSError becomes IndexNotWritable.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with writing_to(path):
        delete_unfinished(temporary)  # of a killed process that had this number
        temporary.touch(exist_ok=False)  # what is left is not ours, such as a link to another file
        try:
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
        except BaseException:
            delete_unfinished(temporary)
            raise
        flush_directory(path.parent)


def write_folder_atomically(
    folder: Path, write: Callable[[Path], None], taken: Sequence[FileHash] = (), source: Path | None = None
) -> tuple[FileHash, ...]:
    """Have `write` fill a temporary folder, flush it, rename it to `folder`; return its files sorted by name.

    `folder` is in one of the folders of an index, search or local. The files `taken` from the folder `source` are
    there before; they keep the hash that they were written with.
    """
    known = {file.name: file for file in taken}
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}{TEMPORARY}")
    with writing_to(folder):
        folder.parent.mkdir(exist_ok=True)
        temporary.mkdir()
        try:
            for file in taken:
                take_over(file, source or folder, temporary / file.name)
            write(temporary)
            written = sorted(temporary.iterdir())
            for path in written:
                if path.name not in known:
                    _flush(path)
            flush_directory(temporary)
            files = tuple(known.get(path.name) or FileHash.of(path) for path in written)
            os.replace(temporary, folder)
        except BaseException:
            with suppress(OSError):
                delete(folder.parent.parent, temporary)
            raise
        flush_directory(folder.parent)
    return files


def take_over(file: FileHash, source: Path, target: Path) -> None:
    """Make `target` of the file of another index in the folder `source`: a hard link, or a copy to another disk.

    Neither changes: files of an index are replaced, never overwritten. Raises IndexDamaged if the file is not as it
    was written, which a copy shows by its hash and a link by its size, and IndexNotWritable.
    """
    original = file.check_size(source).resolve()
    with suppress(OSError):
        os.link(original, target)
        return
    write_atomically(target, lambda path: _copy(original, path, file))


def _copy(original: Path, path: Path, file: FileHash) -> None:
    with reading_from(original):
        shutil.copyfile(original, path)
    if FileHash.of(path).sha256 != file.sha256:
        file.check(original.parent)  # says what is wrong with it
        raise OSError("the copy differs from the original")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power failure. Windows does so by itself and cannot open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
