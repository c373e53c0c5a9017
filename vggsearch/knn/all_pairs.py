"""All-pairs k-NN: for every row the rows most like it, exact, by blocks, each product used for both its sides."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.errors import OptionError, VectorsDamaged
from vggsearch.knn.edges import SCALE, Edges, check_rows, edges_of, rounded
from vggsearch.knn.vectors import SMALLEST_NORM

NONE = -(1 << 62)  # the key of a place that is still free
LAST = 2**32 - 1
STEP = np.float32(1 / SCALE)

Progress = Callable[[int, int], None]
Stop = Callable[[], bool]
Item = TypeVar("Item")
Done = TypeVar("Done")
Columns = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]  # first, second, similarity
Found = tuple[NDArray[np.int64], NDArray[np.int64]]  # places in a block, ascending, and the keys found for them


def all_pairs(
    vectors: NDArray[np.float16],
    count: int = PAIRS.count,
    floor: float = PAIRS.floor,
    without: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Edges | None:
    """Return all pairs that are among the `count` nearest of at least one of their two rows, and not below `floor`.

    `vectors` is float16 (n, dim), mapped or in memory; the cosine of two rows is their similarity, rounded to
    2**-20. Of equal similarities, that with the lower row is the nearer, so that the answer does not depend on the
    blocks. The rows in `without`, int64, are in no pair. Memory is a few blocks, the lists (8 * count bytes a row)
    and the answer.

    `progress` is told how many of how many products of two blocks are done. Returns None where `stop` says so,
    which is asked before each. Raises OptionError for a count below 1 or a floor that is no similarity, and
    VectorsDamaged for vectors that are not finite.
    """
    _check(vectors, count, floor)
    rows = _Rows(vectors, without)
    nearest = _Nearest(len(vectors), count, floor)
    starts = range(0, len(vectors), PAIRS.block_rows)
    tiles = [
        (slice(a, a + PAIRS.block_rows), slice(b, b + PAIRS.block_rows)) for a in starts for b in starts if b >= a
    ]
    _seed(rows, nearest, count)

    def compare(tile: tuple[slice, slice]) -> list[tuple[slice, Found]]:
        some, others = tile
        products = rows.products(some, others)
        if some == others:
            np.fill_diagonal(products, -np.inf)
            return [(some, nearest.passing(products, some, others))]
        return [
            (some, nearest.passing(products, some, others)),
            (others, nearest.passing_down(products, some, others)),
        ]

    for done, found in enumerate(_in_order(compare, tiles, stop), start=1):
        if found is None:
            return None
        for block, some in found:
            nearest.take(block, some)
        if progress is not None:
            progress(done, len(tiles))
    return nearest.edges()


def complete(
    vectors: NDArray[np.float16],
    edges: Edges,
    without: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Edges | None:
    """Return the edges with all pairs that are not below their floor: those that saturated rows lacked are added.

    `vectors` and `without` are those that the edges were made of; `progress` and `stop` are those of `all_pairs`.
    Raises OptionError where that would be more than PAIRS.most pairs, and VectorsDamaged.
    """
    _check(vectors, 1, edges.floor)
    rows, saturated = _Rows(vectors, without), edges.saturated
    blocks = [saturated[at : at + PAIRS.block_rows] for at in range(0, len(saturated), PAIRS.block_rows)]
    starts = range(0, len(vectors), PAIRS.block_rows)
    tiles = [(some, slice(start, start + PAIRS.block_rows)) for some in blocks for start in starts]
    found = [(edges.first, edges.second, edges.similarity)]

    def compare(tile: tuple[NDArray[np.int64], slice]) -> Columns:
        some, others = tile
        products = rows.products(some, others)
        places = np.flatnonzero(products >= np.float32(edges.floor) - STEP)
        similarity = rounded(products.ravel()[places])
        one, other = np.divmod(places, products.shape[1])
        one, other = some[one], other + others.start
        chosen = (similarity >= edges.floor) & (one != other)
        # Where both rows are saturated the pair comes twice, once from each.
        chosen &= (one < other) | ~np.isin(other, saturated)
        return one[chosen].astype(np.int32), other[chosen].astype(np.int32), similarity[chosen]

    total = 0
    for done, columns in enumerate(_in_order(compare, tiles, stop), start=1):
        if columns is None:
            return None
        found.append(columns)
        total += len(columns[0])
        if total > PAIRS.most:
            raise OptionError(
                f"More than {PAIRS.most:,} pairs of photos have a similarity of {edges.floor} or more. Ask for a "
                "higher similarity."
            )
        if progress is not None:
            progress(done, len(tiles))
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return edges_of(edges.rows, None, edges.floor, first, second, similarity)


class _Rows:
    """The vectors as float32 of unit length, block by block."""

    def __init__(self, vectors: NDArray[np.float16], without: NDArray[np.int64] | None) -> None:
        self._vectors = vectors
        self._without = np.zeros(len(vectors), bool)
        if without is not None:
            self._without[without] = True
        self._norms = np.empty((len(vectors), 1), np.float32)
        for start in range(0, len(vectors), PAIRS.block_rows):
            block = slice(start, start + PAIRS.block_rows)
            self._norms[block, 0] = np.linalg.norm(vectors[block].astype(np.float32), axis=1)
        if not np.isfinite(self._norms).all():
            row = int(np.argmin(np.isfinite(self._norms)))
            raise VectorsDamaged(
                f"The vector of row {row} holds what is not a number. Mend the index: vggsearch verify --repair"
            )
        self._norms = np.maximum(self._norms, SMALLEST_NORM)

    def __len__(self) -> int:
        return len(self._vectors)

    def unit(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows as index.vectors.unit_rows does, without measuring them again."""
        unit = self._vectors[rows].astype(np.float32)
        unit /= self._norms[rows]
        return unit

    def products(self, some: slice | NDArray[np.int64], others: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of some rows with others, float32; -inf for rows that are in no pair."""
        products: NDArray[np.float32] = self.unit(some) @ self.unit(others).T
        products[self._without[some]] = -np.inf
        products[:, self._without[others]] = -np.inf
        return products


class _Nearest:
    """The nearest rows of each row so far.

    A place in a list is one int64, its key: the similarity in steps, then the row, counted down. A larger key is
    nearer, no two in a list are equal, and the lists are kept without order.
    """

    def __init__(self, rows: int, count: int, floor: float) -> None:
        self._count, self._floor = count, floor
        self._keys = np.full((rows, min(count, max(rows - 1, 1))), NONE)
        # What a product must reach to be looked at. Read while it rises: an old value only lets more through.
        self.least = np.full(rows, np.float32(floor) - STEP)

    def passing(self, products: NDArray[np.float32], some: slice, others: slice) -> Found:
        """Return what each row of `some` finds among the rows of `others`: `products` is of all of both."""
        places = np.flatnonzero(products >= self.least[some, None])
        return self._found(products.ravel()[places], *np.divmod(places, products.shape[1]), others)

    def passing_down(self, products: NDArray[np.float32], some: slice, others: slice) -> Found:
        """Return what each row of `others` finds among the rows of `some`, from the same products."""
        places = np.flatnonzero(products >= self.least[others])
        rows, columns = np.divmod(places, products.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # a radix sort
        return self._found(products.ravel()[places[order]], columns[order], rows[order], some)

    def _found(
        self, products: NDArray[np.float32], places: NDArray[np.int64], others: NDArray[np.int64], block: slice
    ) -> Found:
        similarity = rounded(products)
        keys = (similarity * SCALE).astype(np.int64) << 32 | LAST - (others + block.start)
        enough = similarity >= self._floor
        return places[enough], keys[enough]

    def take(self, block: slice, found: Found) -> None:
        """Put what the rows of a block found into their lists."""
        places, keys = found
        if not len(places):
            return
        counts = np.bincount(places)
        touched = np.flatnonzero(counts)
        counts = counts[touched]
        rows, width = touched + block.start, self._keys.shape[1]
        offers = np.full((len(touched), width + counts.max()), NONE)
        offers[:, :width] = self._keys[rows]
        within = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        offers[np.repeat(np.arange(len(touched)), counts), width + within] = keys
        best = np.partition(offers, -width, axis=1)[:, -width:]
        self._keys[rows] = best
        self._raise_least(rows, best.min(axis=1))

    def _raise_least(self, rows: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        """Look from now on only at what is nearer than the last of a full list.

        Rows come in ascending order, so that an equal similarity is that of a higher row and further off.
        """
        full = last != NONE
        nearer = ((last[full] >> 32) + np.float32(0.5)).astype(np.float32) * STEP
        self.least[rows[full]] = np.maximum(self.least[rows[full]], nearer)

    def edges(self) -> Edges:
        """Return the pairs of all lists."""
        rows, places = np.nonzero(self._keys != NONE)
        keys = self._keys[rows, places]
        similarity = (keys >> 32).astype(np.float32) * STEP
        return edges_of(len(self._keys), self._count, self._floor, rows, LAST - (keys & LAST), similarity)


def _seed(rows: _Rows, nearest: _Nearest, count: int) -> None:
    """Let every row start from its `count` nearest of a sample, which its nearest of all cannot be further than.

    So only a few of the first products are looked at; without it, all are. The row itself may be in the sample.
    """
    if len(rows) < PAIRS.sample * 8 or count + 1 > PAIRS.sample:
        return
    sample = np.linspace(0, len(rows) - 1, PAIRS.sample).astype(np.int64)
    for start in range(0, len(rows), PAIRS.block_rows):
        block = slice(start, start + PAIRS.block_rows)
        products = rows.products(block, sample)
        found = np.partition(products, -count - 1, axis=1)[:, -count - 1]
        nearest.least[block] = np.maximum(nearest.least[block], found - STEP)


def _in_order(work: Callable[[Item], Done], items: Sequence[Item], stop: Stop | None) -> Iterator[Done | None]:
    """Yield the work of each item in order, a little of it done ahead; None where it is to stop."""
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(PAIRS.threads) as pool:
        for item in items:
            if stop is not None and stop():
                pool.shutdown(cancel_futures=True)
                yield None
                return
            waiting.append(pool.submit(work, item))
            if len(waiting) > PAIRS.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _check(vectors: NDArray[np.float16], count: int, floor: float) -> None:
    check_rows(len(vectors))
    if count < 1:
        raise OptionError(f"{count} neighbours of each photo make no pairs: ask for 1 or more.")
    if not -1 <= floor <= 1:
        raise OptionError(f"{floor} is no similarity: name one from -1 to 1.")
