"""Photos in object storage: list a bucket folder by folder, as photos.walk does on a disk, and read objects."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from vggsearch.errors import PhotosError
from vggsearch.photos.addresses import escaped_name, name_problem
from vggsearch.photos.walk import PhotoFile, Skipped, is_clutter

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

NOT_FOR_PEOPLE = re.compile(r"^\[Errno \d+\] | \(Request ID.*|\. Detail: \[errno.*")  # in a message of pyarrow.fs
ERRORS = (OSError, ValueError)  # of pyarrow.fs; ArrowInvalid is a ValueError


class ObjectStorage:
    """The objects below an address such as s3://bucket/prefix.

    Region, endpoint and keys are those of the environment, of the user's configuration or of the machine, as for
    other programs of AWS and Google. Raises PhotosError for an address that cannot be opened.
    """

    def __init__(self, address: str) -> None:
        from pyarrow.fs import FileSystem  # not above: few need it

        self.address = address
        try:
            self._files, self._prefix = FileSystem.from_uri(address)
        except ERRORS as error:
            raise PhotosError(f"{address} cannot be opened: {reason(error)}.") from error

    def walk(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every object, in the order of photos.walk.walk. Raises PhotosError if there are none to list."""
        pending = [""]
        while pending:
            inside = pending.pop()
            try:
                entries = self._entries(inside)
            except ERRORS as error:
                if not inside:
                    raise PhotosError(f"{self.address} cannot be listed: {reason(error)}.") from error
                yield Skipped(inside, reason(error), "unreadable")
                continue
            folders = []
            for entry in entries:
                path = f"{inside}/{entry.base_name}" if inside else entry.base_name
                if is_clutter(entry.base_name):
                    continue
                if entry.is_file:
                    yield _photo_file(path, entry)
                else:
                    folders.append(path)
            pending.extend(reversed(folders))

    def open(self, path: str) -> BinaryIO:
        """Open an object for reading anywhere in it. Raises OSError and ValueError."""
        opened: BinaryIO = self._files.open_input_file(f"{self._prefix}/{path}")
        return opened

    def look_at(self, path: str) -> PhotoFile:
        """Return an object as it is now. Raises OSError and ValueError."""
        info = self._files.get_file_info(f"{self._prefix}/{path}")
        if not info.is_file:
            raise FileNotFoundError(f"there is no object {path}")
        return PhotoFile(path, info.size, info.mtime_ns or 0)

    def _entries(self, inside: str) -> "list[FileInfo]":
        from pyarrow.fs import FileSelector

        folder = f"{self._prefix}/{inside}" if inside else self._prefix
        found: list[Any] = self._files.get_file_info(FileSelector(folder))
        return sorted(found, key=lambda entry: entry.base_name)


def reason(error: Exception) -> str:
    """Return the message of an error of pyarrow.fs in one line, without the numbers in it."""
    if not str(error):
        return repr(error)
    return NOT_FOR_PEOPLE.sub("", str(error).splitlines()[0]).rstrip(".")


def _photo_file(path: str, entry: "FileInfo") -> PhotoFile | Skipped:
    problem = name_problem(path)
    if problem is not None:
        return Skipped(escaped_name(path), problem, "bad name")
    return PhotoFile(path, entry.size, entry.mtime_ns or 0)
