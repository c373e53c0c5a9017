"""Build the FAISS index of the present rows of a store, and open it."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD, WHITENING
from vggsearch.errors import IndexDamaged, InstallationError, OptionError, Spelled
from vggsearch.knn.build import (
    Extended,
    add_segment,
    build,
    build_faiss_index,
    build_from_previous,
    build_in_memory,
    whitened_blocks,
)
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.files import (
    INDEX_FILE,
    VECTORS_FILE,
    WHITENING_FILE,
    read_index,
    read_whitening,
    segment_file,
    without_whitening,
)
from vggsearch.knn.recipes import AUTO, RECIPES, BuildPlan, check_factory, plan, plan_with_higher_recall
from vggsearch.knn.segments import kept_segments
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.knn.tune import tune
from vggsearch.knn.vector_index import Tuning, VectorIndex
from vggsearch.knn.vectors import BLOCK_ROWS
from vggsearch.knn.whitening import Whitening, learn
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.files import FileHash
from vggsearch.store.manifest import (
    ROLES,
    BuildOptions,
    Part,
    Role,
    StoredVectorIndex,
    VectorIndexInfo,
    WhiteningInfo,
)
from vggsearch.store.store import Store
from vggsearch.store.writer import StoreWriter, writing

log = logging.getLogger(__name__)

LEARN_AGAIN = Spelled(
    "What was learned from labels is lost: call index.learn(TRUTH) again.",
    "What was learned from labels is lost: run vggsearch learn TRUTH.tsv again.",
)


@dataclass(frozen=True)
class BuildReport:
    """The result of a build. `facts` include the measured recall and query time; `bytes` is the size on disk.

    >>> report = index.build(recipe="flat")
    >>> report.photos, report.facts.recipe
    (4, 'flat')
    """

    directory: Path
    photos: int
    facts: VectorIndexInfo
    bytes: int
    seconds: float


def open_vector_index(store: Store, role: Role = "search") -> VectorIndex | None:
    """Return a FAISS index, memory-mapped; None unless it matches the store's state. Raises IndexDamaged."""
    directory, side = store.vector_index_directory(role), store.manifest.fresh(role)
    if directory is None or side is None:
        return None
    opened = VectorIndex.open(directory, len(store), store.spec.dim, _tuning(side))
    opened.use_gpus()
    return opened


def index_in_memory(store: Store, role: Role = "search") -> VectorIndex:
    """Return a vector index of the store's rows in memory, with the present whitening or, if due, a new one.

    Raises IndexDamaged if a learned transform cannot be read.
    """
    whitening, _ = _whitening(store) if role == "search" else learned_transform(store)
    return build_in_memory(store.embeddings(), len(store), store.spec.dim, whitening)


def plan_build(store: Store, options: BuildOptions) -> BuildPlan:
    """Return how the FAISS index would be built. Raises OptionError, with a remedy, if it cannot be."""
    dim, rows = store.spec.dim, len(store)
    size = _expected_dim(store)
    if options.recipe not in (AUTO, *RECIPES):
        check_factory(size, options.recipe, options.metric)
    return _plan(rows, size, options, dim)


def build_options(
    store: Store, recipe: str | None, memory: int | None, recall: float | None, metric: str | None
) -> BuildOptions:
    """Return the options of a build; each that is None stays as in the last build.

    Raises OptionError for a recipe that FAISS cannot even be given as text.
    """
    last = store.manifest.build
    if not (recipe or last.recipe).isascii():
        raise OptionError(f"{recipe or last.recipe!r} is neither a recipe nor a FAISS factory string.")
    return BuildOptions(
        recipe=last.recipe if recipe is None else recipe,
        memory=last.memory if memory is None else memory,
        recall=last.recall if recall is None else recall,
        metric=last.metric if metric is None else metric,
    )


def rebuild(store: Store, wanted: Callable[[], BuildOptions], monitor: Monitor, tasks: Tasks = HERE) -> BuildReport:
    """Rebuild the FAISS index. `wanted` returns the options; it is called once no other process is writing.

    Raises OptionError before any work, IndexLocked, IndexNotWritable and Stopped.
    """
    started = time.monotonic()
    with writing(store) as writer:
        options = wanted()
        plan_build(store, options)
        made = build_vector_index(store, writer, monitor, options=options, tasks=tasks)
    size = sum(file.bytes for file in made.files)
    return BuildReport(store.directory, len(store), made.facts, size, time.monotonic() - started)


