"""The recipes for a FAISS index, what each costs and supports, and which one a collection gets by default."""

import math
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vggsearch.defaults import BUILD, METRICS
from vggsearch.errors import OptionError, Spelled, option
from vggsearch.knn.faiss_import import FaissIndex, failure_reason, faiss
from vggsearch.knn.vectors import unit_rows
from vggsearch.system.units import decimal

AUTO = "auto"
ID_BYTES = 8  # of the id that an inverted list stores with each code
PROBE_ROWS = 10_000  # for trying a factory string: FAISS needs about so many to learn the 256 centroids of a PQ


@dataclass(frozen=True)
class Recipe:
    """One kind of FAISS index.

    `factory` is its FAISS factory string, in which {lists} stands for the number of inverted lists and {groups} for
    the number of groups of dimensions that share a code. `code_bytes` returns the bytes per vector for a number of
    dimensions, `centroids` is the number of centroids learned per group, and list lengths are padded to a multiple
    of `block` vectors. `can_remove`: vectors can be removed from the index itself; `can_merge`: two indexes can be
    merged; `has_range`: supports FAISS's range search; `can_map`: can be opened memory-mapped; `on_gpu`: FAISS
    supports it on a GPU.
    """

    name: str
    description: str
    factory: str
    code_bytes: Callable[[int], float]
    centroids: int = 0
    block: int = 1
    is_exact: bool = False
    can_remove: bool = True
    can_merge: bool = True
    has_range: bool = True
    can_map: bool = True
    on_gpu: bool = True

    @property
    def has_lists(self) -> bool:
        """Whether it divides the vectors into inverted lists, whose centroids are learned."""
        return "{lists}" in self.factory

    def string(self, lists: int, dim: int) -> str:
        """Return the FAISS factory string for vectors of `dim` dimensions in `lists` lists."""
        return self.factory.format(lists=lists, groups=_groups(dim))


def _groups(dim: int) -> int:
    """Return the number of groups of ivf-pq: one per two dimensions, or per dimension if `dim` is odd."""
    return dim if dim % 2 else dim // 2


