"""Find the rows of many paths at once, without a Python string for each path of an index."""

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vggsearch.store.arrow import numbers

MOST_JUMPS = 16  # of the paths that are looked up at once; with more, all are looked up by hash


class RowFinder:
    """The rows of paths, which it holds once, as Arrow text.

    Paths are mostly looked up in row order, since a walk finds photos in the order in which it found them first. So
    a path is compared with the one after the last one found. Hashes, 12 bytes a path, are made only if that fails.
    Then a path is looked up by hash and the next ones follow it again, as in folders that are in another order.
    """

    def __init__(self, paths: pa.ChunkedArray) -> None:
        self.paths = paths
        self._next = 0

    def find(self, paths: pa.Array) -> NDArray[np.int64]:
        """Return the row of each path, -1 if there is none: int64 (n,). Of two equal paths, either is found."""
        rows, done = np.full(len(paths), -1, np.int64), 0
        for _ in range(MOST_JUMPS):
            count = self._following(paths.slice(done))
            rows[done : done + count] = np.arange(self._next, self._next + count)
            done += count
            self._go_on_after(rows[:done])
            if done == len(paths):
                return rows
            rows[done] = self._hashed.find_one(paths[done].as_py())
            done += 1
            self._go_on_after(rows[:done])
        rows[done:] = self._hashed.find(paths.slice(done))
        self._go_on_after(rows)
        return rows

    @cached_property
    def _hashed(self) -> "_HashedPaths":
        return _HashedPaths(self.paths)

    def _go_on_after(self, rows: NDArray[np.int64]) -> None:
        """Expect the row after the last one of these that was found."""
        found = np.flatnonzero(rows >= 0)
        if len(found):
            self._next = int(rows[found[-1]] + 1) % len(self.paths)

    def _following(self, paths: pa.Array) -> int:
        """Return how many of the paths, from the first on, are those of the next rows."""
        expected = self.paths.slice(self._next, len(paths))
        are_equal = numbers(pc.equal(expected, paths.slice(0, len(expected))))
        return len(expected) if are_equal.all() else int(are_equal.argmin())


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
        self._chunks = paths

    @cached_property
    def _paths(self) -> pa.Array:
        """All paths in one piece: from many chunks, taking rows is slow."""
        return self._chunks.cast(pa.large_string()).combine_chunks()

    def find_one(self, path: str) -> int:
        """Return the row of one path, -1 if there is none."""
        row = int(self._with_hashes(hashes_of([path]))[0])
        is_right = row >= 0 and self._chunks[row].as_py() == path
        return row if is_right else self._shared.get(path, -1)

    def find(self, paths: pa.Array) -> NDArray[np.int64]:
        texts = paths.to_pylist()
        rows = self._with_hashes(hashes_of(texts))
        places = np.flatnonzero(rows >= 0)
        if len(places):
            is_right = pc.equal(self._paths.take(rows[places]), paths.take(places).cast(pa.large_string()))
            rows[places[~numbers(is_right)]] = -1
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
