"""The edges of the similarity graph: each unordered pair of rows above a similarity floor, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError

MAX_ROWS = 2**31  # rows are stored as int32: 32 million pairs take 384 MB
SIMILARITY_STEPS = 2**20  # similarities are rounded to multiples of 2**-20, the accuracy of a float32 dot product
AT_ONCE = 1 << 24  # pairs among which repeated ones are found at once, in 0.7 GB

Columns = tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], NDArray[np.float32]]
"""Pairs: one row, the other, and their similarity, each (m,)."""


@dataclass(frozen=True)
class Edges:
    """The pairs among `rows` rows: `first` < `second`, int32 (m,), sorted ascending; `similarity`, float32 (m,).

    A pair is included if its similarity is at least `floor` and one of its rows is among the `count` nearest of the
    other. With a `count` of None, all pairs with a similarity of at least `floor` are included.
    """

    rows: int
    count: int | None
    floor: float
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    similarity: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)

    def above(self, floor: float) -> "Edges":
        """Return the pairs with at least `floor` similarity. Raises OptionError for a floor below their own."""
        if floor < self.floor:
            raise OptionError(
                f"The stored pairs go down to a similarity of {self.floor}, not to {floor}. Search for pairs again."
            )
        chosen = self.similarity >= floor
        columns = (self.first[chosen], self.second[chosen], self.similarity[chosen])
        return Edges(self.rows, self.count, floor, *columns)

    @property
    def keys(self) -> NDArray[np.int64]:
        """The pairs as numbers, ascending: int64 (m,)."""
        return self.first.astype(np.int64) << 32 | self.second

    def union(self, others: "Edges") -> "Edges":
        """Return these pairs and others, of the same rows; a pair of both has the larger of its similarities."""
        own, new = self.keys, others.keys
        places = np.searchsorted(own, new)
        is_new = np.append(own, -1)[places] != new
        known, places = places[~is_new], places[is_new]
        similarity = self.similarity.copy()
        similarity[known] = np.maximum(similarity[known], others.similarity[~is_new])
        return Edges(
            self.rows,
            self.count,
            self.floor,
            np.insert(self.first, places, others.first[is_new]),
            np.insert(self.second, places, others.second[is_new]),
            np.insert(similarity, places, others.similarity[is_new]),
        )

    @property
    def saturated(self) -> NDArray[np.int64]:
        """The rows, ascending, that may have more pairs than listed: those in at least `count` pairs.

        All pairs of any other row are listed. Exact copies saturate rows: of 100 copies of a photo, each is linked
        at least to the first 33, so that they stay connected, but most pairs of two later copies are missing.
        """
        if self.count is None:
            return np.empty(0, np.int64)
        pairs = np.bincount(self.first, minlength=self.rows) + np.bincount(self.second, minlength=self.rows)
        return np.flatnonzero(pairs >= self.count)


def edges_from_pairs(
    rows: int,
    count: int | None,
    floor: float,
    ones: NDArray[np.integer[Any]],
    others: NDArray[np.integer[Any]],
    similarity: NDArray[np.float32],
) -> Edges:
    """Return the edges of pairs in any order; a pair may occur several times and either way round."""
    return edges_from_pieces(rows, count, floor, [(ones, others, similarity)])


def edges_from_pieces(rows: int, count: int | None, floor: float, pieces: Sequence[Columns]) -> Edges:
    """Return the edges of pairs in several pieces, in any order; a pair may occur several times, either way round.

    In memory are the pieces, the result, and AT_ONCE pairs while repeated ones are found.
    """
    firsts = [np.empty(0, np.int32), *(np.minimum(ones, others).astype(np.int32) for ones, others, _ in pieces)]
    ends = np.cumsum(sum(np.bincount(first, minlength=rows) for first in firsts))
    bounds = np.searchsorted(ends, np.arange(0, max(1, sum(map(len, firsts))), AT_ONCE)[1:]) + 1
    found = []
    for low, high in pairwise([0, *np.unique(bounds).tolist(), rows]):
        chosen = [np.flatnonzero((first >= low) & (first < high)) for first in firsts[1:]]
        some = (
            (ones[at], others[at], values[at]) for (ones, others, values), at in zip(pieces, chosen, strict=True)
        )
        found.append(_distinct(list(some)))
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return Edges(rows, count, floor, first, second, similarity)


def _distinct(pieces: Sequence[Columns]) -> Columns:
    """Return each pair of the pieces once, the lower row first, ascending; of repeated ones the first."""
    pairs = [
        np.minimum(ones, others).astype(np.int64) << 32 | np.maximum(ones, others) for ones, others, _ in pieces
    ]
    similarity = np.concatenate([np.empty(0, np.float32), *(column for *_, column in pieces)])
    keys, positions = np.unique(np.concatenate([np.empty(0, np.int64), *pairs]), return_index=True)
    return (keys >> 32).astype(np.int32), (keys & (2**32 - 1)).astype(np.int32), similarity[positions]


def round_similarities(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to multiples of 1 / SIMILARITY_STEPS and limit to 1.0, so that exact copies have exactly 1.0."""
    steps = np.rint(np.minimum(similarities, np.float32(1)) * np.float32(SIMILARITY_STEPS))
    return np.asarray(steps / np.float32(SIMILARITY_STEPS))


def check_rows(rows: int) -> None:
    """Raise OptionError if there are more rows than an int32 can represent."""
    if rows > MAX_ROWS:
        raise OptionError(f"Pairs can be found among at most {MAX_ROWS:,} photos, not {rows:,}. Split the folder.")