# After flat, auto takes the first of these that fits. The second has a higher recall, the third needs least memory.
AUTO_ORDER = ("ivf-pq", "ivf-sq8", "ivf-rabitq")
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("flat", "exact search over all vectors", "Flat", lambda dim: 4 * dim, is_exact=True),
        Recipe("ivf-flat", "inverted lists, float32", "IVF{lists},Flat", lambda dim: 4 * dim + ID_BYTES),
        Recipe(
            "ivf-pq",
            "inverted lists, 4 bits per 2 dimensions",
            "IVF{lists},PQ{groups}x4fs",
            lambda dim: math.ceil(_groups(dim) / 2) + ID_BYTES,
            centroids=16,
            block=32,
            can_remove=False,  # FAISS does not fail, but its recall drops afterwards
            can_map=False,  # FAISS reads its blocks of codes into memory
            on_gpu=False,
        ),
        Recipe("ivf-sq8", "inverted lists, 8 bits per dimension", "IVF{lists},SQ8", lambda dim: dim + ID_BYTES),
        Recipe(
            "ivf-rabitq",
            "inverted lists, 1 bit per dimension",
            "IVF{lists},RaBitQ",
            lambda dim: math.ceil(dim / 8) + 8 + ID_BYTES,
            has_range=False,  # FAISS returns wrong rows without an error
            on_gpu=False,
        ),
        Recipe(
            "hnsw",
            "neighbour graph, float32",
            "HNSW32",
            lambda dim: 4 * dim + 2 * 32 * 4 + 16,
            can_remove=False,
            can_merge=False,
            on_gpu=False,
        ),
    )
}


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do.

    `recipe` is a key of RECIPES or a FAISS factory string; `factory` is the factory string. `bytes` is the size of
    the FAISS index, in memory while it is built and on disk; `vector_bytes` is the size of the float16 vectors,
    which are only memory-mapped. `training_rows` vectors are used to learn the centroids of the lists. If
    `shard_rows` is less than `rows`, the lists are built from so many vectors at a time, merged on disk and
    memory-mapped from there, so that they are never in memory as a whole. `embedding_dim` is the number of
    dimensions before whitening. `metric` is a key of METRICS.

    >>> plan = index.plan_build(recipe="hnsw", memory=10**9)
    >>> plan.recipe, plan.rows
    ('hnsw', 4)
    """

    recipe: str
    factory: str
    rows: int
    dim: int
    lists: int
    training_rows: int
    bytes: int
    vector_bytes: int
    embedding_dim: int
    recall: float
    shard_rows: int
    metric: str = BUILD.metric

    @cached_property
    def seconds(self) -> float:
        """An estimate of the duration of the build on this machine, whose speed is measured for it once."""
        sample = min(self.rows, BUILD.training_points * self.lists)
        vectors = self.rows * self.dim
        whitening = self.rows * self.embedding_dim * self.dim if self.embedding_dim != self.dim else 0
        training = sample * self.lists * self.dim * BUILD.rounds
        tuning = vectors * BUILD.tuning_queries * 2  # the exact search, and the searches with rising effort
        is_graph = "HNSW" in self.factory and not self.lists
        graph = vectors * math.log2(max(self.rows, 2)) * BUILD.graph_work if is_graph else 0
        reading = self.rows * self.embedding_dim * 2 / BUILD.bytes_per_s
        return (whitening + training + vectors * self.lists + tuning + graph) / _multiply_adds_per_s() + reading

    @property
    def memory(self) -> int:
        """The bytes of memory for the build: those of the index or of the training vectors, whichever is more."""
        return max(self.held_bytes, self.training_rows * self.dim * 4)

    @property
    def held_bytes(self) -> int:
        """The bytes of the index in memory during the build; FAISS allocates up to twice the size of a shard."""
        if self.shard_rows >= self.rows:
            return self.bytes
        return self.centroid_bytes + 2 * self.shard_rows * (self.bytes - self.centroid_bytes) // self.rows

    @property
    def centroid_bytes(self) -> int:
        """The bytes of the centroids of the lists."""
        return self.lists * self.dim * 4

    def within(self, memory: int) -> "BuildPlan":
        """Return the plan with shards that fit in `memory`, or with the smallest allowed shards if none fit."""
        row_bytes = 2 * (self.bytes - self.centroid_bytes) / max(1, self.rows)
        rows = int((memory - self.centroid_bytes) / max(row_bytes, 1))
        return replace(self, shard_rows=min(self.rows, max(rows, BUILD.block_rows)))


def plan(
    rows: int, dim: int, recipe: str, memory: int, recall: float, embedding_dim: int | None = None
) -> BuildPlan:
    """Plan an index of `rows` vectors of `dim` dimensions, built in `memory` bytes, with a recall@10 of `recall`.

    `recipe` is "auto", a key of RECIPES or a FAISS factory string. `embedding_dim` is the number of dimensions
    before whitening. Raises OptionError if that is impossible, with the closest possible options.
    """
    if not 0 < recall <= 1:
        raise OptionError(option("recall", recall), " is out of range: it must be above 0 and at most 1.")
    before = embedding_dim or dim
    if recipe == AUTO:
        return _automatic(rows, dim, memory, recall, before)
    planned = _plan(rows, dim, recipe, recall, before)
    _check_recall(planned)
    _check_training(planned, memory)
    if planned.bytes > memory and _can_be_split(planned):
        planned = planned.within(memory)
    if planned.memory > memory:
        others = _approximate_plans(rows, dim, recall, before)
        fitting = next((other.recipe for other in others if other.memory <= memory), None)
        alternative = (" or ", option("recipe", fitting)) if fitting else ()
        raise OptionError(
            f"{_requirement(planned)}, more than {decimal(memory)}. Pass ",
            _memory_option(planned.memory),
            *alternative,
            ".",
        )
    return planned


def plan_with_higher_recall(planned: BuildPlan, memory: int, embedding_dim: int) -> BuildPlan | None:
    """Return the next choice of auto if the recall of `planned`, its first, is too low; None if none fits."""
    if planned.recipe != AUTO_ORDER[0]:
        return None
    better = _plan(planned.rows, planned.dim, AUTO_ORDER[1], planned.recall, embedding_dim)
    return better if better.memory <= memory else None


def _automatic(rows: int, dim: int, memory: int, recall: float, embedding_dim: int) -> BuildPlan:
    """Return the first plan that fits: flat while exact search is fast or `recall` is 1, then inverted lists."""
    plans = [] if rows > BUILD.most_flat_rows and recall < 1 else [_plan(rows, dim, "flat", recall, embedding_dim)]
    if recall < 1:
        approximate = _approximate_plans(rows, dim, recall, embedding_dim)
        plans += [*approximate, *(planned.within(memory) for planned in approximate if _can_be_split(planned))]
    for planned in plans:
        if planned.memory <= memory:
            return planned
    least = min(plans, key=lambda planned: planned.memory)
    hint = "" if recall < 1 else " A recall below 1 needs less memory."
    raise OptionError(
        f"{_requirement(least)}, more than {decimal(memory)}. Pass ", _memory_option(least.memory), f".{hint}"
    )


def _approximate_plans(rows: int, dim: int, recall: float, embedding_dim: int) -> list[BuildPlan]:
    """Return the plans of AUTO_ORDER for which there are enough rows to train on."""
    plans = [_plan(rows, dim, name, recall, embedding_dim) for name in AUTO_ORDER]
    return [planned for planned in plans if rows >= _fewest_rows(planned)]


def _can_be_split(planned: BuildPlan) -> bool:
    """Return whether its lists can be merged from shards and memory-mapped."""
    return bool(planned.lists) and planned.recipe in RECIPES and RECIPES[planned.recipe].can_map


def _plan(rows: int, dim: int, recipe: str, recall: float, embedding_dim: int) -> BuildPlan:
    if recipe in RECIPES:
        known = RECIPES[recipe]
        lists = _lists(rows) if known.has_lists else 0
        factory, code_bytes, trained = known.string(lists, dim), known.code_bytes(dim), max(lists, known.centroids)
        block = known.block
    else:
        index = make_index(dim, recipe)
        lists, code_bytes, block = list_count(index), _code_bytes(index), _block(index)
        factory, trained = recipe, max(lists, 0 if index.is_trained else 256)
    return BuildPlan(
        recipe=recipe,
        factory=factory,
        rows=rows,
        dim=dim,
        lists=lists,
        training_rows=min(rows, BUILD.training_points * trained),
        bytes=round(rows * code_bytes + lists * (dim * 4 + (block - 1) / 2 * (code_bytes - ID_BYTES))),
        vector_bytes=rows * dim * 2,
        embedding_dim=embedding_dim,
        recall=recall,
        shard_rows=rows,
    )


def _lists(rows: int) -> int:
    """Return the number of lists for so many rows: a power of two, and few enough to learn from them."""
    limit = min(BUILD.lists_of_root * math.sqrt(rows), rows / BUILD.fewest_points)
    return 1 << int(math.log2(max(limit, 1)))


def _check_recall(planned: BuildPlan) -> None:
    if planned.recall == 1 and planned.recipe != "flat":
        raise OptionError(
            "A recall of 1 needs ",
            option("recipe", "flat"),
            f"; for {planned.recipe} pass at most ",
            option("recall", 0.999),
            ".",
        )


def _check_training(planned: BuildPlan, memory: int) -> None:
    """Raise OptionError if there are too few rows to learn the lists from, or too little memory to do so."""
    if planned.lists == 0:
        return
    least = _fewest_rows(planned)
    if planned.rows < least:
        raise OptionError(
            f"{planned.factory} needs at least {least:,} photos to train on, but there are {planned.rows:,}. Use ",
            option("recipe", "flat"),
            f"{_fewer_lists(planned)}.",
        )
    sample = planned.training_rows * planned.dim * 4
    if sample > memory:
        raise OptionError(
            f"Training {planned.factory} needs {planned.training_rows:,} vectors in memory, {decimal(sample)}, "
            f"more than {decimal(memory)}. Pass ",
            _memory_option(sample),
            ".",
        )


def _fewest_rows(planned: BuildPlan) -> int:
    """Return the number of rows required to learn the lists and, for a recipe of the table, the codes."""
    centroids = RECIPES[planned.recipe].centroids if planned.recipe in RECIPES else 0
    return BUILD.fewest_points * max(planned.lists, BUILD.fewest_lists, centroids)


def _fewer_lists(planned: BuildPlan) -> str:
    possible = _lists(planned.rows)
    if planned.recipe in RECIPES or possible < BUILD.fewest_lists:
        return ""
    return f" or {_with_lists(planned.factory, possible)}"


def _with_lists(factory: str, lists: int) -> str:
    return re.sub(r"IVF\d+", f"IVF{lists}", factory)


def _requirement(planned: BuildPlan) -> str:
    return f"{planned.recipe} needs {decimal(planned.memory)} of memory for {planned.rows:,} photos"


def _memory_option(count: float) -> Spelled:
    """Return the option that grants `count` bytes, rounded up to megabytes."""
    megabytes = math.ceil(count / 1e6)
    return Spelled(f"memory={megabytes * 1_000_000:_}", f"--memory {megabytes}M")


def faiss_metric(metric: str) -> int:
    """Return FAISS's constant for a key of METRICS. Raises OptionError for another metric."""
    if metric not in METRICS:
        raise OptionError(f"Unknown metric {metric!r}. Available: {', '.join(METRICS)}.")
    return int(getattr(faiss(), METRICS[metric]))


