"""Photos in tar files, as WebDataset and others pack them: the path of a photo is `00042.tar/000420017.jpg`.

A tar file is listed once for each size and modification time, and its list kept in the user's cache folder, so that
a thousand unchanged files are not read again. Nothing is ever unpacked: a photo is read by its place in its file.
"""

import hashlib
import os
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple, Protocol, cast, get_args

from vggsearch.errors import ImageError, SkipKind
from vggsearch.photos.addresses import escaped_name, name_problem
from vggsearch.photos.object_storage import ERRORS, reason
from vggsearch.photos.opening import open_photo
from vggsearch.photos.walk import PhotoFile, Skipped, Stamp, is_clutter, walk
from vggsearch.system import places

TAR_SUFFIX = ".tar"
# What WebDataset puts beside each photo. Listing it as skipped would double or treble what an index keeps.
SIDECARS = (
    ".json",
    ".jsonl",
    ".txt",
    ".cls",
    ".cls2",
    ".index",
    ".csv",
    ".npy",
    ".npz",
    ".pt",
    ".pth",
    ".pyd",
    ".id",
)
MOST_MEMBERS = 5_000_000  # of one file, since its list is in memory
MOST_HEADER = 1 << 20  # bytes of a header that tarfile reads at once; a header may claim to have any number
AT_ONCE = 32  # files in object storage that are listed at once; it answers each request in some 20 ms
KEPT = 64  # lists in memory
WINDOW = 2048  # bytes that are read at once: a header has 512, or 1,536 and more with a long name


class Member(NamedTuple):
    """A member of a tar file: its path in it, and the place of its bytes. `kind` is "" for one that is a file."""

    path: str
    offset: int
    size: int
    kind: str = ""
    reason: str = ""


