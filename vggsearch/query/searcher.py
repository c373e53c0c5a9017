"""Join the rows that the index finds with the paths that the store knows."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD, WHITENING
from vggsearch.errors import IndexDamaged, OptionError
from vggsearch.knn.build import Tell, build, change, in_memory, index_vectors, of_embeddings
from vggsearch.knn.files import read_index, without_whitening
from vggsearch.knn.recipes import AUTO, RECIPES, Plan, check_factory, finding_more, plan
from vggsearch.knn.tune import tune
from vggsearch.knn.vector_index import Selection, Tuning, VectorIndex
from vggsearch.knn.vectors import STEP
from vggsearch.knn.whitening import Whitening, WhiteningOptions, learn
from vggsearch.matching.feature_maps import Alignment
from vggsearch.store.manifest import BuildOptions, Part, SearchFacts, SearchSide, WhiteningFacts
from vggsearch.store.store import Store
from vggsearch.store.writer import StoreWriter

log = logging.getLogger(__name__)

SPARE = 16  # candidates beyond those asked for, so that ties at the end are settled by exact similarity
DECIMALS = 4  # of a similarity; float16 embeddings and bfloat16 networks do not hold a fifth


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that was found. `path` is relative to the photo folder.

    `similarity` is a cosine, at most 1.0; where geometry was asked and says where in the photo the query lies,
    that is `alignment`, and the similarity is raised by it. `index` is the directory of the index that it is in,
    where several were asked.
    """

    path: str
    similarity: float
    alignment: Alignment | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo for geometry to check: how similar to the query as it is, and in the orientation most like it."""

    row: int
    path: str
    upright: float
    oriented: float


@dataclass(frozen=True)
class Searcher:
    """The photos of one committed state: `paths` by row, and the index over the same rows.

    The `blank` rows, int64, are found only by the photo that they are: all black frames are alike.
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

        At most `count`, None for all, and none below `min_similarity`. `own_path` is the photo the query was made
        from, if it is one of these: it is always looked at, and comes before its exact copies. Only `wanted` photos
        are found, None for all.
        """
        vectors = self.index.searched(query[None])
        return self.nearest_to_vectors(vectors, count, min_similarity, [own_path], wanted)[0]

    def nearest_to_vectors(
        self,
        vectors: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None,
        own_paths: Sequence[str | None],
        wanted: Selection | None = None,
    ) -> list[tuple[Match, ...]]:
        """Do what `nearest` does for several queries: unit vectors (m, dim), as `VectorIndex.searched` gives.

        `own_paths` are the photos that they were made from, None for each that is none of these.
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
        """Return the photos most like any of some embeddings (m, dim), the first of which is the query as it is.

        At most `count` of those `wanted`, most similar first. Those of the query's own embedding are no candidates:
        the same picture cannot be found better.
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

    def itself(self, own_path: str | None, wanted: Selection | None = None) -> tuple[Match, ...]:
        """Return the photo that a blank query was made from, if it is one of these, and wanted."""
        return tuple(Match(self.paths[row], 1.0) for row in self._rows_of(own_path, wanted))

    def _among(self, wanted: Selection | None) -> Selection | None:
        """Return what is wanted and not blank."""
        if wanted is None:
            return self.index.without(self.blank)
        if not wanted.mask[self.blank].any():
            return wanted
        mask = wanted.mask.copy()
        mask[self.blank] = False
        return Selection(mask)

    def _rows_of(self, path: str | None, wanted: Selection | None) -> NDArray[np.int64]:
        """Return the row of a path: none where there is no such photo, or it is not wanted."""
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

    The most similar come first; of equals, the query's `own` photo, known by index and path, then by path.
    """
    rounded = [replace(match, similarity=round(match.similarity, DECIMALS)) for match in matches]
    rounded.sort(key=lambda match: (-match.similarity, (match.index, match.path) not in own, match.path))
    floor = -1.0 if min_similarity is None else min_similarity
    return tuple(match for match in rounded[:count] if match.similarity >= floor)


