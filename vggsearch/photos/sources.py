"""Where photos come from: a folder, object storage or tar files, of which photos are read into memory."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

from vggsearch.defaults import IMAGE
from vggsearch.errors import ImageError, PhotosError
from vggsearch.photos.addresses import TAR, address_of, is_address, settled
from vggsearch.photos.inventory import listed_files
from vggsearch.photos.object_storage import ERRORS, ObjectStorage, reason
from vggsearch.photos.opening import open_photo
from vggsearch.photos.walk import PhotoFile, Skipped, walk


class Source(Protocol):
    """Photos at an address."""

    def walk(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every photo. Raises PhotosError if the address cannot be listed."""

    def files(self) -> Iterator[PhotoFile | Skipped]:
        """Yield every file that is or holds photos. Raises PhotosError if the address cannot be listed."""

    def photos_in(self, files: Iterator[PhotoFile | Skipped]) -> Iterator[PhotoFile | Skipped]:
        """Yield the photos in files that are known to be there."""

    def read(self, path: str, most: int) -> bytes:
        """Return the bytes of a photo. Raises ImageError, also for more than `most`, OSError and ValueError."""


class _Objects(ObjectStorage):
    """Photos that are objects."""

    def files(self) -> Iterator[PhotoFile | Skipped]:
        return self.walk()

    def photos_in(self, files: Iterator[PhotoFile | Skipped]) -> Iterator[PhotoFile | Skipped]:
        return files

    def read(self, path: str, most: int) -> bytes:
        with self.open(path) as opened:
            data = opened.read(most + 1)
        if len(data) > most:
            raise ImageError(f"has more than {most >> 20} MB, the limit for what is not on a disk", "too large")
        return data


@lru_cache(maxsize=16)
def source_of(root: Path) -> Source:
    """Return the photos at an address. Raises PhotosError and OptionError."""
    from vggsearch.photos.tar_files import AT_ONCE, FolderOfFiles, TarFiles  # not above: few need tarfile

    root = settled(root)
    if not root.as_posix().startswith(TAR):
        return _Objects(address_of(root))
    inner = Path(root.as_posix().removeprefix(TAR))
    if is_address(inner):
        return TarFiles(ObjectStorage(address_of(inner)), AT_ONCE)
    return TarFiles(FolderOfFiles(inner), 1)


def check_address(root: Path, *, is_listed: bool) -> None:
    """Raise PhotosError for an address that cannot be opened or, if it `is_listed`, cannot be or holds no files."""
    source = source_of(root)
    if is_listed and next(source.files(), None) is None:
        raise holds_nothing(root)


def holds_nothing(root: Path) -> PhotosError:
    """Return the error for an address without files."""
    return PhotosError(f"{address_of(root)} holds no files. Is the address right?")


def walk_photos(
    root: Path, exclude: Path | None = None, inventory: Path | None = None
) -> Iterator[PhotoFile | Skipped]:
    """Yield every file at `root`, a folder or an address; see walk.walk. Raises PhotosError.

    With an `inventory`, the files that it lists; see inventory.listed_files.
    """
    if inventory is not None:
        listed = listed_files(inventory, root)
        return source_of(root).photos_in(listed) if is_address(root) else listed
    return source_of(root).walk() if is_address(root) else walk(root, exclude)


def read_photo(root: Path, path: str) -> bytes:
    """Return the bytes of a photo below an address, at most IMAGE.stream_bytes. Raises ImageError."""
    try:
        return source_of(root).read(path, IMAGE.stream_bytes)
    except (PhotosError, *ERRORS) as error:
        raise ImageError(reason(error), "unreadable") from error


def read_unchanged(root: Path, file: PhotoFile) -> bytes:
    """Return the bytes of a photo that a walk found. Raises ImageError, also if it has another size now."""
    if file.bytes > IMAGE.stream_bytes:
        limit = f"the limit for what is not on a disk is {IMAGE.stream_bytes >> 20} MB"
        raise ImageError(f"has {file.bytes / 1e9:,.1f} GB; {limit}", "too large")
    data = read_photo(root, file.path)
    if len(data) != file.bytes:
        raise ImageError("changed while it was read; the next update indexes it", "unreadable")
    return data


def open_original(root: Path, path: str) -> BinaryIO:
    """Open the photo `path` at `root`, a folder or an address. Raises ImageError and OSError."""
    if not is_address(root):
        return open_photo(root, path)
    import tempfile  # not above: decoder processes do without

    file = tempfile.TemporaryFile()  # noqa: SIM115 - it has no name, and the caller closes it
    file.write(read_photo(root, path))
    file.seek(0, os.SEEK_SET)
    return file
