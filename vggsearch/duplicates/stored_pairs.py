"""The pairs of similar photos of one index: those that are stored, brought up to date after an update."""

import hashlib
import logging
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.duplicates.collection import Collection
from vggsearch.errors import InstallationError
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import Edges
from vggsearch.knn.hash_pairs import hash_pairs, updated_hash_pairs
from vggsearch.knn.updated_pairs import KeptRows, updated_pairs
from vggsearch.knn.vectors import Vectors
from vggsearch.photos.perceptual_hash import BYTES, in_all_orientations
from vggsearch.progress import Monitor
from vggsearch.store.compared import read_compared, write_compared
from vggsearch.store.contents import EDGES, HASH_EDGES
from vggsearch.store.edges import EdgeCache, StoredEdges

log = logging.getLogger(__name__)

NO_HASHES = "%s Until then, turned copies may not be found."
AT_ONCE = 65_536  # rows that are numbered at once


class StoredPairs:
    """Finds the pairs of one index by vectors and by perceptual hashes, and stores both.

    After an update, the stored pairs of photos that are as they were are kept: only the new photos are compared
    with all, unless they are many. Which these are, a number for each photo tells.
    """

    def __init__(self, collection: Collection, monitor: Monitor) -> None:
        self._collection, self._monitor = collection, monitor
        self._without = collection.not_compared
        inputs = f"without {digest(self._without)} with hashes {digest(collection.hashes)}"
        hash_floor = 1 - PAIRS.hash_bits / (BYTES * 4)
        self._by_vector = EdgeCache(collection.store, EDGES, inputs, PAIRS.count, PAIRS.floor)
        self._by_hash = EdgeCache(collection.store, HASH_EDGES, inputs, PAIRS.count, hash_floor)

    def found(self) -> Edges:
        """Return all pairs; a warning says if those by hash are missing for lack of FAISS. Raises Stopped."""
        by_vector, by_hash = self._by_vector.read(), self._by_hash.read()
        if by_vector is None or by_hash is None:
            kept = self._kept
            edges = _edges(by_vector, PAIRS.count) if by_vector is not None else self._search_vectors(kept)
            hashed = _edges(by_hash, None) if by_hash is not None else self._search_hashes(kept)
        else:
            edges, hashed = _edges(by_vector, PAIRS.count), _edges(by_hash, None)
        return edges.union(hashed) if hashed is not None else edges

    @cached_property
    def _numbers(self) -> NDArray[np.uint64]:
        collection = self._collection
        return numbers_of(collection.searcher.index.by_row, collection.keys, collection.hashes, self._without)

    @property
    def _kept(self) -> KeptRows | None:
        """The rows that the pairs stored last were of, None if that is not known."""
        last = self._by_vector.last
        before = read_compared(self._collection.store.directory, last.facts.made_of) if last is not None else None
        return KeptRows.matching(before, self._numbers) if before is not None else None

    def _search_vectors(self, kept: KeptRows | None) -> Edges:
        last, vectors = self._by_vector.last, self._collection.searcher.index.by_row
        edges = None
        if kept is not None and last is not None:
            edges = updated_pairs(vectors, _edges(last, PAIRS.count), kept, self._monitor)
        if edges is None:
            tasks = self._collection.tasks
            edges = all_pairs(vectors, PAIRS.count, PAIRS.floor, self._without, self._monitor, tasks)
        if self._by_vector.write(edges.first, edges.second, edges.similarity):
            write_compared(self._collection.store.directory, self._by_vector.made_of, self._numbers)
        return edges

    def _search_hashes(self, kept: KeptRows | None) -> Edges | None:
        hashes, last, before = self._collection.hashes, self._by_hash.last, self._by_vector.last
        edges = None
        try:
            is_of_same = last is not None and before is not None and last.facts.made_of == before.facts.made_of
            if kept is not None and last is not None and is_of_same:
                then = _edges(last, None)
                edges = updated_hash_pairs(hashes, in_all_orientations, then, kept, monitor=self._monitor)
            if edges is None:
                edges = hash_pairs(hashes, in_all_orientations, without=self._without, monitor=self._monitor)
        except InstallationError as error:
            log.warning(NO_HASHES, error)
            return None
        self._by_hash.write(edges.first, edges.second, edges.similarity)
        return edges


def _edges(stored: StoredEdges, count: int | None) -> Edges:
    return Edges(stored.facts.rows, count, stored.facts.floor, stored.first, stored.second, stored.similarity)


def numbers_of(
    vectors: Vectors, keys: NDArray[np.bytes_], hashes: NDArray[np.uint8], without: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return a number for each row, uint64 (n,): of its SHA-256, vector and perceptual hash; 0 for those `without`.

    It is a random linear combination of their bytes, so two rows share it with a probability of about 2**-64.
    """
    numbers = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        words = np.concatenate([_words(keys[block]), _words(hashes[block]), _words(vectors[block])], axis=1)
        factors = np.random.default_rng(0).integers(0, 2**64, words.shape[1], np.uint64) | np.uint64(1)
        numbers[block] = words @ factors
    numbers[without] = 0
    return numbers


def _words(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the bytes of each row as numbers, padded with zeros: uint64 (n, words)."""
    found = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    padded = np.pad(found, ((0, 0), (0, -found.shape[1] % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)


def digest(values: NDArray[Any]) -> str:
    """Return a hash of all values."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
