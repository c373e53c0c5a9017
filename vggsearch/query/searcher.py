"""Search the vector index, and return the paths of the rows found."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.build import build_in_memory
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.knn.vectors import BLOCK_ROWS
from vggsearch.knn.whitening import Whitening, WhiteningOptions, learn
from vggsearch.matching.alignment import Alignment
from vggsearch.store.store import Store

SPARE = 16  # candidates beyond the requested count, so that exact similarity decides ties at the end
DECIMALS = 4  # of a similarity; float16 embeddings and bfloat16 networks do not hold a fifth


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that was found. `path` is relative to the photo folder.

    `similarity` is a cosine, at most 1.0. If re-ranking located the query in the photo, `alignment` is its
    position, and has raised the similarity. `index` is the directory of the index of the photo, if several were
    searched.

    >>> match = index.query("photos/a.jpg").matches[0]
    >>> match.path, match.similarity
    ('a.jpg', 1.0)
    """

    path: str
    similarity: float
    alignment: Alignment | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo to re-rank, with its similarity to the query as it is, and in the most similar orientation."""

    row: int
    path: str
    upright: float
    oriented: float


@dataclass(frozen=True)
class Searcher:
    """The photos of one committed state: `paths` by row, and the index over the same rows.

    The `blank` rows, int64, are found only by the very same photo, since all blank photos are alike.
    """

    paths: Sequence[str]
    index: VectorIndex
    blank: NDArray[np.int64]

    def nearest(
        self,
        query: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None = None,
        own_path: str | None = None,
        wanted: Selection | None = None,
    ) -> tuple[Match, ...]:
        """Return the matches of one query, a float32 unit vector (dim,): most similar first, then by path.

        At most `count`, None for all, and none below `min_similarity`. `own_path` is the path of the query
        image, if it is in the index: it is always considered, and ranks before its exact copies. Only `wanted`
        photos are found, None for all.
        """
        vectors = self.index.to_vectors(query[None])
        return self.nearest_to_vectors(vectors, count, min_similarity, [own_path], wanted)[0]

    def nearest_to_vectors(
        self,
        vectors: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None,
        own_paths: Sequence[str | None],
        wanted: Selection | None = None,
    ) -> list[tuple[Match, ...]]:
        """Do the same as `nearest` for several queries: unit vectors (m, dim), from `VectorIndex.to_vectors`.

        `own_paths` are the paths of the query images, None for each that is not in the index.
        """
        among = self._among(wanted)
        found: Iterable[NDArray[np.int64]]
        if count is None:
            floor = -1.0 if min_similarity is None else min_similarity - 10**-DECIMALS  # it may be rounded up
            found = (self.index.above_vector(vector, floor, among)[0] for vector in vectors)
        else:
            found = self.index.nearest_vectors(vectors, count + SPARE, among)[0]
        return [
            ranked(self._matches(vector, rows, own_path, wanted), count, min_similarity, {(None, own_path)})
            for vector, rows, own_path in zip(vectors, found, own_paths, strict=True)
        ]

    def _matches(
        self, vector: NDArray[np.float32], rows: NDArray[np.int64], own_path: str | None, wanted: Selection | None
    ) -> list[Match]:
        rows = np.union1d(rows, self._rows_of(own_path, wanted))
        exact = np.minimum(self.index.unit_vectors(rows) @ vector, 1.0)
        return [Match(self.paths[row], float(value)) for row, value in zip(rows, exact, strict=True)]

    def candidates(
        self, queries: NDArray[np.float32], count: int, wanted: Selection | None = None
    ) -> list[Candidate]:
        """Return the photos most similar to any of the embeddings (m, dim); the first is the upright one.

        At most `count` of those `wanted`, most similar first. Photos with the embedding of the query itself are no
        candidates: re-ranking cannot improve them.
        """
        found, _ = self.index.nearest(queries, count + SPARE, self._among(wanted))
        rows = np.unique(found)
        exact = np.minimum(np.stack([self.index.similarities(query, rows) for query in queries]), 1.0)
        order = np.lexsort((rows, -exact.max(axis=0)))
        is_same = np.round(exact[0], DECIMALS) >= 1
        best = [place for place in order if not is_same[place]][:count]
        return [
            Candidate(int(rows[at]), self.paths[rows[at]], float(exact[0, at]), float(exact[:, at].max()))
            for at in best
        ]

    def similarities(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the similarity of each embedding (m, dim) with every photo: float32 (m, n), by row."""
        found = np.empty((len(queries), len(self.paths)), np.float32)
        vectors = self.index.to_vectors(queries)
        for start in range(0, len(self.paths), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            found[:, rows] = vectors @ self.index.unit_vectors(rows).T
        return np.minimum(found, 1.0)

    def similarities_of_row(self, row: int) -> NDArray[np.float32]:
        """Return the similarity of one photo with every photo: float32 (n,), by row."""
        vector = self.index.unit_vectors(np.array([row]))[0]
        blocks = (
            self.index.unit_vectors(slice(at, at + BLOCK_ROWS)) @ vector
            for at in range(0, len(self.paths), BLOCK_ROWS)
        )
        similarities: NDArray[np.float32] = np.minimum(np.concatenate(list(blocks)), 1.0)
        return similarities

    def itself(self, own_path: str | None, wanted: Selection | None = None) -> tuple[Match, ...]:
        """Return the match of a blank query with itself, if it is in the index and wanted."""
        return tuple(Match(self.paths[row], 1.0) for row in self._rows_of(own_path, wanted))

    def _among(self, wanted: Selection | None) -> Selection | None:
        """Return the wanted photos without the blank ones."""
        if wanted is None:
            return self.index.all_but(self.blank)
        if not wanted.mask[self.blank].any():
            return wanted
        mask = wanted.mask.copy()
        mask[self.blank] = False
        return Selection(mask)

    def _rows_of(self, path: str | None, wanted: Selection | None) -> NDArray[np.int64]:
        """Return the row of a path, (1,); empty if there is no such photo, or it is not wanted."""
        if path is None or path not in self.paths:
            return np.empty(0, np.int64)
        row = self.paths.index(path)
        return np.array([row] if wanted is None or wanted.mask[row] else [], np.int64)


def ranked(
    matches: Iterable[Match],
    count: int | None,
    min_similarity: float | None = None,
    own: Collection[tuple[str | None, str | None]] = (),
) -> tuple[Match, ...]:
    """Return at most `count` matches, None for all, none below `min_similarity`, similarities rounded to DECIMALS.

    The most similar come first; ties are ordered by path, after the query's `own` photo, a pair of index and path.
    """
    rounded = [replace(match, similarity=round(match.similarity, DECIMALS)) for match in matches]
    rounded.sort(key=lambda match: (-match.similarity, (match.index, match.path) not in own, match.path))
    floor = -1.0 if min_similarity is None else min_similarity
    return tuple(match for match in rounded[:count] if match.similarity >= floor)


def searcher_with(store: Store, options: WhiteningOptions) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening learned with these options."""
    learned = learn(store.embeddings(), store.spec.dim, len(store), store.blank_rows(), options)
    return searcher_under(store, learned[0] if learned is not None else None)


def searcher_under(store: Store, whitening: Whitening | None) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening or without one."""
    index = build_in_memory(store.embeddings(), len(store), store.spec.dim, whitening)
    return Searcher(store.paths(), index, store.blank_rows())
