"""What an index knows of files, made without an index."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from vggsearch.photos.walk import PhotoFile, Stamp
from vggsearch.store.known_files import KnownFiles
from vggsearch.store.stamps import read_stamps, table_of
from vggsearch.store.store import Store


def known(files: Iterable[PhotoFile] = (), stamps: Mapping[str, Stamp] | None = None) -> KnownFiles:
    """Return photos as an index knows them, with the recorded stamps of photos and other files."""
    photos = list(files)
    paths = pa.chunked_array([[file.path for file in photos]], pa.string())
    sizes, times = (np.array([file[place] for file in photos], np.int64) for place in (1, 2))
    return KnownFiles.of(paths, sizes, times, table_of(stamps or {}).to_batches())


def stamps_in(directory: Path) -> dict[str, Stamp]:
    """Return the recorded stamps of an index by path."""
    paths, *columns = (column.to_pylist() for column in read_stamps(directory).columns)
    return dict(zip(paths, map(Stamp, *columns), strict=True))


def files_in(store: Store) -> dict[str, PhotoFile]:
    """Return the live photos of a store by path, with size and modification time, in row order."""
    columns = (store.array(name) for name in ("path", "bytes", "mtime_ns"))
    return {path: PhotoFile(path, int(size), int(time)) for path, size, time in zip(*columns, strict=True)}
