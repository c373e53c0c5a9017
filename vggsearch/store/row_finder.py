"""Find the rows of many paths at once, without a Python string for each path of an index."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class RowFinder:
    """The rows of paths, which it holds once, as Arrow text.

    Paths are mostly looked up in row order, since a walk finds photos in the order in which it found them first. So
    a path is compared with the one after the last one found. Hashes, 12 bytes a path, are made only if that fails.
    """

    def __init__(self, paths: pa.ChunkedArray) -> None:
        self.paths = paths
        self._next = 0
        self._hashed: _HashedPaths | None = None

    def find(self, paths: pa.Array) -> NDArray[np.int64]:
        """Return the row of each path, -1 if there is none: int64 (n,). Of two equal paths, either is found."""
        rows = np.full(len(paths), -1, np.int64)
        count = self._following(paths)
        rows[:count] = np.arange(self._next, self._next + count)
        if count < len(paths):
            if self._hashed is None:
                self._hashed = _HashedPaths(self.paths)
            rows[count:] = self._hashed.find(paths.slice(count))
        found = rows[rows >= 0]
        if len(found):
            self._next = int(found[-1] + 1) % len(self.paths)
        return rows

    def _following(self, paths: pa.Array) -> int:
        """Return how many of the paths, from the first on, are those of the next rows."""
        expected = self.paths.slice(self._next, len(paths))
        different = pc.index(pc.equal(expected, paths.slice(0, len(expected))), False).as_py()
        return len(expected) if different < 0 else int(different)


class _HashedPaths:
    """Rows by the hash of their path, ascending. A row whose hash is also that of another is found by its path."""

    def __init__(self, paths: pa.ChunkedArray) -> None:
        hashes = np.concatenate([np.empty(0, np.int64), *(hashes_of(chunk.to_pylist()) for chunk in paths.chunks)])
        rows = np.argsort(hashes).astype(np.int32 if len(paths) < 2**31 else np.int64)
        hashes.sort()
        repeats = hashes[1:] == hashes[:-1]
        is_shared = np.zeros(len(hashes), bool)
        is_shared[1:] |= repeats
        is_shared[:-1] |= repeats
        self._shared = {paths[row].as_py(): row for row in np.sort(rows[is_shared]).tolist()}
        alone = ~is_shared if self._shared else slice(None)
        self._hashes, self._rows = hashes[alone], rows[alone]
        self._paths = paths.cast(pa.large_string()).combine_chunks()  # from many chunks, taking rows is slow

    def find(self, paths: pa.Array) -> NDArray[np.int64]:
        texts = paths.to_pylist()
        rows = self._with_hashes(hashes_of(texts))
        places = np.flatnonzero(rows >= 0)
        is_right = pc.equal(self._paths.take(rows[places]), paths.take(places).cast(pa.large_string()))
        rows[places[~is_right.to_numpy(zero_copy_only=False)]] = -1
        for place in np.flatnonzero(rows < 0).tolist() if self._shared else ():
            rows[place] = self._shared.get(texts[place], -1)
        return rows

    def _with_hashes(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row with each hash, -1 if there is none."""
        rows = np.full(len(wanted), -1, np.int64)
        if len(self._hashes):
            order = np.argsort(wanted)  # looked up in ascending order, neighbours share the cache
            at = np.minimum(np.searchsorted(self._hashes, wanted[order]), len(self._hashes) - 1)
            rows[order] = np.where(self._hashes[at] == wanted[order], self._rows[at], -1)
        return rows


def hashes_of(paths: list[str]) -> NDArray[np.int64]:
    """Return Python's hash of each path: int64 (n,). It differs between processes."""
    return np.fromiter(map(hash, paths), np.int64, len(paths))
