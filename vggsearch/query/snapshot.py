"""The last committed state of an index: its search, and which of its photos may be found."""

import logging
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.indexing.build import index_in_memory, open_vector_index
from vggsearch.indexing.local_features import from_store
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.knn.whitening import Whitening, WhiteningOptions
from vggsearch.matching.feature_maps import Levels
from vggsearch.query.filters import Filter, FoldedPaths
from vggsearch.query.searcher import Searcher, searcher_under, searcher_with
from vggsearch.store.local_features import LocalStore
from vggsearch.store.store import Store

log = logging.getLogger(__name__)

Read = TypeVar("Read")
Wanted = tuple[tuple[str, ...], frozenset[str]]  # the texts of filters, and the folders that are left out


class Snapshot:
    """One committed state of a store, whatever is asked of it read once. It is what filters look at, too."""

    def __init__(self, store: Store, open: Callable[[], VectorIndex | None]) -> None:
        self._store, self._open = store, open
        self._columns: dict[str, NDArray[Any]] = {}
        self._last_wanted: tuple[Wanted, Selection] | None = None
        self._last_rewhitened: tuple[Whitening | None, Searcher] | None = None

    @cached_property
    def paths(self) -> Sequence[str]:
        """The paths of the photos, by row."""
        return self._store.paths()

    @cached_property
    def folded_paths(self) -> FoldedPaths:
        """The paths as filters compare them."""
        return FoldedPaths(self.paths)

    @cached_property
    def searcher(self) -> Searcher:
        """The search; without a search side that belongs to this state, over the embeddings themselves."""
        index = self._open() or index_in_memory(self._store)
        return Searcher(self.paths, index, self._store.blank_rows())

    @property
    def local(self) -> LocalStore | None:
        """The local features that are kept, None where none are."""
        return self._store.local() if self._store.manifest.local else None

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the store, by row."""
        if name not in self._columns:
            self._columns[name] = self._store.array(name)
        return self._columns[name]

    def with_whitening_of(self, reference: Searcher) -> Searcher:
        """Return the search with the whitening of another one, so that similarities of both are on one scale.

        Where that is not this one's own, all embeddings are whitened anew, in memory.
        """
        whitening = reference.index.whitening
        if _are_same(whitening, self.searcher.index.whitening):
            return self.searcher
        if self._last_rewhitened is None or not _are_same(whitening, self._last_rewhitened[0]):
            self._last_rewhitened = whitening, searcher_under(self._store, whitening)
        return self._last_rewhitened[1]

    def wanted(self, filters: Sequence[Filter], without: Collection[str] = ()) -> Selection | None:
        """Return the photos that pass all filters and lie directly in none of some folders; None for all photos.

        Where no photo passes the filters, that is logged, once.
        """
        wish = tuple(each.text for each in filters), frozenset(without)
        if wish == ((), frozenset()):
            return None
        if self._last_wanted is None or self._last_wanted[0] != wish:
            masks = [each.keeps(self) for each in filters]
            passing = np.logical_and.reduce([np.ones(len(self.paths), bool), *masks])
            if filters and not passing.any():
                self._tell_none(wish[0], masks)
            self._last_wanted = wish, Selection(passing & self._outside(wish[1]) if without else passing)
        return self._last_wanted[1]

    def _tell_none(self, texts: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> None:
        counts = [f"{text!r} matches {mask.sum():,}" for text, mask in zip(texts, masks, strict=True)]
        log.warning(
            "No photo of the %s in %s passes: %s.", f"{len(self.paths):,}", self._store.directory, ", ".join(counts)
        )

    def _outside(self, folders: frozenset[str]) -> NDArray[np.bool_]:
        numbers, of_rows = self._folders
        return ~np.isin(of_rows, [numbers[each] for each in folders if each in numbers])

    @cached_property
    def _folders(self) -> tuple[dict[str, int], NDArray[np.int64]]:
        """The number of each folder, and of each photo's."""
        numbers: dict[str, int] = {}
        of_rows = [numbers.setdefault(folder_of(path), len(numbers)) for path in self.paths]
        return numbers, np.array(of_rows, np.int64)


class LatestSnapshot:
    """The search over the last committed state of a store, kept while that is the state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state: Snapshot | None = None
        self._of: tuple[str, str | None] | None = None  # the state that it is

    def close(self) -> None:
        """Let go of the memory-mapped files."""
        self._state = None

    def open(self) -> VectorIndex | None:
        """Return the search side if it belongs to the present state and can be opened, else None."""
        try:
            return open_vector_index(self._store)
        except IndexDamaged as error:
            if not self._store.is_up_to_date:
                raise  # a writer has removed it: there is a newer state to read
            log.warning("%s The embeddings themselves are searched; vggsearch index renews it.", error)
            return None

    def read(self, read: Callable[[Snapshot], Read]) -> Read:
        """Return what `read` makes of the last committed state. If its files go meanwhile, it is called again."""
        self._store.refresh()
        return self._store.read_consistently(lambda: read(self._present()))

    def searcher(self, whitening: WhiteningOptions | None = None) -> Searcher:
        """Return the search; with `whitening`, one made in memory, whitened anew as those options say."""
        if whitening is None:
            return self.read(lambda state: state.searcher)
        return self.read(lambda _state: searcher_with(self._store, whitening))

    def kept_features(self, paths: Sequence[str]) -> dict[str, tuple[Levels, float]]:
        """Return the cells that are kept of some photos, and the photos' width over height, by path."""
        if not self._store.manifest.local:
            return {}
        try:
            return self.read(lambda state: self._read_features(state, set(paths)))
        except IndexDamaged as error:
            log.warning("%s Local features are made from the photos; vggsearch verify --repair drops these.", error)
            return {}

    def _present(self) -> Snapshot:
        side = self._store.manifest.search
        present = self._store.manifest.fingerprint, side.name if side is not None else None
        if self._state is None or self._of != present:
            self._state, self._of = Snapshot(self._store, self.open), present
        return self._state

    def _read_features(self, state: Snapshot, paths: set[str]) -> dict[str, tuple[Levels, float]]:
        rows = {row: path for row, path in enumerate(state.paths) if path in paths}
        facts = self._store.facts_of(list(rows))
        found = self._store.local().find([sha256 for sha256, _, _ in facts])
        return {
            path: (from_store(features, self._store.spec.size), width / height)
            for path, (_, width, height), features in zip(rows.values(), facts, found, strict=True)
            if features is not None
        }


def folder_of(path: str) -> str:
    """Return the folder that a photo lies in, "" for the photo folder itself."""
    return path.rpartition("/")[0]


def _are_same(one: Whitening | None, other: Whitening | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or (np.array_equal(one.matrix, other.matrix) and np.array_equal(one.bias, other.bias))