def renew_vector_index(store: Store, writer: StoreWriter, monitor: Monitor, tasks: Tasks = HERE) -> None:
    """Build the FAISS index, unless an intact one of the present rows exists.

    Raises InstallationError without FAISS; the embeddings are committed by then.
    """
    try:
        roles = [role for role in ROLES if role == "search" or store.manifest.stored(role) is not None]
        is_fresh = all(open_vector_index(store, role) is not None for role in roles)
    except IndexDamaged as error:
        log.warning("%s; the FAISS index is rebuilt.", error)
        is_fresh = False
    if is_fresh:
        return
    try:
        build_vector_index(store, writer, monitor, tasks=tasks)
    except InstallationError as error:
        stored = f"The embeddings of {len(store):,} photos are stored, but their FAISS index was not built: "
        raise InstallationError(stored, *error.parts) from error


def build_vector_index(
    store: Store,
    writer: StoreWriter,
    monitor: Monitor = SILENT,
    *,
    options: BuildOptions | None = None,
    tasks: Tasks = HERE,
) -> StoredVectorIndex:
    """Build the FAISS index of the store's present rows with the options in its manifest, and commit it.

    So is the one under a learned transform, if something was learned. The previous index is extended, if it has the
    same recipe and is not too old. With `options`, the index is rebuilt with these, and they are written to the
    manifest. If the recipe that auto chose has too low a measured recall, the next recipe is built from the same
    vectors. Of a recipe with inverted lists, `tasks` encode the vectors.
    """
    faiss()  # raises InstallationError before the work is done
    transform = _whitening(store)
    last = _last(store, transform[1], "search")
    made = _build(store, writer, monitor, options, "search", transform, last, tasks)
    if store.manifest.learned is not None:
        try:
            learned = learned_transform(store)
        except IndexDamaged as error:
            log.warning("%s", error)
            writer.forget_learned()
        else:
            last = _last(store, learned[1], "learned")
            _build(store, writer, monitor, options, "learned", learned, last, tasks)
    return made


def learned_transform(store: Store) -> tuple[Whitening, WhiteningInfo]:
    """Return the transform that was learned from labels. Raises IndexDamaged if there is none that is intact."""
    side, directory = store.manifest.learned, store.last_vector_index_directory("learned")
    if side is None or directory is None or side.whitening is None:
        raise IndexDamaged(store.directory, "holds nothing that was learned", LEARN_AGAIN)
    try:
        transform = _stored_transform(side, directory)
    except IndexDamaged as error:
        raise IndexDamaged(error.file, error.problem, LEARN_AGAIN) from error
    if transform is None:
        raise IndexDamaged(directory / INDEX_FILE, "holds no transform", LEARN_AGAIN)
    return transform, side.whitening


def _stored_transform(side: StoredVectorIndex, directory: Path) -> Whitening | None:
    """Return the transform in a FAISS index. Raises IndexDamaged, since FAISS reads damaged numbers as they are."""
    files = {file.name: file for file in side.files}
    if WHITENING_FILE in files:
        files[WHITENING_FILE].check(directory)
        return read_whitening(directory)
    if INDEX_FILE in files:
        files[INDEX_FILE].check(directory)
    return without_whitening(read_index(directory))[1]


def set_learned(store: Store, transform: Whitening, facts: WhiteningInfo, monitor: Monitor) -> None:
    """Have queries search under a transform that was learned from labels, until `forget_learned`.

    Raises IndexLocked, IndexNotWritable and Stopped; what was learned before then stays.
    """
    with writing(store) as writer:
        _build(store, writer, monitor, store.manifest.build, "learned", (transform, facts), last=None)


