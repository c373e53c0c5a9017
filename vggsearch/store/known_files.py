"""The files that an index knows, as arrays: an update compares millions of them with the photo folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vggsearch.photos.walk import Stamp
from vggsearch.store.arrow import numbers, positions, texts
from vggsearch.store.paths import Paths
from vggsearch.store.row_finder import RowFinder
from vggsearch.store.stamps import stamp_batches
from vggsearch.store.store import Store

NO_INODE = -1  # of a photo without a recorded stamp
NO_STAMP = Stamp(0, NO_INODE)


@dataclass(frozen=True, eq=False)
class KnownFiles:
    """The live photos of an index by row: their paths, sizes, modification times and recorded stamps.

    The arrays are int64 (n,); `inode` is NO_INODE where no stamp is recorded. `others` are the recorded stamps of
    other files, by path, and `recorded` is the number of all recorded stamps.
    """

    _finder: RowFinder
    bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    ctime_ns: NDArray[np.int64]
    inode: NDArray[np.int64]
    others: Mapping[str, Stamp]
    recorded: int

    @classmethod
    def of(
        cls,
        paths: pa.ChunkedArray,
        sizes: NDArray[np.int64],
        times: NDArray[np.int64],
        stamps: Iterable[pa.RecordBatch],
    ) -> "KnownFiles":
        """Return photos by row, with the stamps that are recorded of them: batches of stamps.STAMP_SCHEMA."""
        ctime_ns, inode = np.zeros(len(paths), np.int64), np.full(len(paths), NO_INODE, np.int64)
        finder, others = RowFinder(paths), dict[str, Stamp]()
        for batch in stamps:
            rows = finder.find(batch.column("path"))
            is_photo = rows >= 0
            ctime_ns[rows[is_photo]] = numbers(batch.column("ctime_ns"))[is_photo]
            inode[rows[is_photo]] = numbers(batch.column("inode"))[is_photo]
            if not is_photo.all():
                rest = batch.take(positions(np.flatnonzero(~is_photo))).to_pydict()
                others |= zip(rest["path"], map(Stamp, rest["ctime_ns"], rest["inode"]), strict=True)
        recorded = int((inode != NO_INODE).sum()) + len(others)
        return cls(finder, sizes, times, ctime_ns, inode, others, recorded)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.bytes)

    def find(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each path, -1 if there is none: int64 (n,)."""
        return self._finder.find(texts(paths))

    def rows_among(self, paths: Iterable[str]) -> dict[str, int]:
        """Return the row of each of the paths that is the path of a photo."""
        return Paths([self._finder.paths]).rows_among(paths)

    def paths_unseen(self, is_seen: NDArray[np.bool_]) -> list[str]:
        """Return the paths of the rows that were not seen.

        In a damaged index a path may be in two rows, of which only one is found: it was seen, too.
        """
        if is_seen.all():
            return []
        paths = self._finder.paths
        unseen = paths.filter(pa.array(~is_seen))
        is_twice = pc.and_(pc.is_in(paths, value_set=unseen), pa.array(is_seen))
        seen = set(paths.filter(is_twice).to_pylist())
        return [path for path in dict.fromkeys(unseen.to_pylist()) if path not in seen]

    def are_same(self, rows: NDArray[np.int64], sizes: Sequence[int], times: Sequence[int]) -> NDArray[np.bool_]:
        """Return which files, by their rows, -1 for none, have the size and modification time of their photo."""
        are = rows >= 0
        known = rows[are]
        has_size = self.bytes[known] == _integers(sizes)[are]
        are[are] = has_size & (self.mtime_ns[known] == _integers(times)[are])
        return are

    def have_stamps(self, rows: NDArray[np.int64], stamps: Sequence[Stamp | None]) -> NDArray[np.bool_]:
        """Return which files, by their rows, -1 for none, have the recorded stamp; if none is, which have none."""
        are = rows >= 0
        known = rows[are]
        ctime_ns, inode = (_integers(each) for each in zip(*(stamp or NO_STAMP for stamp in stamps), strict=True))
        are[are] = (self.inode[known] == inode[are]) & (self.ctime_ns[known] == ctime_ns[are])
        return are

    def are_same_versions(
        self, rows: NDArray[np.int64], sizes: Sequence[int], stamps: Sequence[Stamp | None], are: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Return which files have the size and the recorded stamp of their photo; `are` where one has no stamp."""
        is_told = (rows >= 0) & np.fromiter((stamp is not None for stamp in stamps), bool, len(stamps))
        is_told[is_told] = self.inode[rows[is_told]] != NO_INODE
        told = rows[is_told]
        found = are.copy()
        found[is_told] = (self.bytes[told] == _integers(sizes)[is_told]) & self.have_stamps(rows, stamps)[is_told]
        return found

    def count_stamps(self, rows: NDArray[np.int64]) -> int:
        """Return of how many rows a stamp is recorded."""
        return int((self.inode[rows] != NO_INODE).sum())

    def stamp(self, row: int, path: str) -> Stamp | None:
        """Return the recorded stamp of a file, of which `row` is the row, -1 if it is no photo."""
        if row < 0:
            return self.others.get(path)
        inode = int(self.inode[row])
        return Stamp(int(self.ctime_ns[row]), inode) if inode != NO_INODE else None


def known_files(store: Store) -> KnownFiles:
    """Return the files that an index knows: its parts and its stamps. Raises IndexDamaged for a damaged part."""
    sizes, times = (np.empty(len(store), np.int64) for _ in range(2))
    chunks: list[pa.Array] = []
    start = 0
    for part in store.manifest.parts:
        table = store.live_columns(part, ("path", "bytes", "mtime_ns"))
        rows = slice(start, start := start + len(table))
        sizes[rows], times[rows] = numbers(table.column("bytes")), numbers(table.column("mtime_ns"))
        chunks += table.column("path").chunks
    return KnownFiles.of(pa.chunked_array(chunks, pa.string()), sizes, times, stamp_batches(store.directory))


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64, len(values))
