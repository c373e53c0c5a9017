"""The edges of the similarity graph: each unordered pair of rows above a similarity floor, once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError

MAX_ROWS = 2**31  # rows are stored as int32: 32 million pairs take 384 MB
SIMILARITY_STEPS = 2**20  # similarities are rounded to multiples of 2**-20, the accuracy of a float32 dot product


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

    def union(self, others: "Edges") -> "Edges":
        """Return these pairs and others, of the same rows; a pair of both has the larger of its similarities."""
        first, second = np.concatenate([self.first, others.first]), np.concatenate([self.second, others.second])
        similarity = np.concatenate([self.similarity, others.similarity])
        order = np.argsort(-similarity, kind="stable")  # of equal pairs, the first is taken
        return edges_from_pairs(self.rows, self.count, self.floor, first[order], second[order], similarity[order])

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
    pairs = np.minimum(ones, others).astype(np.int64) << 32 | np.maximum(ones, others).astype(np.int64)
    pairs, positions = np.unique(pairs, return_index=True)
    first, second = (pairs >> 32).astype(np.int32), (pairs & (2**32 - 1)).astype(np.int32)
    return Edges(rows, count, floor, first, second, similarity[positions])


def round_similarities(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to multiples of 1 / SIMILARITY_STEPS and limit to 1.0, so that exact copies have exactly 1.0."""
    steps = np.rint(np.minimum(similarities, np.float32(1)) * np.float32(SIMILARITY_STEPS))
    return np.asarray(steps / np.float32(SIMILARITY_STEPS))


def check_rows(rows: int) -> None:
    """Raise OptionError if there are more rows than an int32 can represent."""
    if rows > MAX_ROWS:
        raise OptionError(f"Pairs can be found among at most {MAX_ROWS:,} photos, not {rows:,}. Split the folder.")
