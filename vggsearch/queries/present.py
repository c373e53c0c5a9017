"""Queries: which photos are most like a picture, or contain it, in the last committed state of an index."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from vggsearch.alignment import Aligner, Levels, believed, joined
from vggsearch.defaults import ALIGN
from vggsearch.errors import IndexDamaged
from vggsearch.index.vector_index import VectorIndex
from vggsearch.index.whitening import WhiteningOptions
from vggsearch.local_features import from_store
from vggsearch.regions import part_vectors
from vggsearch.search import Match, Searcher, containing, index_in_memory, open_index, ranked, searcher_with
from vggsearch.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryResult:
    """What was found for one picture. `query` is its path, "-" where it has none; most similar matches first."""

    query: str
    matches: tuple[Match, ...]


class PresentSearch:
    """The search over the last committed state of a store, kept while that is the state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._searcher: Searcher | None = None
        self._of: tuple[str, str | None] | None = None  # the state that it is of

    def close(self) -> None:
        """Let go of the memory-mapped files."""
        self._searcher = None

    def open(self) -> VectorIndex | None:
        """Return the search side if it belongs to the present state and can be opened, else None."""
        try:
            return open_index(self._store)
        except IndexDamaged as error:
            if not self._store.is_current:
                raise  # a writer has removed it: there is a newer state to read
            log.warning("%s The embeddings themselves are searched; vggsearch index renews it.", error)
            return None

    def searcher(self, whitening: WhiteningOptions | None = None) -> Searcher:
        """Return the search; with `whitening`, one made in memory, whitened anew as those options say."""
        self._store.refresh()
        if whitening is not None:
            return self._store.read_whole(lambda: searcher_with(self._store, whitening))
        if self._searcher is None or self._of != self._state:
            self._searcher = self._store.read_whole(self._read)
            self._of = self._state
        return self._searcher

    def kept_features(self, paths: Sequence[str]) -> dict[str, tuple[Levels, float]]:
        """Return the cells that are kept of some photos, and the photos' width over height, by path."""
        if not self._store.manifest.local:
            return {}
        try:
            return self._store.read_whole(lambda: self._read_features(set(paths)))
        except IndexDamaged as error:
            log.warning("%s Local features are made from the photos; vggsearch verify --repair drops these.", error)
            return {}

    @property
    def _state(self) -> tuple[str, str | None]:
        side = self._store.manifest.search
        return self._store.manifest.fingerprint, side.name if side is not None else None

    def _read(self) -> Searcher:
        """Return the search over one state; without a search side that belongs to it, from the parts."""
        index = self.open() or index_in_memory(self._store)
        return Searcher(self._store.paths(), index, self._store.blank_rows())

    def _read_features(self, paths: set[str]) -> dict[str, tuple[Levels, float]]:
        rows = {row: path for row, path in enumerate(self.searcher().paths) if path in paths}
        facts = self._store.facts_of(list(rows))
        found = self._store.local().find([sha256 for sha256, _, _ in facts])
        return {
            path: (from_store(features, self._store.spec.size), width / height)
            for path, (_, width, height), features in zip(rows.values(), facts, found, strict=True)
            if features is not None
        }


def most_like(
    picture: Image.Image,
    searcher: Searcher,
    aligner: Aligner,
    count: int,
    min_similarity: float | None,
    own_path: str | None,
) -> tuple[Match, ...]:
    """Return the photos most like a picture, the best ALIGN.candidates of them checked by geometry."""
    embeddings, views = aligner.of_query(picture)
    found = {match.path: match for match in searcher.nearest(embeddings[0], count, None, own_path)}
    candidates = searcher.candidates(embeddings, ALIGN.candidates)
    photos = aligner.of_photos([candidate.path for candidate in candidates])
    for candidate, alignment in zip(candidates, aligner.align(views, photos), strict=True):
        similarity = joined(candidate.upright, candidate.oriented, alignment)
        found[candidate.path] = Match(candidate.path, similarity, believed(alignment))
    return ranked(found.values(), count, min_similarity, own_path)


def photos_with(
    picture: Image.Image,
    store: Store,
    searcher: Searcher,
    aligner: Aligner,
    count: int,
    min_similarity: float | None,
    *,
    verify: bool,
) -> tuple[Match, ...]:
    """Return the photos that contain a picture: those with the most similar regions, which geometry may check."""
    embeddings, views = aligner.of_query(picture)
    parts = part_vectors([view.levels[1] for view in views])
    most = max(count, ALIGN.part_candidates)
    found = store.read_whole(lambda: containing(store, searcher, embeddings, parts, most))
    if not verify:
        return ranked(found, count, min_similarity)
    alignments = aligner.align(views, aligner.of_photos([match.path for match in found]))
    checked = [
        Match(match.path, joined(match.similarity, match.similarity, alignment), believed(alignment))
        for match, alignment in zip(found, alignments, strict=True)
    ]
    return ranked(checked, count, min_similarity)
