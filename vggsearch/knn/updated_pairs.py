"""The pairs of similar rows after a few of them changed: only what is new is compared, with all others."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.knn.edges import SIMILARITY_STEPS, Columns, Edges, edges_from_pieces
from vggsearch.knn.keys import ROW_MASK
from vggsearch.knn.neighbours import Candidates, Nearest, Rows, in_order, pairs_in
from vggsearch.knn.vectors import Vectors
from vggsearch.progress import SILENT, Monitor

NUMBER_BITS = 63  # of an int64 that is not negative
STEP_BITS = SIMILARITY_STEPS.bit_length()


@dataclass(frozen=True)
class KeptRows:
    """The rows of an earlier state that are as they were.

    `now`, int64 (rows before,), is the present row of each, -1 for those that are gone or not compared; the others
    ascend, so that of equally similar rows the same one is nearer. `compared`, bool (rows now,), are the rows that
    are in pairs now.
    """

    now: NDArray[np.int64]
    compared: NDArray[np.bool_]

    @classmethod
    def matching(cls, before: NDArray[np.uint64], now: NDArray[np.uint64]) -> "KeptRows":
        """Return the kept rows of two states: numbers that identify their rows, uint64 (rows,), 0 if not compared.

        Rows that come before others that they followed, as after a rename, are not kept: they are new ones.
        """
        numbers, rows, times = np.unique(now, return_index=True, return_counts=True)
        is_one = (times == 1) & (numbers != 0)
        numbers, rows = np.append(numbers[is_one], np.uint64(0)), np.append(rows[is_one], -1)
        places = np.searchsorted(numbers[:-1], before)
        found = np.where((numbers[places] == before) & (before != 0), rows[places], -1)
        present = np.flatnonzero(found >= 0)
        following = np.minimum.accumulate(found[present][::-1])[::-1]
        found[present[:-1][found[present[:-1]] >= following[1:]]] = -1
        return cls(found, now != 0)

    @property
    def added(self) -> NDArray[np.int64]:
        """The rows to compare that were not compared before, ascending: int64."""
        is_added = self.compared.copy()
        is_added[self.now[self.now >= 0]] = False
        return np.flatnonzero(is_added)

    def of(self, edges: Edges) -> tuple[Edges, Edges]:
        """Return the pairs of kept rows, as present rows, and those that lost a row, as earlier rows."""
        first, second = self.now[edges.first], self.now[edges.second]
        is_kept = (first >= 0) & (second >= 0)
        kept = Edges(
            len(self.compared),
            edges.count,
            edges.floor,
            first[is_kept].astype(np.int32),
            second[is_kept].astype(np.int32),
            edges.similarity[is_kept],
        )
        lost = (edges.first[~is_kept], edges.second[~is_kept], edges.similarity[~is_kept])
        return kept, Edges(edges.rows, edges.count, edges.floor, *lost)


def most_changed(rows: int) -> int:
    """Return for how many rows it is worth comparing them with all others, rather than all with each other."""
    return rows // (PAIRS.update_exact if rows <= PAIRS.most_exact else PAIRS.update_near)


def updated_pairs(vectors: Vectors, last: Edges, rows_kept: KeptRows, monitor: Monitor = SILENT) -> Edges | None:
    """Return the pairs that `all_pairs` finds among the present rows, from `last`, those of an earlier state.

    Compared with all rows are the added ones, and those that lost one of their nearest while there may be others
    they had no room for. So of exact pairs, the result is exact, and of near ones, it lacks only pairs of earlier
    rows that were lacking before. Returns None if so many rows are to be compared that all should be.

    In memory are PAIRS.near_rows lists of neighbours, those of the rows that are compared, and the result twice.
    Raises VectorsDamaged and Stopped.
    """
    count = last.count
    if count is None or last.floor < 0:
        return None
    kept, lost = rows_kept.of(last)
    added = rows_kept.added
    again = rows_kept.now[np.intersect1d(last.saturated, np.concatenate([lost.first, lost.second]))]
    asking = np.concatenate([added, again[again >= 0]])
    if len(asking) > most_changed(len(vectors)):
        return None
    rows = Rows(vectors, np.flatnonzero(~rows_kept.compared))
    update = _Update(rows, rows.unit(asking), asking, len(added), Nearest(len(asking), count, last.floor))
    pieces = [update.pairs_of_kept(group, nearest, monitor) for group, nearest in _lists(kept, count)]
    places, others, similarity = pairs_in(update.nearest.keys, last.floor)
    pieces.append((asking[places], others, similarity))
    return edges_from_pieces(len(vectors), count, last.floor, pieces)


@dataclass(frozen=True, eq=False)
class _Update:
    """The rows `asking`, of which the first `added` are new to the lists of the others, and their lists."""

    rows: Rows
    unit: NDArray[np.float32]
    asking: NDArray[np.int64]
    added: int
    nearest: Nearest

    def pairs_of_kept(self, group: NDArray[np.int64], lists: Nearest, monitor: Monitor) -> Columns:
        """Compare a group of all rows, and return the pairs in their `lists`, without those that are asking."""
        is_asking = np.isin(group, self.asking)
        step = max(1, min(PAIRS.block_rows, PAIRS.block_rows**2 // max(1, len(self.asking))))
        blocks = [slice(start, start + step) for start in range(0, len(group), step)]

        def compare(block: slice) -> tuple[Candidates, Candidates]:
            ones = group[block]
            products = self.unit @ self.rows.unit(ones).T
            products[:, self.rows.excluded[ones]] = -np.inf
            own = np.flatnonzero((self.asking >= ones[0]) & (self.asking <= ones[-1]))
            products[own, self.asking[own] - ones[0]] = -np.inf
            mine = self.nearest.candidates_of_rows(products, np.arange(len(products)), ones)
            products = products[: self.added]
            products[:, is_asking[block]] = -np.inf
            numbers = np.arange(len(group))[block]
            return mine, lists.candidates_of_columns(products, self.asking[: self.added], numbers)

        for mine, theirs in in_order(compare, blocks if len(self.asking) else [], monitor):
            self.nearest.insert(mine)
            lists.insert(theirs)
        monitor.show("comparing changed photos", int(group[-1]) + 1, len(self.rows))
        places, others, similarity = pairs_in(lists.keys[~is_asking], lists.floor)
        return group[~is_asking][places], others, similarity


def _lists(edges: Edges, count: int) -> Iterator[tuple[NDArray[np.int64], Nearest]]:
    """Yield groups of rows with the lists of their nearest, made from the pairs that these lists led to."""
    for start in range(0, edges.rows, PAIRS.near_rows):
        group = np.arange(start, min(start + PAIRS.near_rows, edges.rows))
        nearest = Nearest(len(group), count, edges.floor)
        forward = slice(*np.searchsorted(edges.first, [start, start + len(group)]))
        backward = np.flatnonzero((edges.second >= start) & (edges.second < start + len(group)))
        places = np.concatenate([edges.second[backward], edges.first[forward]]) - start
        others = np.concatenate([edges.first[backward], edges.second[forward]])
        similarity = np.concatenate([edges.similarity[backward], edges.similarity[forward]])
        steps = np.rint(similarity * SIMILARITY_STEPS).astype(np.int64)
        order = _ranked(places.astype(np.int64), steps)  # of equal ones, the lower row comes first
        places, keys = places[order], steps[order] << 32 | ROW_MASK - others[order].astype(np.int64)
        rank = np.arange(len(places)) - np.searchsorted(places, np.arange(len(group)))[places]
        is_near = rank < nearest.keys.shape[1]
        nearest.start(places[is_near], rank[is_near], keys[is_near])
        yield group, nearest


def _ranked(places: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order by place, of one place by similarity, the highest first; equal ones as they come."""
    bits = len(places).bit_length()
    if bits + STEP_BITS + PAIRS.near_rows.bit_length() > NUMBER_BITS:
        return np.lexsort((-steps, places))
    # Sorting numbers is 20 times as fast.
    numbers = (places << STEP_BITS | SIMILARITY_STEPS - steps) << bits | np.arange(len(places))
    numbers.sort()
    return numbers & ((1 << bits) - 1)
