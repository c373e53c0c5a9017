"""Queries: which photos may be found, and which are most like a picture, in one index or in several as in one."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.alignment import Aligner, believed, joined
from vggsearch.defaults import ALIGN, SEARCH
from vggsearch.errors import IndexDamaged, OptionError
from vggsearch.filters import Filter
from vggsearch.index.vector_index import VectorIndex
from vggsearch.index.vectors import unit_rows
from vggsearch.index.whitening import Whitening
from vggsearch.model.engine import Engine
from vggsearch.pictures import Box
from vggsearch.regions import part_vectors
from vggsearch.search import (
    Candidate,
    Match,
    Searcher,
    Wanted,
    check_has_local,
    containing,
    index_in_memory,
    open_index,
    ranked,
    searcher_under,
)
from vggsearch.store.store import Store

log = logging.getLogger(__name__)

LEAST_LEFT = 1e-3  # length of a vector from which others were subtracted; what is shorter is rounding


@dataclass(frozen=True)
class QueryResult:
    """What was found for one picture. `query` is its path, "-" where it has none; most similar matches first."""

    query: str
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class QueryOptions:
    """What is to be found, and how; see ImageIndex.query. Raises OptionError for a count below 1."""

    count: int | None = None
    min_similarity: float | None = None
    verify: bool = True
    crop: Box | None = None
    part: bool = False
    filters: tuple[Filter, ...] = ()
    exclude_same_folder: bool = False

    def __post_init__(self) -> None:
        """Check the count."""
        if self.count is not None and self.count < 1:
            raise OptionError(f"The count of photos to show must be at least 1, not {self.count}.")

    @property
    def most(self) -> int | None:
        """How many photos to show at most, None for all that are similar enough."""
        return SEARCH.count if self.count is None and self.min_similarity is None else self.count


@dataclass(frozen=True)
class Asked:
    """An index as one query sees it, in one committed state.

    `name` is told with each match where several indexes are asked, else None. `own_path` is the photo that the
    query is, if it is one of these. `aligner` gives what checks answers, None where there are no photos to look at.
    """

    name: str | None
    store: Store
    searcher: Searcher
    own_path: str | None
    wanted: Wanted
    aligner: Callable[[Engine], Aligner | None]

    def wanted_paths(self) -> set[str] | None:
        """Return the paths of the photos that may be found, None for all."""
        paths = self.searcher.paths
        return None if self.wanted is None else {paths[row] for row in np.flatnonzero(self.wanted)}

    def told(self, matches: Iterable[Match]) -> list[Match]:
        """Return matches with the name of the index."""
        return [replace(match, index=self.name) for match in matches] if self.name is not None else list(matches)


class PresentSearch:
    """The search over the last committed state of a store, kept while that is the state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._of: tuple[str, str | None] | None = None
        self.close()

    def close(self) -> None:
        """Let go of the memory-mapped files."""
        self._searcher: Searcher | None = None
        self._other: tuple[Whitening | None, Searcher] | None = None
        self._filtered: tuple[tuple[str, ...], NDArray[np.bool_]] | None = None

    def open(self) -> VectorIndex | None:
        """Return the search side if it belongs to the present state and can be opened, else None."""
        try:
            return open_index(self._store)
        except IndexDamaged as error:
            if not self._store.is_current:
                raise  # a writer has removed it: there is a newer state to read
            log.warning("%s The embeddings themselves are searched; vggsearch index renews it.", error)
            return None

    def searcher(self) -> Searcher:
        """Return the search over the last committed state."""
        self._store.refresh()
        return self._store.read_whole(self._read)

    def searcher_and_rows(
        self, filters: Sequence[Filter], ruler: Searcher | None = None
    ) -> tuple[Searcher, Wanted]:
        """Return the search over the last committed state, and which of its rows pass all filters.

        With `ruler`, similarities are those of that search's whitening: where this one's is another, the embeddings
        are whitened anew, in memory, which reads all of them once.
        """
        self._store.refresh()
        return self._store.read_whole(lambda: (self._ruled_by(ruler), self._rows(filters)))

    def _read(self) -> Searcher:
        side = self._store.manifest.search
        state = self._store.manifest.fingerprint, side.name if side is not None else None
        if self._searcher is None or self._of != state:
            self.close()
            index = self.open() or index_in_memory(self._store)
            self._searcher, self._of = Searcher(self._store.paths(), index, self._store.blank_rows()), state
        return self._searcher

    def _ruled_by(self, ruler: Searcher | None) -> Searcher:
        own = self._read()
        if ruler is None or _is_same(ruler.index.whitening, own.index.whitening):
            return own
        if self._other is None or self._other[0] is not ruler.index.whitening:
            self._other = ruler.index.whitening, searcher_under(self._store, ruler.index.whitening)
        return self._other[1]

    def _rows(self, filters: Sequence[Filter]) -> Wanted:
        if not filters:
            return None
        self._read()
        texts = tuple(each.text for each in filters)
        if self._filtered is None or self._filtered[0] != texts:
            self._filtered = texts, rows_passing(self._store, filters)
        return self._filtered[1]


