"""Join the rows that the index finds with the paths that the store knows."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD, WHITENING
from vggsearch.errors import IndexDamaged, OptionError
from vggsearch.geometry import Alignment
from vggsearch.index.build import Tell, build, change, in_memory, of_embeddings
from vggsearch.index.files import read_index, without_whitening
from vggsearch.index.recipes import AUTO, RECIPES, Plan, check_factory, plan
from vggsearch.index.tune import tune
from vggsearch.index.vector_index import Selection, Tuning, VectorIndex
from vggsearch.index.vectors import STEP
from vggsearch.index.whitening import Whitening, WhiteningOptions, learn
from vggsearch.regions import best_regions
from vggsearch.store.manifest import BuildOptions, Part, SearchFacts, SearchSide, WhiteningFacts
from vggsearch.store.store import Store, StoreWriter

log = logging.getLogger(__name__)

SPARE = 16  # candidates beyond those asked for, so that ties at the end are settled by exact similarity
DECIMALS = 4  # of a similarity; float16 embeddings and bfloat16 networks do not hold a fifth

Wanted = NDArray[np.bool_] | None  # which rows may be found, bool (rows,); None for all


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

    path: str
    upright: float
    oriented: float


@dataclass(frozen=True)
class Searcher:
    """The photos of one committed state: `paths` by row, and the index over the same rows.

    The `blank` rows, int64, are found only by the photo that they are: all black frames are alike.
    """

    paths: list[str]
    index: VectorIndex
    blank: NDArray[np.int64]

    def nearest(
        self,
        query: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None = None,
        own_path: str | None = None,
        wanted: Wanted = None,
    ) -> tuple[Match, ...]:
        """Return the matches of one query, a float32 unit vector (dim,): most similar first, then by path.

        At most `count`, None for all, and none below `min_similarity`. `own_path` is the photo the query was made
        from, if it is one of these: it is always looked at, and comes before its exact copies. Only `wanted` rows
        are found.
        """
        vector = self.index.searched(query[None])[0]
        return self.nearest_to_vector(vector, count, min_similarity, own_path, wanted)

    def nearest_to_vector(
        self,
        vector: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None = None,
        own_path: str | None = None,
        wanted: Wanted = None,
    ) -> tuple[Match, ...]:
        """Do what `nearest` does, for a unit vector of the index itself, as its `searched` gives them."""
        among = self._among(wanted)
        if count is None:
            floor = -1.0 if min_similarity is None else min_similarity - 10**-DECIMALS  # it may be rounded up
            rows, _ = self.index.above_vector(vector, floor, among)
        else:
            rows = self.index.nearest_vectors(vector[None], count + SPARE, among)[0][0]
        rows = np.union1d(rows, self._rows_of(own_path, wanted))
        exact = np.minimum(self.index.unit_vectors(rows) @ vector, 1.0)
        matches = [Match(self.paths[row], float(value)) for row, value in zip(rows, exact, strict=True)]
        return ranked(matches, count, min_similarity, {(None, own_path)})

    def candidates(self, queries: NDArray[np.float32], count: int, wanted: Wanted = None) -> list[Candidate]:
        """Return the photos most like any of some embeddings (m, dim), the first of which is the query as it is.

        At most `count`, most similar first, of the `wanted` rows. Those of the query's own embedding are no
        candidates: the same picture cannot be found better.
        """
        found, _ = self.index.nearest(queries, count, self._among(wanted))
        rows = np.unique(found)
        exact = np.minimum(np.stack([self.index.similarities(query, rows) for query in queries]), 1.0)
        order = np.lexsort((rows, -exact.max(axis=0)))
        is_same = np.round(exact[0], DECIMALS) >= 1
        best = [place for place in order if not is_same[place]][:count]
        return [Candidate(self.paths[rows[at]], float(exact[0, at]), float(exact[:, at].max())) for at in best]

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

    def itself(self, own_path: str | None, wanted: Wanted = None) -> tuple[Match, ...]:
        """Return the photo that a blank query was made from, if it is one of these, and wanted."""
        return tuple(Match(self.paths[row], 1.0) for row in self._rows_of(own_path, wanted))

    def _among(self, wanted: Wanted) -> Selection | None:
        if wanted is None:
            return self.index.without(self.blank)
        mask = wanted.copy()
        mask[self.blank] = False
        return Selection(mask)

    def _rows_of(self, path: str | None, wanted: Wanted) -> NDArray[np.int64]:
        """Return the row of a path, no row where there is none or it is not wanted."""
        rows = np.array([self.paths.index(path)] if path is not None and path in self.paths else [], np.int64)
        return rows if wanted is None else rows[wanted[rows]]


def containing(
    store: Store, parts: NDArray[np.float32], count: int | None, wanted: Collection[str] | None = None
) -> list[Match]:
    """Return the photos with a region most like any of some part vectors (m, d), most similar first.

    At most `count` of different content, None for all; only of `wanted` paths, None for all. Raises OptionError
    where no local features are kept.
    """
    check_has_local(store)
    paths = _paths_by_content(store, wanted)
    best: dict[str, float] = {}
    for keys, regions in store.local().regions():
        similarities = best_regions(parts, regions)
        order = (row for row in np.argsort(-similarities).tolist() if keys[row] in paths)
        best |= {keys[row]: float(similarities[row]) for row in islice(order, count)}
    chosen = sorted(best, key=lambda key: (-best[key], key))[:count]
    return [Match(path, min(best[key], 1.0)) for key in chosen for path in paths[key]]


def check_has_local(store: Store) -> None:
    """Raise OptionError where no local features are kept."""
    if not store.manifest.local:
        raise OptionError(
            f"{store.directory} keeps no local features, by which parts are found. Make them: "
            "vggsearch index PHOTOS --local-features"
        )


def _paths_by_content(store: Store, wanted: Collection[str] | None) -> dict[str, list[str]]:
    """Return the paths of the wanted photos, by sha256."""
    found: dict[str, list[str]] = {}
    for path, sha256 in store.rows_of("path", "sha256"):
        if wanted is None or path in wanted:
            found.setdefault(sha256, []).append(path)
    return found


def ranked(
    matches: Iterable[Match],
    count: int | None,
    min_similarity: float | None = None,
    own: Collection[tuple[str | None, str | None]] = (),
) -> tuple[Match, ...]:
    """Return at most `count` matches, None for all, none below `min_similarity`, similarities rounded to DECIMALS.

    The most similar come first; of equals, the query's `own` photo, by index and path, then by path.
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
    return VectorIndex.open(directory, len(store), store.spec.dim, _tuning(side))