def _build(
    store: Store,
    writer: StoreWriter,
    monitor: Monitor,
    options: BuildOptions | None,
    role: Role,
    transform: tuple[Whitening | None, WhiteningInfo | None],
    last: "_LastVectorIndex | None",
    tasks: Tasks = HERE,
) -> StoredVectorIndex:
    """Build the FAISS index of a role, from the `last` one as far as that has the same rows and transform."""
    whitening, facts = transform
    size = whitening.dim if whitening is not None else store.spec.dim
    plans = [_divided(each, tasks) for each in _possible_plans(store, size, options or store.manifest.build)]
    shared = last.shared(plans) if last is not None and options is None else 0
    if last is not None and not last.is_intact(shared):
        last, shared = None, 0

    is_extended = shared > 0 or (
        last is not None and options is None and last.is_reusable(plans) and not last.index.is_exact
    )

    def make(directory: Path) -> VectorIndexInfo:
        if last is not None and is_extended:
            extended = last.extended(store, whitening)
            if shared:
                add_segment(directory, extended, shared, plans[0].shard_rows, monitor, tasks)
            else:
                build_from_previous(directory, extended, plans[0].shard_rows, monitor, tasks)
            return replace(last.stored.facts, whitening=facts)
        vectors = whitened_blocks(store.embeddings(), whitening)
        if last is not None:
            vectors = chain(last.kept_vectors(), last.added(store, whitening))
        made, tuning = _built(directory, store, vectors, plans, whitening, monitor, tasks)
        return VectorIndexInfo(made.recipe, made.factory, made.lists, len(store), **vars(tuning), whitening=facts)

    taken = last.files_of(shared) if last is not None and shared else ()
    return writer.set_vector_index(make, options, role, taken)


def _built(
    directory: Path,
    store: Store,
    vectors: Iterable[NDArray[np.float16]],
    plans: Sequence[BuildPlan],
    whitening: Whitening | None,
    monitor: Monitor,
    tasks: Tasks,
) -> tuple[BuildPlan, Tuning]:
    """Build the first of the planned indexes that finds enough, else the last; return which, as it is tuned."""

    def tuned(planned: BuildPlan) -> Tuning:
        return tune(VectorIndex.open(directory, len(store), store.spec.dim), planned.recall, monitor)

    build(directory, vectors, plans[0], whitening, monitor, tasks)
    made, tuning = plans[0], tuned(plans[0])
    for planned in plans[1:]:
        if _finds_enough(made, tuning):
            break
        log.warning("%s Building %s instead.", _too_little(made, tuning), planned.recipe)
        build_faiss_index(directory, planned, whitening, monitor, tasks)
        made, tuning = planned, tuned(planned)
    if not _finds_enough(made, tuning):
        log.warning(
            "%s flat has a recall of 1; ivf-sq8 has a higher recall than ivf-pq, and ivf-pq than ivf-rabitq.",
            _too_little(made, tuning),
        )
    return made, tuning


@dataclass(frozen=True)
class _LastVectorIndex:
    """The FAISS index of an earlier state: its directory, its rows that are still live, the parts added since."""

    directory: Path
    index: VectorIndex
    stored: StoredVectorIndex
    kept: NDArray[np.int64]
    parts: tuple[Part, ...]

    @property
    def added_rows(self) -> int:
        return sum(part.rows - len(part.dead) for part in self.parts)

    def extended(self, store: Store, whitening: Whitening | None) -> Extended:
        """Return what it is extended to."""
        return Extended(self.directory, self.index, self.kept, self.added(store, whitening), self.added_rows)

    def added(self, store: Store, whitening: Whitening | None) -> Iterator[NDArray[np.float16]]:
        return whitened_blocks(map(store.part_embeddings, self.parts), whitening)

    def kept_vectors(self) -> Iterator[NDArray[np.float16]]:
        slots = self.index.slots[self.kept]
        return (self.index.stored[slots[start : start + BLOCK_ROWS]] for start in range(0, len(slots), BLOCK_ROWS))

    def is_reusable(self, plans: Sequence[BuildPlan]) -> bool:
        """Whether it can be extended: its recipe is planned, its size still fits, and few of its slots are dead."""
        grown = plans[0].rows / max(1, self.stored.trained_rows)
        slots = len(self.index.stored) + self.added_rows
        return (
            self.stored.recipe in [planned.recipe for planned in plans]
            and 1 / BUILD.growth <= grown <= BUILD.growth
            and slots - plans[0].rows <= BUILD.dead_share * slots
        )

    def shared(self, plans: Sequence[BuildPlan]) -> int:
        """Return how many of the first segments the next vector index shares, 0 if all is written anew."""
        if not self.is_reusable(plans):
            return 0
        sizes = [len(segment) for segment in self.index.segments]
        has_lists = self.index.lists > 0
        return kept_segments(sizes, self.added_rows, has_lists=has_lists, is_exact=self.index.is_exact)

    def files_of(self, shared: int) -> tuple[FileHash, ...]:
        """Return the files of the first `shared` segments, which stay as they are, and of the whitening."""
        names = {segment_file(name, each) for name in (INDEX_FILE, VECTORS_FILE) for each in range(shared)}
        return tuple(file for file in self.stored.files if file.name in {*names, WHITENING_FILE})

    def is_intact(self, shared: int) -> bool:
        """Whether the files are intact: by their hash, but those that are shared, which keep it, by their size.

        A damaged file that is read must not lead to a new one with a valid hash.
        """
        taken = self.files_of(shared) if shared else ()
        try:
            for file in self.stored.files:
                check = file.check_size if file in taken else file.check
                check(self.directory)
        except IndexDamaged as error:
            log.warning("%s; the FAISS index is rebuilt.", error)
            return False
        return True