def rows_passing(store: Store, filters: Sequence[Filter]) -> NDArray[np.bool_]:
    """Return which rows of a store pass all of some filters, bool (rows,). Where none does, that is logged."""
    rows = len(store)
    masks = [
        np.fromiter((each.keeps(*values) for values in store.rows_of(*each.columns)), bool, rows)
        for each in filters
    ]
    passing: NDArray[np.bool_] = np.logical_and.reduce(masks)
    if not passing.any():
        counts = [f"{each.text!r} matches {mask.sum():,}" for each, mask in zip(filters, masks, strict=True)]
        log.warning("No photo of the %s in %s passes: %s.", f"{rows:,}", store.directory, ", ".join(counts))
    return passing


def outside(paths: Sequence[str], folders: Collection[str], wanted: Wanted) -> Wanted:
    """Return which photos lie directly in none of some folders, bool (rows,), of those that are wanted already."""
    mask = np.fromiter((folder_of(path) not in folders for path in paths), bool, len(paths))
    return mask if wanted is None else mask & wanted


def folder_of(path: str) -> str:
    """Return the folder that a photo lies in, "" for the photo folder itself."""
    return path.rpartition("/")[0]


def answer_blank(asked: Sequence[Asked]) -> tuple[Match, ...]:
    """Return what a blank picture finds: itself, where it is one of the photos."""
    return tuple(match for each in asked for match in each.told(each.searcher.itself(each.own_path, each.wanted)))


def answer(
    picture: Image.Image,
    embed: Callable[[], NDArray[np.float32]],
    asked: Sequence[Asked],
    engine: Engine,
    options: QueryOptions,
) -> tuple[Match, ...]:
    """Return the photos most like a picture, of all that are asked, most similar first; see ImageIndex.query.

    `embed` gives its embedding, float32 (dim,), where geometry has not made it already.
    """
    if options.part:
        return _best(_containing(picture, asked, engine, options), asked, options)
    aligners = [each.aligner(engine) if options.verify else None for each in asked]
    looking = next(filter(None, aligners), None)
    if looking is None:
        return _best(_nearest(embed(), asked, options), asked, options)
    embeddings, views = looking.of_query(picture)
    found = {(match.index, match.path): match for match in _nearest(embeddings[0], asked, options)}
    for each, aligner, candidates in _candidates(embeddings, asked, aligners):
        alignments = aligner.align(views, aligner.of_photos([candidate.path for candidate in candidates]))
        for candidate, alignment in zip(candidates, alignments, strict=True):
            similarity = joined(candidate.upright, candidate.oriented, alignment)
            match = Match(candidate.path, similarity, believed(alignment), each.name)
            found[match.index, match.path] = match
    return _best(found.values(), asked, options)


