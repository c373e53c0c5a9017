"""Pairs of rows that are alike: each unordered pair once, with its similarity, above a floor."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError

MOST_ROWS = 2**31  # row numbers are int32: 32 million pairs take 384 MB
SCALE = 2**20  # similarities are kept in steps of 2**-20, a millionth; a product in float32 holds no more


@dataclass(frozen=True)
class Edges:
    """The pairs of `rows` rows: `first` < `second`, int32 (m,), in ascending order, `similarity` float32 (m,).

    They are all the pairs that are among the `count` nearest of at least one of their two rows, and whose
    similarity is not below `floor`; all pairs that are not below it where `count` is None.
    """

    rows: int
    count: int | None
    floor: float
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    similarity: NDArray[np.float32]

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.first)

    def above(self, floor: float) -> "Edges":
        """Return the pairs of a higher floor, which needs no new search. Raises OptionError for a lower one."""
        if floor < self.floor:
            raise OptionError(
                f"The stored pairs go down to a similarity of {self.floor}, not to {floor}: they have to be "
                "searched anew."
            )
        chosen = self.similarity >= floor
        columns = (self.first[chosen], self.second[chosen], self.similarity[chosen])
        return Edges(self.rows, self.count, floor, *columns)

    @property
    def saturated(self) -> NDArray[np.int64]:
        """The rows, ascending, that may be in more pairs than are here: those with `count` of them, or more.

        A row with fewer has all of its pairs. Exact copies do this: of 100 copies of a photo, each is linked to
        the first 33 at least, so that they hang together, but most pairs of two later ones are not listed.
        """
        if self.count is None:
            return np.empty(0, np.int64)
        pairs = np.bincount(self.first, minlength=self.rows) + np.bincount(self.second, minlength=self.rows)
        return np.flatnonzero(pairs >= self.count)


def edges_from_neighbours(
    rows: int, neighbours: NDArray[np.integer[Any]], similarities: NDArray[np.float32], floor: float
) -> Edges:
    """Return the edges of the k-NN lists of all rows, as an index's search for its own vectors gives them.

    `neighbours` (rows, k) holds row numbers, -1 where there is none; `similarities`, exact, are of its shape. A row
    may be in its own list, and is left out. Where the lists are approximate, so are the edges.
    """
    check_rows(rows)
    own = np.arange(rows, dtype=np.int64)[:, None]
    others = neighbours != own
    listed = rounded(similarities)
    chosen = others & (neighbours >= 0) & (listed >= floor)
    first = np.broadcast_to(own, neighbours.shape)[chosen]
    count = int(others.sum(axis=1).min(initial=neighbours.shape[1]))
    return edges_of(rows, count, floor, first, neighbours[chosen], listed[chosen])


def edges_of(
    rows: int,
    count: int | None,
    floor: float,
    some: NDArray[np.integer[Any]],
    others: NDArray[np.integer[Any]],
    similarity: NDArray[np.float32],
) -> Edges:
    """Return the edges of pairs in any order, which may be there several times, either way round."""
    pairs = np.minimum(some, others).astype(np.int64) << 32 | np.maximum(some, others).astype(np.int64)
    pairs, places = np.unique(pairs, return_index=True)
    first, second = (pairs >> 32).astype(np.int32), (pairs & (2**32 - 1)).astype(np.int32)
    return Edges(rows, count, floor, first, second, similarity[places])


def rounded(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return similarities in steps of 1 / SCALE and at most 1.0, so that exact copies are exactly 1.0."""
    steps = np.rint(np.minimum(similarities, np.float32(1)) * np.float32(SCALE))
    return np.asarray(steps / np.float32(SCALE))


def check_rows(rows: int) -> None:
    """Raise OptionError where there are more rows than a pair can name."""
    if rows > MOST_ROWS:
        raise OptionError(f"Pairs are of at most {MOST_ROWS:,} photos; these are {rows:,}. Split the folder.")
