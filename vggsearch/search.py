"""Join the rows that the index finds with the paths that the store knows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.index.flat import RECIPE, FlatIndex
from vggsearch.store.store import Store, StoreWriter

SPARE = 16  # candidates beyond those asked for, so that ties at the end are settled by exact similarity
DECIMALS = 4  # of a similarity; float16 embeddings and bfloat16 networks do not hold a fifth


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that was found. `path` is relative to the photo folder; `similarity` is a cosine, at most 1.0."""

    path: str
    similarity: float


@dataclass(frozen=True)
class Searcher:
    """The photos of one committed state: `paths` by row, and the index over the same rows.

    The `blank` rows, int64, are found only by the photo that they are: all black frames are alike.
    """

    paths: list[str]
    index: FlatIndex
    blank: NDArray[np.int64]

    def nearest(
        self,
        query: NDArray[np.float32],
        count: int,
        min_similarity: float | None = None,
        own_path: str | None = None,
    ) -> tuple[Match, ...]:
        """Return the matches of one query, a float32 unit vector (dim,): most similar first, then by path.

        At most `count`, and none below `min_similarity`. `own_path` is the photo the query was made from, if it
        is one of these: it is always looked at, and comes before its exact copies.
        """
        rows = self.index.nearest(query, count + SPARE, without=self.blank)
        if own_path in self.paths:
            rows = np.union1d(rows, [self.paths.index(own_path)])
        exact = np.minimum(self.index.similarities(query, rows), 1.0)
        matches = [
            Match(self.paths[row], round(float(value), DECIMALS)) for row, value in zip(rows, exact, strict=True)
        ]
        matches.sort(key=lambda match: (-match.similarity, match.path != own_path, match.path))
        floor = -1.0 if min_similarity is None else min_similarity
        return tuple(match for match in matches[:count] if match.similarity >= floor)

    def itself(self, own_path: str | None) -> tuple[Match, ...]:
        """Return the photo that a blank query was made from, if it is one of these."""
        return (Match(own_path, 1.0),) if own_path is not None and own_path in self.paths else ()


def renew_search_side(store: Store, writer: StoreWriter) -> None:
    """Build the FAISS files of the store's present rows, and commit them."""
    writer.set_search(RECIPE, FlatIndex.build(store.embeddings(), store.spec.dim).save)