def searcher_with(store: Store, options: WhiteningOptions) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening learned as the options say."""
    learned = learn(store.embeddings(), store.spec.dim, len(store), store.blank_rows(), options)
    return searcher_under(store, learned[0] if learned is not None else None)


def searcher_under(store: Store, whitening: Whitening | None) -> Searcher:
    """Return the search over the store's present state, in memory, with a whitening or without one."""
    index = in_memory(store.embeddings(), len(store), store.spec.dim, whitening)
    return Searcher(store.paths(), index, store.blank_rows())


def open_index(store: Store) -> VectorIndex | None:
    """Return the search side, memory-mapped, if it belongs to the store's present state. Raises IndexDamaged."""
    directory, side = store.search_directory(), store.manifest.fresh_search
    if directory is None or side is None:
        return None
    opened = VectorIndex.open(directory, len(store), store.spec.dim, _tuning(side))
    opened.use_cards()
    return opened


def index_in_memory(store: Store) -> VectorIndex:
    """Return the index of the store's rows, with the whitening they have or, where it is time, a new one."""
    whitening, _ = _whitening(store)
    return in_memory(store.embeddings(), len(store), store.spec.dim, whitening)


def plan_build(store: Store, options: BuildOptions) -> Plan:
    """Return how the search side would be made. Raises OptionError where it cannot be, with the way out."""
    dim, rows = store.spec.dim, len(store)
    size = _expected_dim(store)
    if options.recipe not in (AUTO, *RECIPES):
        check_factory(size, options.recipe, options.metric)
    return _plan(rows, size, options, dim)


def renew_search_side(
    store: Store, writer: StoreWriter, tell: Tell | None = None, *, options: BuildOptions | None = None
) -> SearchSide:
    """Make the FAISS files of the store's present rows as its manifest wants them, and commit them.

    They are made from the last ones, if those are of the same recipe and not too old. With `options` they are made
    anew as those say, which the manifest then wants, too. Where the choice of auto finds too little when it is
    measured, the next recipe is made of the same vectors.
    """
    whitening, facts = _whitening(store)
    size = whitening.dim if whitening is not None else store.spec.dim
    plans = _possible_plans(store, size, options or store.manifest.build)
    last = _last(store, facts)
    told = tell or (lambda _what, _done, _total: None)

    def make(directory: Path) -> SearchFacts:
        def tuned(planned: Plan) -> Tuning:
            return tune(VectorIndex.open(directory, len(store), store.spec.dim), planned.recall, told)

        if last is not None and options is None and last.may_become(plans):
            change(directory, last.directory, last.index, last.kept, last.added(store, whitening),
                   last.added_rows, plans[0].shard_rows, told)  # fmt: skip
            return replace(last.facts, whitening=facts)
        vectors = of_embeddings(store.embeddings(), whitening)
        if last is not None:
            vectors = chain(last.kept_vectors(), last.added(store, whitening))
        build(directory, vectors, plans[0], whitening, told)
        made, tuning = plans[0], tuned(plans[0])
        for planned in plans[1:]:
            if _finds_enough(made, tuning):
                break
            log.warning("%s Now it is made as %s.", _too_little(made, tuning), planned.recipe)
            index_vectors(directory, planned, whitening, told)
            made, tuning = planned, tuned(planned)
        if not _finds_enough(made, tuning):
            log.warning(
                "%s flat finds all; ivf-sq8 finds more than ivf-pq, and that more than ivf-rabitq.",
                _too_little(made, tuning),
            )
        return SearchFacts(made.recipe, made.factory, made.lists, len(store), **vars(tuning), whitening=facts)

    return writer.set_search(make, options)


