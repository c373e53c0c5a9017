"""Exact k-nearest-neighbour graph of all rows, computed block by block, on a GPU if that is faster.

On the CPU, each product serves both of its rows.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.errors import REPAIR, OptionError, VectorsDamaged
from vggsearch.knn.edges import SIMILARITY_STEPS, Edges, check_rows, edges_from_pairs, round_similarities
from vggsearch.knn.gpu import scan_on_gpu, warn_of_torch
from vggsearch.knn.keys import NO_KEY, ROW_MASK
from vggsearch.knn.vectors import SMALLEST_NORM, Vectors
from vggsearch.progress import SILENT, Monitor

STEP = np.float32(1 / SIMILARITY_STEPS)

Item = TypeVar("Item")
Done = TypeVar("Done")
Columns = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]  # first, second, similarity
Candidates = tuple[NDArray[np.int64], NDArray[np.int64]]  # positions of rows in a block, ascending, and their keys


def all_pairs(
    vectors: Vectors,
    count: int = PAIRS.count,
    floor: float = PAIRS.floor,
    without: NDArray[np.int64] | None = None,
    monitor: Monitor = SILENT,
) -> Edges:
    """Return all pairs with a similarity of at least `floor` in which one row is among the other's `count` nearest.

    `vectors` is float16 (n, dim), memory-mapped or in memory. Similarity is the cosine, rounded to 2**-20. Of
    equally similar rows the lower one counts as nearer, so the result does not depend on the blocks. Rows in
    `without`, int64, are in no pair. In memory are a few blocks, the lists of neighbours (8 * count bytes per row)
    and the result.

    Raises OptionError for a count below 1 or a floor outside -1..1, VectorsDamaged for vectors that are not
    finite, and Stopped, which is checked before each product of two blocks.
    """
    _check(vectors, count, floor)
    edges = _edges_from_gpu(vectors, count, floor, without, monitor)
    if edges is not None:
        return edges
    rows = _Rows(vectors, without)
    nearest = _Nearest(len(vectors), count, floor)
    starts = range(0, len(vectors), PAIRS.block_rows)
    tiles = [
        (slice(a, a + PAIRS.block_rows), slice(b, b + PAIRS.block_rows)) for a in starts for b in starts if b >= a
    ]
    _seed(rows, nearest, count)

    def compare_tile(tile: tuple[slice, slice]) -> list[tuple[slice, Candidates]]:
        ones, others = tile
        products = rows.products(ones, others)
        if ones == others:
            np.fill_diagonal(products, -np.inf)
            return [(ones, nearest.candidates_of_rows(products, ones, others))]
        return [
            (ones, nearest.candidates_of_rows(products, ones, others)),
            (others, nearest.candidates_of_columns(products, ones, others)),
        ]

    pairs = len(vectors) * (len(vectors) - 1) // 2
    for done, found in enumerate(_in_order(compare_tile, tiles, monitor), start=1):
        for block, candidates in found:
            nearest.insert(block, candidates)
        monitor.show("comparing embeddings", done * pairs // len(tiles), pairs, "pairs")
    return _edges_of(nearest.keys, count, floor)


def complete(
    vectors: Vectors,
    edges: Edges,
    without: NDArray[np.int64] | None = None,
    monitor: Monitor = SILENT,
) -> Edges:
    """Return the edges with all pairs down to their floor, adding those that saturated rows lacked.

    `vectors` and `without` are those that the edges were computed from. Raises OptionError if that would be more
    than PAIRS.most pairs, VectorsDamaged, and Stopped.
    """
    _check(vectors, 1, edges.floor)
    rows, saturated = _Rows(vectors, without), edges.saturated
    blocks = [saturated[at : at + PAIRS.block_rows] for at in range(0, len(saturated), PAIRS.block_rows)]
    starts = range(0, len(vectors), PAIRS.block_rows)
    tiles = [(block, slice(start, start + PAIRS.block_rows)) for block in blocks for start in starts]
    found = [(edges.first, edges.second, edges.similarity)]

    def compare_tile(tile: tuple[NDArray[np.int64], slice]) -> Columns:
        ones, others = tile
        products = rows.products(ones, others)
        positions = np.flatnonzero(products >= np.float32(edges.floor) - STEP)
        similarity = round_similarities(products.ravel()[positions])
        one, other = np.divmod(positions, products.shape[1])
        one, other = ones[one], other + others.start
        chosen = (similarity >= edges.floor) & (one != other)
        # A pair of two saturated rows is found twice, once from each.
        chosen &= (one < other) | ~np.isin(other, saturated)
        return one[chosen].astype(np.int32), other[chosen].astype(np.int32), similarity[chosen]

    total, pairs = 0, len(saturated) * len(vectors)
    for done, columns in enumerate(_in_order(compare_tile, tiles, monitor), start=1):
        found.append(columns)
        total += len(columns[0])
        if total > PAIRS.most:
            raise OptionError(
                f"More than {PAIRS.most:,} pairs of photos have a similarity of at least {edges.floor}. "
                "Pass a higher similarity."
            )
        monitor.show("comparing embeddings of many copies", done * pairs // len(tiles), pairs, "pairs")
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return edges_from_pairs(edges.rows, None, edges.floor, first, second, similarity)


class _Rows:
    """The vectors as float32 of unit length, block by block."""

    def __init__(self, vectors: Vectors, without: NDArray[np.int64] | None) -> None:
        self._vectors = vectors
        self._without = _mask(len(vectors), without)
        self._norms = np.empty((len(vectors), 1), np.float32)
        for start in range(0, len(vectors), PAIRS.block_rows):
            block = slice(start, start + PAIRS.block_rows)
            self._norms[block, 0] = np.linalg.norm(vectors[block].astype(np.float32), axis=1)
        if not np.isfinite(self._norms).all():
            raise _damaged(int(np.argmin(np.isfinite(self._norms))))
        self._norms = np.maximum(self._norms, SMALLEST_NORM)

    def __len__(self) -> int:
        return len(self._vectors)

    def unit(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the unit vectors of rows, from the norms computed at the start."""
        unit = self._vectors[rows].astype(np.float32)
        unit /= self._norms[rows]
        return unit

    def products(self, ones: slice | NDArray[np.int64], others: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosine similarities of two sets of rows, float32; -inf for excluded rows."""
        products: NDArray[np.float32] = self.unit(ones) @ self.unit(others).T
        products[self._without[ones]] = -np.inf
        products[:, self._without[others]] = -np.inf
        return products


class _Nearest:
    """The lists of the nearest rows of each row found so far.

    An entry of a list is one int64, its key, see `vggsearch.knn.keys`. Lists are not sorted.
    """

    def __init__(self, rows: int, count: int, floor: float) -> None:
        self._count, self._floor = count, floor
        self.keys = np.full((rows, min(count, max(rows - 1, 1))), NO_KEY)
        # The smallest product of interest. Other threads read it while it rises: an old value only passes more.
        self.least = np.full(rows, np.float32(floor) - STEP)

    def candidates_of_rows(self, products: NDArray[np.float32], ones: slice, others: slice) -> Candidates:
        """Return the candidates of the rows `ones` among the rows `others`; `products` (ones, others)."""
        positions = np.flatnonzero(products >= self.least[ones, None])
        return self._candidates(products.ravel()[positions], *np.divmod(positions, products.shape[1]), others)

    def candidates_of_columns(self, products: NDArray[np.float32], ones: slice, others: slice) -> Candidates:
        """Return the candidates of the rows `others` among the rows `ones`, from the same products."""
        positions = np.flatnonzero(products >= self.least[others])
        rows, columns = np.divmod(positions, products.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # a radix sort
        return self._candidates(products.ravel()[positions[order]], columns[order], rows[order], ones)

    def _candidates(
        self, products: NDArray[np.float32], positions: NDArray[np.int64], others: NDArray[np.int64], block: slice
    ) -> Candidates:
        similarity = round_similarities(products)
        keys = (similarity * SIMILARITY_STEPS).astype(np.int64) << 32 | ROW_MASK - (others + block.start)
        enough = similarity >= self._floor
        return positions[enough], keys[enough]

    def insert(self, block: slice, candidates: Candidates) -> None:
        """Insert the candidates of the rows of a block into their lists."""
        positions, keys = candidates
        if not len(positions):
            return
        counts = np.bincount(positions)
        touched = np.flatnonzero(counts)
        counts = counts[touched]
        rows, width = touched + block.start, self.keys.shape[1]
        merged = np.full((len(touched), width + counts.max()), NO_KEY)
        merged[:, :width] = self.keys[rows]
        within = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        merged[np.repeat(np.arange(len(touched)), counts), width + within] = keys
        best = np.partition(merged, -width, axis=1)[:, -width:]
        self.keys[rows] = best
        self._raise_least(rows, best.min(axis=1))

    def _raise_least(self, rows: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        """Raise the threshold of rows with a full list to just above their last similarity.

        Rows are visited in ascending order, so an equal similarity is that of a higher row, which is not nearer.
        """
        full = last != NO_KEY
        nearer = ((last[full] >> 32) + np.float32(0.5)).astype(np.float32) * STEP
        self.least[rows[full]] = np.maximum(self.least[rows[full]], nearer)


def _edges_from_gpu(
    vectors: Vectors, count: int, floor: float, without: NDArray[np.int64] | None, monitor: Monitor
) -> Edges | None:
    """Return the edges from a GPU; None if none is worth starting, or if it fails."""
    try:
        scan = scan_on_gpu(vectors, len(vectors) ** 2 / 2)
        if scan is None:
            return None
        row = scan.non_finite()
        if row is not None:
            raise _damaged(row)
        count_each = min(count, max(len(vectors) - 1, 1))
        keys = scan.neighbours(count_each, floor, _mask(len(vectors), without), monitor)
        columns = scan.pairs(keys, floor)
    except RuntimeError as error:
        warn_of_torch(error)
        return None
    return _edges_of(keys, count, floor) if columns is None else Edges(len(vectors), count, floor, *columns)


def _edges_of(keys: NDArray[np.int64], count: int, floor: float) -> Edges:
    """Return the pairs with a similarity of at least `floor` in the lists of neighbours of all rows."""
    similarity = (keys >> 32).astype(np.float32) * STEP
    rows, entries = np.nonzero((keys != NO_KEY) & (similarity >= floor))
    others = ROW_MASK - (keys[rows, entries] & ROW_MASK)
    return edges_from_pairs(len(keys), count, floor, rows, others, similarity[rows, entries])


def _damaged(row: int) -> VectorsDamaged:
    return VectorsDamaged(f"The vector of row {row} contains infinity or NaN. Repair the index: ", REPAIR)


def _mask(rows: int, without: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    mask = np.zeros(rows, bool)
    if without is not None:
        mask[without] = True
    return mask


def _seed(rows: _Rows, nearest: _Nearest, count: int) -> None:
    """Start the threshold of every row at its `count`-th nearest in a sample, a lower bound of the final one.

    Without it, all of the first products would pass. The row itself may be in the sample.
    """
    if len(rows) < PAIRS.sample * 8 or count + 1 > PAIRS.sample:
        return
    sample = np.linspace(0, len(rows) - 1, PAIRS.sample).astype(np.int64)
    for start in range(0, len(rows), PAIRS.block_rows):
        block = slice(start, start + PAIRS.block_rows)
        products = rows.products(block, sample)
        bound = np.partition(products, -count - 1, axis=1)[:, -count - 1]
        nearest.least[block] = np.maximum(nearest.least[block], bound - STEP)


def _in_order(work: Callable[[Item], Done], items: Sequence[Item], monitor: Monitor) -> Iterator[Done]:
    """Yield the result for each item, in order; a few are computed ahead. Raises Stopped."""
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(PAIRS.threads) as pool:
        try:
            for item in items:
                monitor.check()
                waiting.append(pool.submit(work, item))
                if len(waiting) > PAIRS.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _check(vectors: Vectors, count: int, floor: float) -> None:
    check_rows(len(vectors))
    if count < 1:
        raise OptionError(f"The number of neighbours of each photo must be at least 1, not {count}.")
    if not -1 <= floor <= 1:
        raise OptionError(f"A similarity must be between -1 and 1, not {floor}.")
