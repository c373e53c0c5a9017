"""Search the vector index, and return the paths of the rows found."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, PAIRS
from vggsearch.knn.build import build_in_memory
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.knn.vectors import BLOCK_ROWS
from vggsearch.knn.whitening import Whitening, WhiteningOptions, learn
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.evidence import SAME, confidence
from vggsearch.photos.perceptual_hash import BITS, BYTES, fewest_differing_bits
from vggsearch.store.store import Store

SPARE = 16  # candidates beyond the requested count, so that exact similarity decides ties at the end
NONE_COMPARED = np.empty((0, BYTES), np.uint8)
DECIMALS = 4  # of a similarity; float16 embeddings and bfloat16 networks do not hold a fifth


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that was found. `path` is relative to the photo folder.

    `similarity` is a cosine, at most 1.0. If re-ranking located the query in the photo, `alignment` is its
    position, and has raised the similarity. `index` is the directory of the index of the photo, if several were
    searched. `confidence` is the probability, 0..1, that the photo is a copy of the query, see matching.evidence;
    None if nothing is known of it beyond the similarity.

    >>> match = index.query("photos/a.jpg").matches[0]
    >>> match.path, match.similarity
    ('a.jpg', 1.0)
    """

    path: str
    similarity: float
    alignment: Alignment | None = None
    index: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo to re-rank, with its similarity to the query as it is, and to the most similar view of it.

    `bits` is the number of bits in which their perceptual hashes differ, None if that is not known. `inside` is the
    similarity to the picture inside the frame of the query, None if it has no frame.
    """

    path: str
    upright: float
    oriented: float
    bits: int | None = None
    row: int = -1
    inside: float | None = None

    @property
    def similarity(self) -> float:
        """The similarity to the query as it is or, if that is larger, to the picture inside its frame."""
        return self.upright if self.inside is None else max(self.upright, self.inside)


@dataclass(frozen=True, eq=False)
class Sought:
    """What confidences rest on: the perceptual hashes of a query, uint8 (k, BYTES), and the number of photos.

    There is a hash of the query and, if it has a frame, of the picture inside; none of a plain one.
    """

    hashes: NDArray[np.uint8]
    looked_at: int


@dataclass(frozen=True)
class Searcher:
    """The photos of one committed state: `paths` by row, and the index over the same rows.

    The `blank` rows, int64, are found only by the very same photo, since all blank photos are alike. `hashes`,
    uint8 (n, BYTES), are the perceptual hashes by row, NO_HASH where there is none; (0, BYTES) if they are not
    compared.
    """

    paths: Sequence[str]
    index: VectorIndex
    blank: NDArray[np.int64]
    hashes: NDArray[np.uint8] = field(default_factory=lambda: NONE_COMPARED)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.paths)

    def nearest(
        self,
        query: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None = None,
        own_path: str | None = None,
        wanted: Selection | None = None,
        sought: Sought | None = None,
    ) -> tuple[Match, ...]:
        """Return the matches of one query, a float32 unit vector (dim,): most similar first, then by path.

        At most `count`, None for all, and none below `min_similarity`. `own_path` is the path of the query
        image, if it is in the index: it is always considered, and ranks before its exact copies. Only `wanted`
        photos are found, None for all. Without `sought`, matches have no confidence.
        """
        vectors = self.index.to_vectors(query[None])
        return self.nearest_to_vectors(vectors, count, min_similarity, [own_path], wanted, [sought])[0]

    def nearest_to_vectors(
        self,
        vectors: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None,
        own_paths: Sequence[str | None],
        wanted: Selection | None,
        sought: Sequence[Sought | None],
    ) -> list[tuple[Match, ...]]:
        """Do the same as `nearest` for several queries: unit vectors (m, dim), from `VectorIndex.to_vectors`.

        `own_paths` are the paths of the query images, None for each that is not in the index, and `sought` is that
        of each query.
        """
        among = self._among(wanted)
        found: Iterable[NDArray[np.int64]]
        if count is None:
            floor = -1.0 if min_similarity is None else min_similarity - 10**-DECIMALS  # it may be rounded up
            found = (self.index.above_vector(vector, floor, among)[0] for vector in vectors)
        else:
            found = self.index.nearest_vectors(vectors, count + SPARE, among)[0]
        return [
            ranked(self._matches(vector, rows, own_path, wanted, each), count, min_similarity, {(None, own_path)})
            for vector, rows, own_path, each in zip(vectors, found, own_paths, sought, strict=True)
        ]

    def _matches(
        self,
        vector: NDArray[np.float32],
        rows: NDArray[np.int64],
        own_path: str | None,
        wanted: Selection | None,
        sought: Sought | None,
    ) -> list[Match]:
        rows = np.union1d(rows, self._rows_of(own_path, wanted))
        exact = np.minimum(self.index.unit_vectors(rows) @ vector, 1.0)
        confidences = self._confidences(rows, exact, sought)
        return [Match(self.paths[row], float(exact[at]), confidence=confidences[at]) for at, row in enumerate(rows)]

    def _confidences(
        self, rows: NDArray[np.int64], similarities: NDArray[np.float32], sought: Sought | None
    ) -> list[float | None]:
        """Return the confidence of each photo by what is stored of it; None where no hash is known."""
        if sought is None:
            return [None] * len(rows)
        found: list[float | None] = []
        for similarity, bits in zip(similarities.round(DECIMALS), self._bits(sought, rows), strict=True):
            is_same = similarity >= 1 and not bits  # as the network sees both
            by_hash = None if bits is None else confidence(bits, None, sought.looked_at)
            found.append(SAME if is_same else by_hash)
        return found

    def _bits(self, sought: Sought, rows: NDArray[np.int64]) -> list[int | None]:
        """Return in how many bits the hash of each row differs from that of a query, None where one is missing."""
        if not len(self.hashes) or not len(sought.hashes):
            return [None] * len(rows)
        known = self.hashes[rows]
        bits = fewest_differing_bits(sought.hashes, known).tolist()
        return [each if hash.any() else None for each, hash in zip(bits, known, strict=True)]

    def candidates(
        self,
        queries: NDArray[np.float32],
        count: int,
        wanted: Selection | None = None,
        sought: Sought | None = None,
        inside: NDArray[np.float32] | None = None,
    ) -> list[Candidate]:
        """Return the photos most similar to any of the embeddings (m, dim); the first is the upright one.

        At most `count` of those `wanted`, most similar first, and of the others at most as many whose perceptual
        hash is nearly that of the query. Photos with the embedding of the query itself are no candidates:
        re-ranking cannot improve them. `inside` (k, dim) are embeddings of the picture inside a frame; with any,
        photos are those most similar to the picture inside and to any view, in turn.
        """
        among = self._among(wanted)
        vectors = self.index.to_vectors(queries if inside is None else np.concatenate([queries, inside]))
        found, _ = self.index.nearest_vectors(vectors, count + SPARE, among)
        alike = self._alike(sought, count, among) if sought is not None else np.empty(0, np.int64)
        rows = np.union1d(found, alike)
        exact = np.minimum(vectors @ self.index.unit_vectors(rows).T, 1.0)
        is_other = np.round(exact[0], DECIMALS) < 1
        rows, exact = rows[is_other], exact[:, is_other]
        bits = self._bits(sought, rows) if sought is not None else [None] * len(rows)
        framed = exact[len(queries) :].max(axis=0).tolist() if len(exact) > len(queries) else [None] * len(rows)
        candidates = [
            Candidate(self.paths[row], float(each[0]), float(each.max()), differing, int(row), of_inside)
            for row, each, differing, of_inside in zip(rows, exact.T, bits, framed, strict=True)
        ]
        best = [candidates[at] for at in in_order([(each.oriented, each.inside) for each in candidates])]
        return [*best[:count], *(each for each in best[count:] if each.row in alike)]

    def _alike(self, sought: Sought, count: int, among: Selection | None) -> NDArray[np.int64]:
        """Return at most `count` rows whose perceptual hash differs from that of a query in few bits, int64."""
        if not len(self.hashes) or not len(sought.hashes):
            return np.empty(0, np.int64)
        bits = fewest_differing_bits(sought.hashes, self.hashes)
        if among is not None:
            bits[~among.mask] = BITS
        order = np.argsort(bits, kind="stable")[:count]
        return order[bits[order] <= PAIRS.hash_bits]

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
        return tuple(Match(self.paths[row], 1.0, confidence=SAME) for row in self._rows_of(own_path, wanted))

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
        try:
            row = self.paths.index(path)
        except ValueError:  # also for None
            return np.empty(0, np.int64)
        return np.array([row] if wanted is None or wanted.mask[row] else [], np.int64)


def in_order(similarities: Sequence[tuple[float, float | None]]) -> list[int]:
    """Return the places of candidates, the most promising first, by their similarities to a query.

    These are the similarity to all of it and, if it has a frame, to the picture inside, else None. With a frame,
    the most similar ones of either kind take turns: a frame that was added hides what is alike, but it may also be
    part of the photo.
    """
    places = range(len(similarities))
    of_all = sorted(places, key=lambda at: -similarities[at][0])
    if any(inside is None for _, inside in similarities):
        return of_all
    of_inside = sorted(places, key=lambda at: -(similarities[at][1] or 0.0))
    return list(dict.fromkeys(chain.from_iterable(zip(of_inside, of_all, strict=True))))


def ranked(
    matches: Iterable[Match],
    count: int | None,
    min_similarity: float | None = None,
    own: Collection[tuple[str | None, str | None]] = (),
) -> tuple[Match, ...]:
    """Return at most `count` matches, None for all, none below `min_similarity`, similarities rounded to DECIMALS.

    The most similar come first; ties are ordered by path, after the query's `own` photo, a pair of index and path.
    """
    rounded = [_rounded(match) for match in matches]
    rounded.sort(key=lambda match: (-match.similarity, (match.index, match.path) not in own, match.path))
    floor = -1.0 if min_similarity is None else min_similarity
    return tuple(match for match in rounded[:count] if match.similarity >= floor)


def _rounded(match: Match) -> Match:
    confidence = None if match.confidence is None else round(match.confidence, DECIMALS)
    return replace(match, similarity=round(match.similarity, DECIMALS), confidence=confidence)


def searcher_with(store: Store, options: WhiteningOptions) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening learned with these options."""
    learned = learn(store.embeddings(), store.spec.dim, len(store), store.blank_rows(), options)
    return searcher_under(store, learned[0] if learned is not None else None)


def searcher_under(store: Store, whitening: Whitening | None) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening or without one."""
    index = build_in_memory(store.embeddings(), len(store), store.spec.dim, whitening)
    return Searcher(store.paths(), index, store.blank_rows(), hashes_of(store))


def hashes_of(store: Store) -> NDArray[np.uint8]:
    """Return the perceptual hashes of all photos by row; none for more photos than are compared by their hashes."""
    return store.perceptual_hashes() if len(store) <= ALIGN.hashed_rows else NONE_COMPARED