def make_index(dim: int, factory: str, metric: str = BUILD.metric) -> FaissIndex:
    """Return an empty FAISS index. Raises OptionError for a factory string that FAISS does not accept."""
    library = faiss()
    try:
        index = library.index_factory(dim, factory, faiss_metric(metric))
    except RuntimeError as error:
        raise OptionError(
            f"{factory!r} is neither a recipe nor a FAISS factory string for {dim} dimensions "
            f"({failure_reason(error)}). Recipes: {AUTO}, {', '.join(RECIPES)}."
        ) from error
    ivf = ivf_of(index)
    if ivf is not None:
        ivf.cp.max_points_per_centroid = BUILD.training_points
        ivf.cp.niter = BUILD.rounds
        ivf.cp.seed = BUILD.seed
    return index


def check_factory(dim: int, factory: str, metric: str = BUILD.metric) -> None:
    """Raise OptionError for a factory string that vggsearch cannot use, by trying it on a few vectors.

    The index must rank by the metric, keep the ids it is given, support filters, and be searchable while it is
    memory-mapped. A refinement step in FAISS is refused: vggsearch computes exact similarities from its own
    vectors, so that step would only repeat the work with another file.
    """
    library = faiss()
    small = make_index(dim, _with_lists(factory, BUILD.fewest_lists), metric)
    inner = library.downcast_index(small.index) if isinstance(small, library.IndexPreTransform) else small
    if isinstance(inner, library.IndexRefine):
        raise OptionError(
            f"{factory}: omit the refinement step; vggsearch re-scores candidates from its own vectors."
        )
    if isinstance(inner, library.IndexIDMap | library.IndexIDMap2):
        raise OptionError(f"{factory}: omit the IDMap; vggsearch assigns the ids itself.")
    if small.metric_type != faiss_metric(metric):
        raise OptionError(f"{factory} does not rank by {metric}.")
    _shorten_training(small)
    rows = PROBE_ROWS // 10 if small.is_trained else PROBE_ROWS  # a graph needs no training, but is slow to fill
    vectors = unit_rows(np.random.default_rng(BUILD.seed).standard_normal((rows, dim), np.float32))
    allowed = np.arange(0, rows, 2)
    try:
        small.train(vectors)
        small.add(vectors)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "index")
            library.write_index(small, path)
            opened = library.read_index(path, library.IO_FLAG_MMAP_IFC)
            parameters = search_parameters(opened, 4, library.IDSelectorBatch(allowed))
            _, found = opened.search(vectors[allowed[:8]], 1, params=parameters)
            del opened
    except RuntimeError as error:
        raise OptionError(
            f"{factory} cannot be saved, memory-mapped and searched with a filter ({failure_reason(error)})."
        ) from error
    if not np.isin(found, allowed).all():
        raise OptionError(f"{factory} ignores filters: it returned excluded rows.")


