"""Reuse embeddings of files with the same bytes: photos that were renamed, copied or touched."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
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


class KnownContent:
    """A records.ContentLookup over the photos of a store at the start of an update, and those embedded since.

    Only photos with the size of a file in `todo` are considered, so that with a folder of new photos hardly any
    file is hashed before it is decoded.
    """

    def __init__(self, store: Store, todo: Sequence[PhotoFile]) -> None:
        self._store = store
        sizes = Counter(file.bytes for file in todo)
        self._repeated_sizes = {size for size, count in sizes.items() if count > 1}
        self._rows: dict[str, tuple[Part, int]] = {}
        self._sizes: set[int] = set()
        for part in store.manifest.parts if sizes else ():
            columns = (store.column(part, name) for name in ("bytes", "sha256"))
            for row, (size, sha256) in enumerate(zip(*columns, strict=True)):
                if size in sizes:
                    self._rows[sha256] = (part, row)
                    self._sizes.add(size)
        self.may_know_all = self._sizes.issuperset(sizes)
        self._parts: OrderedDict[str, _LoadedPart] = OrderedDict()
        self._recent: OrderedDict[str, Embedded] = OrderedDict()
        self._lock = Lock()

    def may_know(self, file: PhotoFile) -> bool:
        """See ContentLookup."""
        return file.bytes in self._sizes or file.bytes in self._repeated_sizes

    def find(self, sha256: str) -> Embedded | None:
        """See ContentLookup."""
        with self._lock:
            if sha256 in self._recent:
                return self._recent[sha256]
            if sha256 not in self._rows:
                return None
            part, row = self._rows[sha256]
            return self._load(part).photo(row)

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


class _LoadedPart:
    """The live rows of one part, in memory."""

    def __init__(self, store: Store, part: Part) -> None:
        self._facts = {name: store.column(part, name) for name in FACTS}
        self._embeddings = store.part_embeddings(part)
        self._made_by = EngineInfo(part.engine, part.precision)

    def photo(self, row: int) -> Embedded:
        facts = {name: column[row] for name, column in self._facts.items()}
        file = PhotoFile(facts.pop("path"), facts.pop("bytes"), facts.pop("mtime_ns"))
        capture = Capture(*(facts.pop(name) for name in CAPTURE))
        embedding: NDArray[np.float32] = self._embeddings[row].astype(np.float32)
        return Embedded(file, **facts, capture=capture, embedding=embedding, made_by=self._made_by)
