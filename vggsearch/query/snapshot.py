"""The last committed state of an index: its searcher, and which of its photos may be found."""

import logging
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import SEARCH
from vggsearch.errors import IndexDamaged
from vggsearch.indexing.build import index_in_memory, open_vector_index
from vggsearch.indexing.local_features import from_store
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.knn.whitening import Whitening, WhiteningOptions
from vggsearch.matching.feature_maps import Levels
from vggsearch.query.filters import Filter, FoldedPaths
from vggsearch.query.searcher import Searcher, hashes_of, searcher_under, searcher_with
from vggsearch.store.local_features import LocalStore
from vggsearch.store.manifest import ROLES, Role
from vggsearch.store.paths import Paths
from vggsearch.store.store import Store

log = logging.getLogger(__name__)

Read = TypeVar("Read")
Wanted = tuple[tuple[str, ...], frozenset[str]]  # the texts of filters, and the excluded folders


class Snapshot:
    """One committed state of a store, each value read once, on first use. It implements PhotoFacts for filters.

    `store` shows the state; it is not to be refreshed.
    """

    def __init__(self, store: Store, open: Callable[[Store, Role], VectorIndex | None]) -> None:
        self.store, self._open = store, open
        self._columns: dict[str, NDArray[Any]] = {}
        self._last_wanted: tuple[Wanted, Selection] | None = None
        self._last_rewhitened: tuple[Whitening | None, Searcher] | None = None

    @cached_property
    def paths(self) -> Paths:
        """The paths of the photos, by row."""
        return self.store.paths()

    @cached_property
    def folded_paths(self) -> FoldedPaths:
        """The paths as filters compare them."""
        return FoldedPaths(self.paths)

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher; without a FAISS index of this state, it searches the embeddings in memory."""
        return self._over(self._open(self.store, "search") or index_in_memory(self.store))

    @cached_property
    def query_searcher(self) -> Searcher:
        """The searcher of queries: under the transform learned from labels, if there is one that can be read."""
        if self.store.manifest.learned is None:
            return self.searcher
        try:
            return self._over(self._open(self.store, "learned") or index_in_memory(self.store, "learned"))
        except IndexDamaged as error:
            if not self.store.is_up_to_date:
                raise  # a writer has removed it: there is a newer state to read
            log.warning("%s", error)
            return self.searcher

    def _over(self, index: VectorIndex) -> Searcher:
        return Searcher(self.paths, index, self.store.blank_rows(), hashes_of(self.store))

    @property
    def local(self) -> LocalStore | None:
        """The stored local features, None if there are none."""
        return self.store.local() if self.store.manifest.local else None

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the store, by row."""
        if name not in self._columns:
            self._columns[name] = self.store.array(name)
        return self._columns[name]

    def facts_of(self, rows: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return SHA-256, width and height of the photos in the given rows, in order.

        Of at most SEARCH.facts photos, those of all are read once and kept: every query needs some.
        """
        if len(self.paths) > SEARCH.facts:
            return self.store.facts_of(rows)
        wanted = [self.keys[rows].astype(str), self.column("width")[rows], self.column("height")[rows]]
        return list(zip(*(values.tolist() for values in wanted), strict=True))

    @cached_property
    def keys(self) -> NDArray[np.bytes_]:
        """The SHA-256 of the photos, by row."""
        return self.store.keys()

    def with_whitening_of(self, reference: Searcher) -> Searcher:
        """Return a searcher with the whitening of another, so that similarities of both are on one scale.

        If it is not one of the index's own, all embeddings are whitened again, in memory.
        """
        whitening = reference.index.whitening
        for own in (self.query_searcher, self.searcher):
            if _are_same(whitening, own.index.whitening):
                return own
        if self._last_rewhitened is None or not _are_same(whitening, self._last_rewhitened[0]):
            self._last_rewhitened = whitening, searcher_under(self.store, whitening)
        return self._last_rewhitened[1]

    def wanted(self, filters: Sequence[Filter], without: Collection[str] = ()) -> Selection | None:
        """Return the photos that pass all filters and are not directly in a folder of `without`; None for all.

        A warning is logged once if no photo passes the filters.
        """
        wish = tuple(each.text for each in filters), frozenset(without)
        if wish == ((), frozenset()):
            return None
        if self._last_wanted is None or self._last_wanted[0] != wish:
            masks = [each.keeps(self) for each in filters]
            passing = np.logical_and.reduce([np.ones(len(self.paths), bool), *masks])
            if filters and not passing.any():
                self._warn_of_none(wish[0], masks)
            self._last_wanted = wish, Selection(passing & self._outside(wish[1]) if without else passing)
        return self._last_wanted[1]

    def _warn_of_none(self, texts: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> None:
        counts = [f"{text!r} matches {mask.sum():,}" for text, mask in zip(texts, masks, strict=True)]
        log.warning(
            "No photo of the %s in %s passes: %s.", f"{len(self.paths):,}", self.store.directory, ", ".join(counts)
        )

    def _outside(self, folders: frozenset[str]) -> NDArray[np.bool_]:
        are_in: NDArray[np.bool_] = np.logical_or.reduce([self.paths.are_directly_in(each) for each in folders])
        return ~are_in


class LatestSnapshot:
    """The last committed state of a store, kept open until a newer one is committed. Threads read it in turn."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = RLock()  # what is read once is not read twice, and no thread replaces the state of another
        self._state: Snapshot | None = None
        self._of: tuple[str | None, ...] | None = None  # the state that it is

    def close(self) -> None:
        """Release the memory-mapped files."""
        with self._reading:
            self._state = None

    def _open(self, store: Store, role: Role) -> VectorIndex | None:
        """Return the FAISS index if it matches the present state and can be opened, else None."""
        try:
            return open_vector_index(store, role)
        except IndexDamaged as error:
            if not store.is_up_to_date:
                raise  # a writer has removed it: there is a newer state to read
            log.warning("%s; until then, queries search the embeddings.", error)
            return None

    def read(self, read: Callable[[Snapshot], Read]) -> Read:
        """Return what `read` makes of the last committed state. If its files go meanwhile, it is called again."""
        with self._reading:
            return self._store.read_consistently(lambda store: read(self._present(store)))

    def searcher(self, whitening: WhiteningOptions | None = None) -> Searcher:
        """Return the searcher of queries; with `whitening`, one in memory, with a whitening of these options."""
        if whitening is None:
            return self.read(lambda state: state.query_searcher)
        return self.read(lambda state: searcher_with(state.store, whitening))

    def kept_features(self, paths: Sequence[str]) -> dict[str, tuple[Levels, float]]:
        """Return the stored cells and the aspect ratio, width / height, of the given photos, by path."""
        if not self._store.manifest.local:
            return {}
        try:
            return self.read(lambda state: self._read_features(state, set(paths)))
        except IndexDamaged as error:
            log.warning("%s; until then, local features are computed from the photos.", error)
            return {}

    def _present(self, store: Store) -> Snapshot:
        stored = map(store.manifest.stored, ROLES)
        present = store.manifest.fingerprint, *(each.name if each is not None else None for each in stored)
        if self._state is None or self._of != present:
            self._state, self._of = Snapshot(store, self._open), present
        self._state.store = store  # the same rows, perhaps in other files
        return self._state

    def _read_features(self, state: Snapshot, paths: set[str]) -> dict[str, tuple[Levels, float]]:
        rows = state.paths.rows_among(paths)
        facts = state.facts_of(list(rows.values()))
        found = state.store.local().find([sha256 for sha256, _, _ in facts])
        return {
            path: ((from_store(features, state.store.spec.cells_a_side),), width / height)
            for path, (_, width, height), features in zip(rows, facts, found, strict=True)
            if features is not None
        }


def folder_of(path: str) -> str:
    """Return the folder that a photo lies in, "" for the photo folder itself."""
    return path.rpartition("/")[0]


def _are_same(one: Whitening | None, other: Whitening | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or (np.array_equal(one.matrix, other.matrix) and np.array_equal(one.bias, other.bias))