def _last(store: Store, whitening: WhiteningInfo | None, role: Role) -> _LastVectorIndex | None:
    """Return the previous FAISS index if it can be extended: same whitening, known rows, intact files."""
    side, directory = store.manifest.stored(role), store.last_vector_index_directory(role)
    if side is None or directory is None or side.whitening != whitening:
        return None
    lived = store.manifest.surviving_rows(side)
    if lived is None:
        return None
    try:
        rows = sum(made.rows - len(made.dead) for made in side.made_from)
        index = VectorIndex.open(directory, rows, store.spec.dim, _tuning(side))
    except IndexDamaged as error:
        log.warning("%s; the FAISS index is rebuilt.", error)
        return None
    return _LastVectorIndex(directory, index, side, *lived)


def _possible_plans(store: Store, dim: int, options: BuildOptions) -> list[BuildPlan]:
    """Return the wanted plan, or the nearest one possible with these photos; then the fallback of auto."""
    rows, before = len(store), store.spec.dim
    try:
        planned = _plan(rows, dim, options, before)
    except OptionError as error:
        nearest = _plan(rows, dim, replace(options, recipe=AUTO, memory=sys.maxsize), before)
        log.warning("%s Building %s instead.", error, nearest.recipe)
        return [nearest]
    more = plan_with_higher_recall(planned, options.memory, before) if options.recipe == AUTO else None
    return [planned] if more is None else [planned, more]


def _divided(planned: BuildPlan, tasks: Tasks) -> BuildPlan:
    """Return the plan with shards that are as small as the tasks want them, if its vectors are in lists."""
    if planned.recipe not in RECIPES or not planned.lists:
        return planned
    return replace(planned, shard_rows=min(planned.shard_rows, tasks.share(planned.rows)))


def _plan(rows: int, dim: int, options: BuildOptions, embedding_dim: int) -> BuildPlan:
    planned = plan(rows, dim, options.recipe, options.memory, options.recall, embedding_dim)
    return replace(planned, metric=options.metric)


def _finds_enough(planned: BuildPlan, tuning: Tuning) -> bool:
    return tuning.recall is None or tuning.recall >= planned.recall


def _too_little(planned: BuildPlan, tuning: Tuning) -> str:
    return f"{planned.recipe} finds {tuning.recall:.3f} of the ten nearest here, not {planned.recall:g}."


def _expected_dim(store: Store) -> int:
    """Return the number of dimensions of the vectors in the next FAISS index."""
    dim = store.spec.dim
    is_whitened = store.manifest.is_whitened and dim <= WHITENING.longest_vector
    if not is_whitened or len(store) - len(store.blank_rows()) < WHITENING.fewest_rows:
        return dim
    return min(WHITENING.dim, dim, len(store) - 1)


def _tuning(side: VectorIndexInfo) -> Tuning:
    return Tuning(side.effort, side.candidates, side.recall, side.milliseconds)


def _whitening(store: Store) -> tuple[Whitening | None, WhiteningInfo | None]:
    """Return the last whitening while the number of photos is about the same, so that similarities do not change.

    Otherwise, or if the last one cannot be read, learn a new one.
    """
    if not store.manifest.is_whitened:
        return None, None
    side, directory = store.manifest.search, store.last_vector_index_directory()
    if side is not None and directory is not None and (facts := side.whitening) is not None:
        grown = len(store) / facts.rows
        if 1 / WHITENING.growth <= grown <= WHITENING.growth:
            try:
                return _stored_transform(side, directory), facts
            except IndexDamaged as error:
                log.warning("%s; a new whitening is learned.", error)
    learned = learn(store.embeddings(), store.spec.dim, len(store), store.blank_rows())
    if learned is None:
        return None, None
    whitening, shrinkage = learned
    return whitening, WhiteningInfo(len(store), whitening.dim, shrinkage)
