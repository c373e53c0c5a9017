"""The user's decisions about duplicates, by the rows of a collection."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vggsearch.store.decisions import Judgement, Pair, PhotoId

RowPair = tuple[int, int]
VALUES: dict[Judgement, int] = {"same": 1, "different": -1, "undecided": 0}


class DecidedPairs:
    """What the user decided about pairs of rows: 1 for the same photo, -1 for different ones, 0 if undecided.

    `keys` are the SHA-256 of the rows, 64 bytes each, `contents`, int64, the first row with the same bytes, and
    `path` returns the path of a row. `decisions` are those of Decisions.pairs. One about two contents holds for all
    of their copies, and is found by their first rows; one about two copies of a content is found by these.

    `kept` are the rows that the user wants to keep, by Decisions.kept; of a photo that was renamed, all its copies.
    """

    def __init__(
        self,
        keys: NDArray[np.bytes_],
        contents: NDArray[np.int64],
        path: Callable[[int], str],
        decisions: Mapping[Pair, Judgement],
        kept: Iterable[PhotoId] = (),
    ) -> None:
        self._contents = contents
        kept = list(kept)
        photos = [*kept, *(photo for pair in decisions for photo in pair)]
        named = np.array(sorted({sha256 for sha256, _ in photos}), "S64")
        copies: dict[str, list[int]] = defaultdict(list)
        rows: dict[PhotoId, list[int]] = defaultdict(list)
        for row in np.flatnonzero(np.isin(keys, named)).tolist():
            sha256 = str(keys[row], "ascii")
            copies[sha256].append(row)
            rows[sha256, path(row)].append(row)
            if contents[row] == row:
                rows[sha256, ""].append(row)
        self._judgements: dict[RowPair, int] = {
            _ordered(*pair): VALUES[judgement]
            for (one, other), judgement in decisions.items()
            for pair in product(rows[one], rows[other])
        }

        self.kept = frozenset(row for photo in kept for row in rows.get(photo, copies[photo[0]]))

    def judgements(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what was decided about each pair of rows: 1, -1 or 0, int64 (n,)."""
        if not self._judgements:
            return np.zeros(len(first), np.int64)
        contents = self._contents[first], self._contents[second]
        pairs = np.sort(np.where(contents[0] != contents[1], contents, (first, second)), axis=0)
        return np.array([self._judgements.get(pair, 0) for pair in zip(*pairs.tolist(), strict=True)], np.int64)

    def same(self) -> list[RowPair]:
        """Return the pairs of different contents that are the same photo, the lower row first."""
        pairs = (pair for pair, value in self._judgements.items() if value == VALUES["same"])
        return [pair for pair in pairs if self._contents[pair[0]] != self._contents[pair[1]]]


def _ordered(first: int, second: int) -> RowPair:
    return min(first, second), max(first, second)