def index_in_memory(store: Store) -> VectorIndex:
    """Return the index of the store's rows, with the whitening they have or, where it is time, a new one."""
    whitening, _ = _whitening(store)
    return in_memory(store.embeddings(), len(store), store.spec.dim, whitening)


def plan_build(store: Store, options: BuildOptions) -> Plan:
    """Return how the search side would be made. Raises OptionError where it cannot be, with the way out."""
    dim, rows = store.spec.dim, len(store)
    size = _expected_dim(store)
    if options.recipe not in (AUTO, *RECIPES):
        check_factory(size, options.recipe)
    return plan(rows, size, options.recipe, options.memory, options.recall, dim)


def renew_search_side(
    store: Store, writer: StoreWriter, tell: Tell | None = None, *, options: BuildOptions | None = None
) -> SearchSide:
    """Make the FAISS files of the store's present rows as its manifest wants them, and commit them.

    They are made from the last ones, if those are of the same recipe and not too old. With `options` they are made
    anew as those say, which the manifest then wants, too.
    """
    whitening, facts = _whitening(store)
    size = whitening.dim if whitening is not None else store.spec.dim
    planned = _possible_plan(store, size, options or store.manifest.build)
    last = _last(store, facts)
    told = tell or (lambda _what, _done, _total: None)

    def make(directory: Path) -> SearchFacts:
        if last is not None and options is None and last.may_become(planned):
            change(directory, last.directory, last.index, last.kept, last.added(store, whitening),
                   last.added_rows, told)  # fmt: skip
            return replace(last.facts, whitening=facts)
        vectors = of_embeddings(store.embeddings(), whitening)
        if last is not None:
            vectors = chain(last.kept_vectors(), last.added(store, whitening))
        build(directory, vectors, planned, whitening, told)
        tuning = tune(VectorIndex.open(directory, len(store), store.spec.dim), planned.recall, told)
        if tuning.recall is not None and tuning.recall < planned.recall:
            log.warning(
                "%s finds %.3f of the ten nearest here, not %g. ivf-sq8 finds more than ivf-rabitq; flat, all.",
                planned.recipe, tuning.recall, planned.recall,
            )  # fmt: skip
        return SearchFacts(
            planned.recipe, planned.factory, planned.lists, len(store), **vars(tuning), whitening=facts
        )

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

    def may_become(self, planned: Plan) -> bool:
        """Whether it serves once changed: of the same recipe, not grown out of, not full of holes."""
        grown = planned.rows / max(1, self.facts.trained_rows)
        slots = len(self.index.stored) + self.added_rows
        return (
            not self.index.is_exact
            and self.facts.recipe == planned.recipe
            and 1 / BUILD.growth <= grown <= BUILD.growth
            and slots - planned.rows <= BUILD.dead_share * slots
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


def _possible_plan(store: Store, dim: int, options: BuildOptions) -> Plan:
    """Return the plan that is wanted or, where the photos there are do not allow it, the nearest."""
    rows = len(store)
    try:
        return plan(rows, dim, options.recipe, options.memory, options.recall, store.spec.dim)
    except OptionError as error:
        nearest = plan(rows, dim, AUTO, sys.maxsize, options.recall, store.spec.dim)
        log.warning("%s Now it is %s.", error, nearest.recipe)
        return nearest


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