def answer_combined(
    added: NDArray[np.float32], subtracted: NDArray[np.float32], asked: Sequence[Asked], options: QueryOptions
) -> tuple[Match, ...]:
    """Return the photos most like several pictures at once, and unlike others: embeddings (m, dim) and (n, dim).

    The query is the mean of the first, of unit length, less each of the second. All are taken as the index searches
    them: whitened, what most photos share is gone from them already, and subtracting takes away only what the
    picture adds. Raises OptionError where nothing is left.
    """
    found = []
    for each in asked:
        vector = _combined(each.searcher.index.searched(added), each.searcher.index.searched(subtracted))
        floor = options.min_similarity
        found += each.told(each.searcher.nearest_to_vector(vector, options.most, floor, wanted=each.wanted))
    return _best(found, asked, options)


def _combined(added: NDArray[np.float32], subtracted: NDArray[np.float32]) -> NDArray[np.float32]:
    left = unit_rows(added.mean(axis=0, keepdims=True)) - subtracted.sum(axis=0)
    if np.linalg.norm(left) < LEAST_LEFT:
        raise OptionError("Nothing is left of the query: what is subtracted is what it consists of.")
    combined: NDArray[np.float32] = unit_rows(left)[0]
    return combined


def _nearest(embedding: NDArray[np.float32], asked: Sequence[Asked], options: QueryOptions) -> list[Match]:
    """Return those of each index by similarity alone, among which the best of all are.

    Where there is a count, none is left out for being too little similar: geometry may still raise it.
    """
    floor = options.min_similarity if options.most is None else None
    return [
        match
        for each in asked
        for match in each.told(each.searcher.nearest(embedding, options.most, floor, each.own_path, each.wanted))
    ]


def _candidates(
    embeddings: NDArray[np.float32], asked: Sequence[Asked], aligners: Sequence[Aligner | None]
) -> list[tuple[Asked, Aligner, list[Candidate]]]:
    """Return the best candidates for geometry of all indexes together, apart by index."""
    found = [
        (candidate, place)
        for place, (each, aligner) in enumerate(zip(asked, aligners, strict=True))
        if aligner is not None
        for candidate in each.searcher.candidates(embeddings, ALIGN.candidates, each.wanted)
    ]
    found.sort(key=lambda candidate_place: -candidate_place[0].oriented)
    best = found[: ALIGN.candidates]
    return [
        (each, aligner, [candidate for candidate, at in best if at == place])
        for place, (each, aligner) in enumerate(zip(asked, aligners, strict=True))
        if aligner is not None
    ]


def _containing(picture: Image.Image, asked: Sequence[Asked], engine: Engine, options: QueryOptions) -> list[Match]:
    """Return the photos that contain a picture: those with the most similar regions, the best checked."""
    for each in asked:
        check_has_local(each.store)
    aligners = [(each, aligner) for each in asked if (aligner := each.aligner(engine)) is not None]
    _, views = aligners[0][1].of_query(picture)
    parts = part_vectors([view.levels[1] for view in views])
    most = options.most
    looked_at = max(most or 0, ALIGN.part_candidates)
    found: list[Match] = []
    for each, aligner in aligners:
        wanted = each.wanted_paths()
        matches = each.store.read_whole(
            lambda store=each.store, wanted=wanted: containing(  # type: ignore[misc]
                store, parts, None if most is None else looked_at, wanted
            )
        )
        alignments = aligner.align(views, aligner.of_photos([match.path for match in matches[:looked_at]]))
        found += [
            Match(match.path, joined(match.similarity, match.similarity, alignment), believed(alignment), each.name)
            for match, alignment in zip_longest(matches, alignments)
        ]
    return found


def _best(matches: Iterable[Match], asked: Sequence[Asked], options: QueryOptions) -> tuple[Match, ...]:
    own = {(each.name, each.own_path) for each in asked}
    return ranked(matches, options.most, options.min_similarity, own)


def _is_same(one: Whitening | None, other: Whitening | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or (np.array_equal(one.matrix, other.matrix) and np.array_equal(one.bias, other.bias))