class Files(Protocol):
    """Where tar files are."""

    address: str

    def walk(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every file."""

    def open(self, path: str) -> BinaryIO:
        """Open a file."""

    def look_at(self, path: str) -> PhotoFile:
        """Return a file as it is now."""


class FolderOfFiles:
    """The files of a folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.address = folder, folder.as_posix()

    def walk(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every file; see photos.walk.walk."""
        return walk(self._folder)

    def open(self, path: str) -> BinaryIO:
        """Open a file below the folder. Raises OSError and ImageError."""
        return open_photo(self._folder, path)

    def look_at(self, path: str) -> PhotoFile:
        """Return a file as it is now. Raises OSError, FileNotFoundError for a folder, and ImageError."""
        if (self._folder / path).is_dir():
            raise FileNotFoundError(f"{path} is a folder")
        with open_photo(self._folder, path) as opened:
            status = os.fstat(opened.fileno())
        return PhotoFile(path, status.st_size, status.st_mtime_ns, Stamp.of(status))


class TarFiles:
    """The photos in all tar files of a folder or bucket. `at_once` files are listed at once."""

    def __init__(self, files: Files, at_once: int) -> None:
        self._files, self._at_once = files, at_once
        self._lists: OrderedDict[PhotoFile, dict[str, Member]] = OrderedDict()
        self._reading = Lock()

    def walk(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every photo of every tar file, in the order of the files and of the members in them."""
        return self.photos_in(self._files.walk())

    def files(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every file where the tar files are."""
        return self._files.walk()

    def photos_in(self, files: Iterator[PhotoFile | Skipped]) -> Iterator[PhotoFile | Skipped]:
        """Yield the photos of tar files."""
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="tar") as threads:
            while some := list(islice(files, self._at_once)):
                for each in threads.map(self._listed, some):
                    yield from each

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of a photo, up to `most`. Raises ImageError, OSError and ValueError."""
        for name in _tar_names(path):
            with suppress(FileNotFoundError, NotADirectoryError):
                file = self._files.look_at(name)
                member = self._members(file).get(path[len(name) + 1 :])
                if member is None or member.kind:
                    raise ImageError(f"is no longer in {name}", "unreadable")
                return self._bytes_of(file, member, most)
        raise ImageError("its tar file is gone", "unreadable")

    def _bytes_of(self, file: PhotoFile, member: Member, most: int) -> bytes:
        if member.size > most:
            raise ImageError(f"has {member.size:,} bytes; the limit is {most:,}", "too large")
        with closing(self._files.open(file.path)) as opened:
            opened.seek(member.offset)
            return opened.read(member.size)

    def _listed(self, file: PhotoFile | Skipped) -> list[PhotoFile | Skipped]:
        if isinstance(file, Skipped):
            return [file]
        if not file.path.endswith(TAR_SUFFIX):
            return [Skipped(file.path, "not a .tar file", "not a picture", file.bytes, file.mtime_ns)]
        try:
            members = self._members(file).values()
        except (*ERRORS, ImageError) as error:
            return [Skipped(file.path, f"cannot be listed: {reason(error)}", "unreadable")]
        return [_found(file, member) for member in members]

    def _members(self, file: PhotoFile) -> dict[str, Member]:
        """Return the members of a tar file by path."""
        key = file._replace(stamp=None)
        with self._reading:
            if key in self._lists:
                self._lists.move_to_end(key)
                return self._lists[key]
        members = self._list_of(file)
        with self._reading:
            self._lists[key] = members
            if len(self._lists) > KEPT:
                self._lists.popitem(last=False)
        return members

    def _list_of(self, file: PhotoFile) -> dict[str, Member]:
        kept = _KeptList(f"{self._files.address}\0{file.path}\0{file.bytes}\0{file.mtime_ns}")
        members = kept.read()
        if members is None:
            with closing(self._files.open(file.path)) as opened:
                members = list(tar_members(opened, file.bytes))
            kept.write(members)
        return {member.path: member for member in members}  # of two members of one name, tar takes the last


def tar_members(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yield the members of a tar file of `size` bytes that may be photos, and those that cannot be read.

    A member is never what tarfile would make of it: links, devices and sparse files are left out, and so is a file
    whose bytes are not all there. Raises OSError for a file that is no tar file, or is damaged.
    """
    try:
        with tarfile.open(fileobj=cast("BinaryIO", _Headers(file)), mode="r:") as tar:
            end = 0
            for number, member in enumerate(tar):
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them
                if number >= MOST_MEMBERS or member.size < 0 or member.offset_data < end:
                    raise OSError("it has too many members, or they overlap")
                end = member.offset_data + (0 if member.sparse else member.size)
                if (found := _member(member, size)) is not None:
                    yield found
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise OSError(f"it is no tar file, or damaged ({error})") from error


def _member(member: tarfile.TarInfo, size: int) -> Member | None:
    path = member.name.removeprefix("./")
    problem = name_problem(path)
    if member.isdir() or path.lower().endswith(SIDECARS):
        return None
    if problem is None and any(map(is_clutter, path.split("/"))):
        return None
    if problem is not None:
        return Member(escaped_name(path), 0, 0, "bad name", problem)
    if member.issym() or member.islnk():
        return Member(path, 0, 0, "link", "a link, which is not followed")
    if not member.isreg() or member.sparse:
        return Member(path, 0, 0, "special file", "not a regular file")
    if member.offset_data + member.size > size:
        return Member(path, 0, 0, "unreadable", "its tar file ends before it")
    return Member(path, member.offset_data, member.size)


def _found(file: PhotoFile, member: Member) -> PhotoFile | Skipped:
    """Return a photo with the time of its tar file: that of a member says nothing, and is 0 in many."""
    path = f"{file.path}/{member.path}"
    if member.kind:
        return Skipped(path, member.reason, cast("SkipKind", member.kind), 0, file.mtime_ns)
    return PhotoFile(path, member.size, file.mtime_ns, file.stamp)


def _tar_names(path: str) -> Iterator[str]:
    """Yield what may be the tar file in the path of a photo: of old.tar/1.tar/a.jpg, the first may be a folder."""
    at = path.find(f"{TAR_SUFFIX}/")
    while at >= 0:
        yield path[: at + len(TAR_SUFFIX)]
        at = path.find(f"{TAR_SUFFIX}/", at + 1)


class _Headers:
    """A tar file from which only headers are read, a window at a time: tarfile asks twice for each member."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._position = file, 0
        self._start, self._window = 0, b""

    def read(self, size: int) -> bytes:
        if size > MOST_HEADER:
            raise OSError("a header of it is too large")
        at = self._position - self._start
        if not 0 <= at <= len(self._window) - size:
            self._file.seek(self._position)
            self._start, self._window, at = self._position, self._file.read(max(size, WINDOW)), 0
        data = self._window[at : at + size]
        self._position += len(data)
        return data

    def seek(self, offset: int) -> int:
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position


class _KeptList:
    """The list of the members of one state of one tar file, in the user's cache folder."""

    def __init__(self, state: str) -> None:
        folder = places.cache_folder()
        self._file = (
            None if folder is None else folder / "tars" / f"{hashlib.sha256(state.encode()).hexdigest()}.parquet"
        )

    def read(self) -> list[Member] | None:
        """Return the list, None if it is not there or damaged."""
        import pyarrow.parquet as pq

        if self._file is None or not self._file.exists():
            return None
        try:
            columns = pq.ParquetFile(self._file, page_checksum_verification=True).read(list(Member._fields)).columns
        except ERRORS:
            return None
        members = [Member(*values) for values in zip(*(column.to_pylist() for column in columns), strict=True)]
        return members if {member.kind for member in members} <= {"", *get_args(SkipKind)} else None

    def write(self, members: list[Member]) -> None:
        """Keep the list. Without room or rights for it, the file is listed again next time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._file is None:
            return
        types = (pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string())
        columns = zip(*members, strict=True) if members else [()] * len(types)
        table = pa.table(
            {
                name: pa.array(list(column), type)
                for name, column, type in zip(Member._fields, columns, types, strict=True)
            }
        )
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=self._file.parent, suffix=".unfinished")
            os.close(handle)
            pq.write_table(table, unfinished, compression="zstd", write_page_checksum=True)
            os.replace(unfinished, self._file)
