"""Join the rows that the index finds with the paths that the store knows."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import WHITENING
from vggsearch.errors import IndexDamaged
from vggsearch.geometry import Alignment
from vggsearch.index.flat import RECIPE, STEP, FlatIndex
from vggsearch.index.whitening import Whitening, WhiteningOptions, learn
from vggsearch.store.manifest import WhiteningFacts
from vggsearch.store.store import Store, StoreWriter

log = logging.getLogger(__name__)

SPARE = 16  # candidates beyond those asked for, so that ties at the end are settled by exact similarity
DECIMALS = 4  # of a similarity; float16 embeddings and bfloat16 networks do not hold a fifth


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that was found. `path` is relative to the photo folder.

    `similarity` is a cosine, at most 1.0; where geometry was asked and says where in the photo the query lies,
    that is `alignment`, and the similarity is raised by it.
    """

    path: str
    similarity: float
    alignment: Alignment | None = None


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
        matches = [Match(self.paths[row], float(value)) for row, value in zip(rows, exact, strict=True)]
        return ranked(matches, count, min_similarity, own_path)

    def similarities(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the similarity of some embeddings (m, dim) with every photo: float32 (m, n), by row."""
        found = np.empty((len(queries), len(self.paths)), np.float32)
        vectors = self.index.searched(queries)
        for start in range(0, len(self.paths), STEP):
            rows = slice(start, start + STEP)
            found[:, rows] = vectors @ self.index.unit_vectors(rows).T
        return np.minimum(found, 1.0)

    def similarities_of_row(self, row: int) -> NDArray[np.float32]:
        """Return the similarity of one photo with every photo: float32 (n,), by row."""
        vector = self.index.unit_vectors(np.array([row]))[0]
        blocks = (self.index.unit_vectors(slice(at, at + STEP)) @ vector for at in range(0, len(self.paths), STEP))
        similarities: NDArray[np.float32] = np.minimum(np.concatenate(list(blocks)), 1.0)
        return similarities

    def itself(self, own_path: str | None) -> tuple[Match, ...]:
        """Return the photo that a blank query was made from, if it is one of these."""
        return (Match(own_path, 1.0),) if own_path is not None and own_path in self.paths else ()


def ranked(
    matches: Iterable[Match], count: int, min_similarity: float | None = None, own_path: str | None = None
) -> tuple[Match, ...]:
    """Return at most `count` matches, none below `min_similarity`, with similarities rounded to DECIMALS.

    The most similar come first; of equals, `own_path`, then by path.
    """
    rounded = [replace(match, similarity=round(match.similarity, DECIMALS)) for match in matches]
    rounded.sort(key=lambda match: (-match.similarity, match.path != own_path, match.path))
    floor = -1.0 if min_similarity is None else min_similarity
    return tuple(match for match in rounded[:count] if match.similarity >= floor)


def searcher_with(store: Store, options: WhiteningOptions) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening learned as the options say."""
    blank = store.blank_rows()
    learned = learn(store.embeddings(), store.spec.dim, len(store), blank, options)
    index = FlatIndex.build(store.embeddings(), store.spec.dim, learned[0] if learned is not None else None)
    return Searcher(store.paths(), index, blank)


def open_index(store: Store) -> FlatIndex | None:
    """Return the search side, memory-mapped, if it belongs to the store's present state. Raises IndexDamaged."""
    directory = store.search_directory()
    return FlatIndex.open(directory, len(store), store.spec.dim) if directory is not None else None


def build_index(store: Store) -> tuple[FlatIndex, WhiteningFacts | None]:
    """Build the index of the store's present rows, with the whitening they have or, where it is time, a new one."""
    whitening, facts = _whitening(store)
    return FlatIndex.build(store.embeddings(), store.spec.dim, whitening), facts


def renew_search_side(store: Store, writer: StoreWriter) -> None:
    """Build the FAISS files of the store's present rows, and commit them."""
    index, facts = build_index(store)
    writer.set_search(RECIPE, index.save, facts)


def _whitening(store: Store) -> tuple[Whitening | None, WhiteningFacts | None]:
    """Return the last whitening while there are about as many photos, so that similarities stay as they were.

    Otherwise it is learned anew. A last one that cannot be read is learned anew, too: it is derived.
    """
    if not store.manifest.is_whitened:
        return None, None
    side, directory = store.manifest.search, store.stale_search_directory()
    if side is not None and directory is not None and (facts := side.whitening) is not None:
        grown = len(store) / facts.rows
        if 1 / WHITENING.growth <= grown <= WHITENING.growth:
            try:
                return FlatIndex.whitening_in(directory), facts
            except IndexDamaged as error:
                log.warning("%s The whitening is learned anew.", error)
    learned = learn(store.embeddings(), store.spec.dim, len(store), store.blank_rows())
    if learned is None:
        return None, None
    whitening, shrinkage = learned
    return whitening, WhiteningFacts(len(store), whitening.dim, shrinkage)