def _shorten_training(index: FaissIndex) -> None:
    """Limit iterative training to one round, which is enough for a trial and takes seconds instead of minutes."""
    library = faiss()
    if isinstance(index, library.IndexPreTransform):
        _shorten_training(library.downcast_index(index.index))
        for at in range(index.chain.size()):
            step = library.downcast_VectorTransform(index.chain.at(at))
            if isinstance(step, library.OPQMatrix):
                step.niter = step.niter_pq = step.niter_pq_0 = 1
    if hasattr(index, "pq"):
        index.pq.cp.niter = 1


def search_parameters(index: FaissIndex, effort: int, selector: Any = None) -> Any:
    """Return FAISS's parameters for one search: its effort, and a FAISS selector of the rows that may be found.

    `effort` is nprobe, the number of lists to probe, or efSearch of HNSW; other kinds of index ignore it.
    """
    library = faiss()
    filter_argument = {"sel": selector} if selector is not None else {}
    if isinstance(index, library.IndexPreTransform):
        inner = search_parameters(library.downcast_index(index.index), effort, selector)
        return library.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, library.IndexIVF):
        return library.SearchParametersIVF(nprobe=max(1, effort), **filter_argument)
    if isinstance(index, library.IndexHNSW):
        return library.SearchParametersHNSW(efSearch=max(1, effort), **filter_argument)
    return library.SearchParameters(**filter_argument)


