"""Lists of the nearest rows of each row, made from products of blocks of unit vectors."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.errors import REPAIR, VectorsDamaged
from vggsearch.knn.edges import SIMILARITY_STEPS, round_similarities
from vggsearch.knn.keys import NO_KEY, ROW_MASK
from vggsearch.knn.vectors import SMALLEST_NORM, Vectors
from vggsearch.progress import Monitor

STEP = np.float32(1 / SIMILARITY_STEPS)

Item = TypeVar("Item")
Done = TypeVar("Done")
Candidates = tuple[NDArray[np.int64], NDArray[np.int64]]  # numbers of lists, ascending, and keys for them


class Rows:
    """The vectors as float32 of unit length, block by block."""

    def __init__(self, vectors: Vectors, without: NDArray[np.int64] | None) -> None:
        self._vectors = vectors
        self.excluded = mask_of(len(vectors), without)
        self._norms = np.empty((len(vectors), 1), np.float32)
        for start in range(0, len(vectors), PAIRS.block_rows):
            block = slice(start, start + PAIRS.block_rows)
            self._norms[block, 0] = np.linalg.norm(vectors[block].astype(np.float32), axis=1)
        if not np.isfinite(self._norms).all():
            raise damaged(int(np.argmin(np.isfinite(self._norms))))
        self._norms = np.maximum(self._norms, SMALLEST_NORM)

    def __len__(self) -> int:
        return len(self._vectors)

    def unit(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the unit vectors of rows, from the norms computed at the start."""
        unit = self._vectors[rows].astype(np.float32)
        unit /= self._norms[rows]
        return unit

    def only(self, rows: NDArray[np.int64]) -> "Rows":
        """Return a copy of some of the rows, with the norms that they have here."""
        chosen = copy(self)
        chosen._vectors, chosen.excluded, chosen._norms = (
            self._vectors[rows],
            self.excluded[rows],
            self._norms[rows],
        )
        return chosen

    def products(self, ones: slice | NDArray[np.int64], others: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosine similarities of two sets of rows, float32; -inf for excluded rows."""
        products: NDArray[np.float32] = self.unit(ones) @ self.unit(others).T
        products[self.excluded[ones]] = -np.inf
        products[:, self.excluded[others]] = -np.inf
        return products


class Nearest:
    """The lists of the nearest rows of each row found so far.

    An entry of a list is one int64, its key, see `vggsearch.knn.keys`. Lists are not sorted. Rows are visited in
    ascending order or, which takes longer where many are equally similar, `in_any_order`.
    """

    def __init__(self, rows: int, count: int, floor: float, *, in_any_order: bool = False) -> None:
        self.floor = floor
        self.keys = np.full((rows, count), NO_KEY)
        self._margin = np.float32(-0.5 if in_any_order else 0.5)  # steps
        # The smallest product of interest. Other threads read it while it rises: an old value only passes more.
        self.least = np.full(rows, np.float32(floor) - STEP)

    def start(self, lists: NDArray[np.int64], entries: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
        """Fill entries of empty lists. Rows that are inserted later may be lower ones, so equal ones pass, too."""
        self.keys[lists, entries] = keys
        last = self.keys.min(axis=1)
        full = last != NO_KEY
        self.least[full] = np.maximum(self.least[full], (last[full] >> 32).astype(np.float32) * STEP - STEP)

    def candidates_of_rows(
        self, products: NDArray[np.float32], ones: NDArray[np.int64], others: NDArray[np.int64]
    ) -> Candidates:
        """Return the candidates of the lists `ones` among the rows `others`; `products` (ones, others)."""
        positions = np.flatnonzero(products >= self.least[ones][:, None])
        rows, columns = np.divmod(positions, products.shape[1])
        return self._candidates(products.ravel()[positions], ones[rows], others[columns])

    def candidates_of_columns(
        self, products: NDArray[np.float32], ones: NDArray[np.int64], others: NDArray[np.int64]
    ) -> Candidates:
        """Return the candidates of the lists `others` among the rows `ones`, from the same products."""
        positions = np.flatnonzero(products >= self.least[others])
        rows, columns = np.divmod(positions, products.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # a radix sort
        return self._candidates(products.ravel()[positions[order]], others[columns[order]], ones[rows[order]])

    def _candidates(
        self, products: NDArray[np.float32], lists: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Candidates:
        similarity = round_similarities(products)
        keys = (similarity * SIMILARITY_STEPS).astype(np.int64) << 32 | ROW_MASK - rows
        enough = similarity >= self.floor
        return lists[enough], keys[enough]

    def insert(self, candidates: Candidates) -> None:
        """Insert candidates into their lists."""
        lists, keys = candidates
        starts = np.flatnonzero(np.diff(lists, prepend=-1))
        if not len(starts):
            return
        rows, counts, width = lists[starts], np.diff(starts, append=len(lists)), self.keys.shape[1]
        merged = np.full((len(rows), width + counts.max()), NO_KEY)
        merged[:, :width] = self.keys[rows]
        within = np.arange(len(keys)) - np.repeat(starts, counts)
        merged[np.repeat(np.arange(len(rows)), counts), width + within] = keys
        best = np.partition(merged, -width, axis=1)[:, -width:]
        self.keys[rows] = best
        self._raise_least(rows, best.min(axis=1))

    def _raise_least(self, rows: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        """Raise the threshold of rows with a full list to just above their last similarity.

        In ascending order, an equal similarity is that of a higher row, which is not nearer. In any other order, it
        may be that of a lower row, so the threshold is just below.
        """
        full = last != NO_KEY
        nearer = ((last[full] >> 32) + self._margin).astype(np.float32) * STEP
        self.least[rows[full]] = np.maximum(self.least[rows[full]], nearer)


def damaged(row: int) -> VectorsDamaged:
    """Return the error for a row whose vector is not finite."""
    return VectorsDamaged(f"The vector of row {row} contains infinity or NaN. Repair the index: ", REPAIR)


def mask_of(rows: int, without: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Return the mask, bool (rows,), of the rows in `without`, int64; None for none of them."""
    mask = np.zeros(rows, bool)
    if without is not None:
        mask[without] = True
    return mask


def in_order(work: Callable[[Item], Done], items: Sequence[Item], monitor: Monitor) -> Iterator[Done]:
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


def pairs_in(
    keys: NDArray[np.int64], floor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the entries of lists of at least `floor` similarity: list and row, int64, and similarity, float32."""
    similarity = (keys >> 32).astype(np.float32) * STEP
    lists, entries = np.nonzero((keys != NO_KEY) & (similarity >= floor))
    return lists, ROW_MASK - (keys[lists, entries] & ROW_MASK), similarity[lists, entries]
