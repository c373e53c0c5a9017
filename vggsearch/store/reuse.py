"""Reuse embeddings of files with the same bytes: photos that were renamed, copied or touched."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.manifest import Part
from vggsearch.store.parts import CAPTURE, PERCEPTUAL_HASH
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store

FACTS = ("path", "bytes", "mtime_ns", "sha256", "width", "height", "format", "is_blank", PERCEPTUAL_HASH, *CAPTURE)
PARTS_IN_MEMORY = 2  # at once; files that moved together are mostly in one part
FIRST_LOOKS = 100  # files that are hashed before decoding, whatever comes of it
LEAST_FOUND = 0.1  # of the files hashed so, of which the bytes must be known, or it costs more than it saves
PREFIX = 16  # hexadecimal digits of a SHA-256 by which rows are sorted


class KnownContent:
    """A records.ContentLookup over the photos of a store at the start of an update, and those embedded since.

    Only photos with the size of a file in `todo` are considered. They take 16 bytes each, and none is a Python
    object: in a large index, nearly every size is taken.
    """

    def __init__(self, store: Store, todo: Sequence[PhotoFile]) -> None:
        self._store = store
        sizes = Counter(file.bytes for file in todo)
        self._repeated_sizes = {size for size, count in sizes.items() if count > 1}
        self._photos = _PhotosOfSizes(store, todo) if todo else None
        self._sizes = self._photos.sizes if self._photos is not None else set[int]()
        self.may_know_all = self._sizes.issuperset(sizes)
        self._parts: OrderedDict[str, _LoadedPart] = OrderedDict()
        self._recent: OrderedDict[str, Embedded] = OrderedDict()
        self._looks = self._found = 0
        self._lock = Lock()

    def may_know(self, file: PhotoFile) -> bool:
        """See ContentLookup."""
        return file.bytes in self._sizes or file.bytes in self._repeated_sizes

    def look_up(self, file: PhotoFile, hash_it: Callable[[], str]) -> Embedded | None:
        """See ContentLookup."""
        if not self.is_worth_reading(file):
            return None
        same = self.find(hash_it())
        with self._lock:
            self._looks += 1
            self._found += same is not None
        return same

    def is_worth_reading(self, file: PhotoFile) -> bool:
        """See ContentLookup.

        A file with the size and the time of a photo was most likely renamed. One with only the size may be a copy,
        but in a large index nearly every file has the size of a photo. So these are read before they are decoded
        only while enough of them turn out to be copies.
        """
        if self._photos is not None and (file.bytes, file.mtime_ns) in self._photos.sizes_and_times:
            return True
        is_rewarding = self._looks < FIRST_LOOKS or self._found >= LEAST_FOUND * self._looks
        return is_rewarding and self.may_know(file)

    def find(self, sha256: str) -> Embedded | None:
        """See ContentLookup."""
        with self._lock:
            if sha256 in self._recent:
                return self._recent[sha256]
            for part, row in self._photos.candidates(sha256) if self._photos is not None else ():
                loaded = self._load(part)
                if loaded.sha256(row) == sha256:
                    return loaded.photo(row)
            return None

    def remember(self, photo: Embedded) -> None:
        """Remember a photo that was just embedded, if another file has its size; the oldest ones are dropped."""
        if photo.file.bytes in self._repeated_sizes:
            with self._lock:
                self._recent[photo.sha256] = photo
                if len(self._recent) > EXTRACT.copies_remembered:
                    self._recent.popitem(last=False)

    def _load(self, part: Part) -> "_LoadedPart":
        if part.name not in self._parts:
            self._parts[part.name] = _LoadedPart(self._store, part)
            if len(self._parts) > PARTS_IN_MEMORY:
                self._parts.popitem(last=False)
        self._parts.move_to_end(part.name)
        return self._parts[part.name]


class _PhotosOfSizes:
    """The live photos that have the size of a file in `todo`, sorted by the first digits of their SHA-256."""

    def __init__(self, store: Store, todo: Sequence[PhotoFile]) -> None:
        self._parts = store.manifest.parts
        wanted, times = (np.unique(np.array([file[place] for file in todo], np.int64)) for place in (1, 2))
        self.sizes: set[int] = set()
        self.sizes_and_times: set[tuple[int, int]] = set()
        prefixes, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        self._starts = np.cumsum([0, *(part.rows for part in self._parts)])
        for part, start in zip(self._parts, self._starts, strict=False):
            table = store.live_columns(part, ("bytes", "mtime_ns", "sha256"))
            sizes, modified = (table.column(name).to_numpy() for name in ("bytes", "mtime_ns"))
            has_size = np.isin(sizes, wanted)
            self.sizes.update(np.unique(sizes[has_size]).tolist())
            has_both = has_size & np.isin(modified, times)
            self.sizes_and_times.update(zip(sizes[has_both].tolist(), modified[has_both].tolist(), strict=True))
            prefixes.append(_prefixes(table.column("sha256").filter(pa.array(has_size))))
            rows.append(start + np.flatnonzero(has_size))
        order = np.argsort(found := np.concatenate(prefixes), kind="stable")
        self._prefixes, self._rows = found[order], np.concatenate(rows)[order]

    def candidates(self, sha256: str) -> Iterator[tuple[Part, int]]:
        """Yield the photos whose SHA-256 begins like this one, the last first: part, and row of its live ones."""
        prefix = np.uint64(int(sha256[:PREFIX], 16))
        first, last = (np.searchsorted(self._prefixes, prefix, side) for side in ("left", "right"))
        for row in self._rows[first:last][::-1].tolist():
            owner = int(np.searchsorted(self._starts, row, "right")) - 1
            yield self._parts[owner], row - int(self._starts[owner])


def _prefixes(hashes: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the first PREFIX hexadecimal digits of each SHA-256, as numbers."""
    return np.fromiter((int(each[:PREFIX], 16) for each in hashes.to_pylist()), np.uint64, len(hashes))


class _LoadedPart:
    """The live rows of one part, in memory."""

    def __init__(self, store: Store, part: Part) -> None:
        self._facts = {name: store.column(part, name) for name in FACTS}
        self._embeddings = store.part_embeddings(part)
        self._made_by = EngineInfo(part.engine, part.precision)

    def sha256(self, row: int) -> str:
        return str(self._facts["sha256"][row])

    def photo(self, row: int) -> Embedded:
        facts = {name: column[row] for name, column in self._facts.items()}
        file = PhotoFile(facts.pop("path"), facts.pop("bytes"), facts.pop("mtime_ns"))
        capture = Capture(*(facts.pop(name) for name in CAPTURE))
        embedding: NDArray[np.float32] = self._embeddings[row].astype(np.float32)
        return Embedded(file, **facts, capture=capture, embedding=embedding, made_by=self._made_by)
