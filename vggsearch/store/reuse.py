"""Embeddings that need not be made again, found by the bytes in a file: renamed, copied and touched photos."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.manifest import Part
from vggsearch.store.records import Embedded, MadeBy
from vggsearch.store.store import Store

FACTS = ("path", "bytes", "mtime_ns", "sha256", "width", "height", "format", "taken", "is_blank")
PARTS_HELD = 2  # in memory at once; files that moved together mostly lie in one part


class KnownContent:
    """See extract.Known: the photos of a store as it was at the start of an update, and those the update made.

    Only what has the size of a file still to come is looked at, so that in a folder of new photos hardly
    anything is read or hashed first.
    """

    def __init__(self, store: Store, todo: Sequence[PhotoFile]) -> None:
        self._store = store
        sizes = Counter(file.bytes for file in todo)
        self._twice = {size for size, count in sizes.items() if count > 1}
        self._rows: dict[str, tuple[Part, int]] = {}
        self._sizes: set[int] = set()
        for part in store.manifest.parts:
            columns = (store.column(part, name) for name in ("bytes", "sha256"))
            for row, (size, sha256) in enumerate(zip(*columns, strict=True)):
                if size in sizes:
                    self._rows[sha256] = (part, row)
                    self._sizes.add(size)
        self.may_suffice = self._sizes.issuperset(sizes)
        self._parts: OrderedDict[str, _LoadedPart] = OrderedDict()
        self._made: OrderedDict[str, Embedded] = OrderedDict()
        self._lock = Lock()

    def may_hold(self, file: PhotoFile) -> bool:
        """See extract.Known."""
        return file.bytes in self._sizes or file.bytes in self._twice

    def find(self, sha256: str) -> Embedded | None:
        """See extract.Known."""
        with self._lock:
            if sha256 in self._made:
                return self._made[sha256]
            if sha256 not in self._rows:
                return None
            part, row = self._rows[sha256]
            return self._load(part).photo(row)

    def remember(self, photo: Embedded) -> None:
        """Keep what the update made, where another file has its size; the oldest are forgotten."""
        if photo.file.bytes in self._twice:
            with self._lock:
                self._made[photo.sha256] = photo
                if len(self._made) > EXTRACT.copies_remembered:
                    self._made.popitem(last=False)

    def _load(self, part: Part) -> "_LoadedPart":
        if part.name not in self._parts:
            self._parts[part.name] = _LoadedPart(self._store, part)
            if len(self._parts) > PARTS_HELD:
                self._parts.popitem(last=False)
        self._parts.move_to_end(part.name)
        return self._parts[part.name]


class _LoadedPart:
    """One part in memory, live rows only."""

    def __init__(self, store: Store, part: Part) -> None:
        self._facts = {name: store.column(part, name) for name in FACTS}
        self._embeddings = store.part_embeddings(part)
        self._made_by = MadeBy(part.engine, part.precision)

    def photo(self, row: int) -> Embedded:
        facts = {name: column[row] for name, column in self._facts.items()}
        file = PhotoFile(facts.pop("path"), facts.pop("bytes"), facts.pop("mtime_ns"))
        embedding: NDArray[np.float32] = self._embeddings[row].astype(np.float32)
        return Embedded(file, **facts, embedding=embedding, made_by=self._made_by)