@dataclass(frozen=True)
class _Last:
    """The last search side, of an earlier state: where it is, its rows that live on, and the parts added since."""

    directory: Path
    index: VectorIndex
    facts: SearchFacts
    kept: NDArray[np.int64]
    parts: tuple[Part, ...]

    @property
    def added_rows(self) -> int:
        return sum(part.rows - len(part.dead) for part in self.parts)

    def added(self, store: Store, whitening: Whitening | None) -> Iterator[NDArray[np.float16]]:
        return of_embeddings(map(store.part_embeddings, self.parts), whitening)

    def kept_vectors(self) -> Iterator[NDArray[np.float16]]:
        slots = self.index.slots[self.kept]
        return (self.index.stored[slots[start : start + STEP]] for start in range(0, len(slots), STEP))

    def may_become(self, plans: Sequence[Plan]) -> bool:
        """Whether it serves once changed: of a recipe that is planned, not grown out of, not full of holes."""
        grown = plans[0].rows / max(1, self.facts.trained_rows)
        slots = len(self.index.stored) + self.added_rows
        return (
            not self.index.is_exact
            and self.facts.recipe in [planned.recipe for planned in plans]
            and 1 / BUILD.growth <= grown <= BUILD.growth
            and slots - plans[0].rows <= BUILD.dead_share * slots
        )


def _last(store: Store, whitening: WhiteningFacts | None) -> _Last | None:
    """Return the last search side if it can become the next: of the same whitening, known rows, whole files."""
    side, directory = store.manifest.search, store.stale_search_directory()
    if side is None or directory is None or side.whitening != whitening:
        return None
    lived = store.manifest.lived_on(side)
    if lived is None:
        return None
    try:
        for file in side.files:
            file.check(directory)  # what is damaged must not get a new hash that says it is whole
        rows = sum(made.rows - len(made.dead) for made in side.made_from)
        index = VectorIndex.open(directory, rows, store.spec.dim, _tuning(side))
    except IndexDamaged as error:
        log.warning("%s The search side is made anew.", error)
        return None
    return _Last(directory, index, side.facts, *lived)


def _possible_plans(store: Store, dim: int, options: BuildOptions) -> list[Plan]:
    """Return the plan that is wanted, or the nearest that the photos there are allow; then what auto goes on to."""
    rows, before = len(store), store.spec.dim
    try:
        planned = _plan(rows, dim, options, before)
    except OptionError as error:
        nearest = _plan(rows, dim, replace(options, recipe=AUTO, memory=sys.maxsize), before)
        log.warning("%s Now it is %s.", error, nearest.recipe)
        return [nearest]
    more = finding_more(planned, options.memory, before) if options.recipe == AUTO else None
    return [planned] if more is None else [planned, more]


def _plan(rows: int, dim: int, options: BuildOptions, embedding_dim: int) -> Plan:
    planned = plan(rows, dim, options.recipe, options.memory, options.recall, embedding_dim)
    return replace(planned, metric=options.metric)


def _finds_enough(planned: Plan, tuning: Tuning) -> bool:
    return tuning.recall is None or tuning.recall >= planned.recall


def _too_little(planned: Plan, tuning: Tuning) -> str:
    return f"{planned.recipe} finds {tuning.recall:.3f} of the ten nearest here, not {planned.recall:g}."


def _expected_dim(store: Store) -> int:
    """Return how many numbers a vector of the next search side has."""
    dim = store.spec.dim
    is_whitened = store.manifest.is_whitened and dim <= WHITENING.longest_vector
    if not is_whitened or len(store) - len(store.blank_rows()) < WHITENING.fewest_rows:
        return dim
    return min(WHITENING.dim, dim, len(store) - 1)


def _tuning(side: SearchFacts) -> Tuning:
    return Tuning(side.effort, side.candidates, side.recall, side.milliseconds)


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
                return without_whitening(read_index(directory))[1], facts
            except IndexDamaged as error:
                log.warning("%s The whitening is learned anew.", error)
    learned = learn(store.embeddings(), store.spec.dim, len(store), store.blank_rows())
    if learned is None:
        return None, None
    whitening, shrinkage = learned
    return whitening, WhiteningFacts(len(store), whitening.dim, shrinkage)