def ivf_of(index: FaissIndex) -> FaissIndex:
    """Return the part of a FAISS index that has inverted lists, None if none exists."""
    library = faiss()
    inner = library.downcast_index(index.index) if isinstance(index, library.IndexPreTransform) else index
    return inner if isinstance(inner, library.IndexIVF) else None


def hnsw_of(index: FaissIndex) -> FaissIndex:
    """Return the part of a FAISS index that is an HNSW graph, None if none exists."""
    library = faiss()
    inner = library.downcast_index(index.index) if isinstance(index, library.IndexPreTransform) else index
    return inner if isinstance(inner, library.IndexHNSW) else None


def list_count(index: FaissIndex) -> int:
    """Return the number of inverted lists of a FAISS index, 0 if it has none."""
    ivf = ivf_of(index)
    return 0 if ivf is None else int(ivf.nlist)


def _code_bytes(index: FaissIndex) -> float:
    ivf, hnsw = ivf_of(index), hnsw_of(index)
    if ivf is not None:
        return float(ivf.code_size + ID_BYTES)
    if hnsw is not None:
        return float(faiss().downcast_index(hnsw.storage).sa_code_size() + hnsw.hnsw.nb_neighbors(0) * 4 + 16)
    return float(index.sa_code_size())


def _block(index: FaissIndex) -> int:
    """Return the number of vectors that list lengths are padded to a multiple of: FastScan stores whole blocks."""
    ivf = ivf_of(index)
    return int(ivf.bbs) if isinstance(ivf, faiss().IndexIVFFastScan) else 1


@cache
def _multiply_adds_per_s() -> float:
    """Measure the speed of this machine with a matrix product that takes some hundredths of a second."""
    matrix = np.random.default_rng(0).random((1024, 1024), np.float32)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return 1024**3 / min(seconds)
