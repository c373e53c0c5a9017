"""Tune the search effort of an index: measure recall and time on its own vectors, against exact search."""

import time

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.knn.recipes import hnsw_of
from vggsearch.knn.vector_index import Tuning, VectorIndex
from vggsearch.progress import Monitor

SIMILARITY_TOLERANCE = np.float32(1e-4)  # similarities closer than this count as equal: copies are interchangeable
Setting = tuple[int, int]  # effort, candidates
EXACT: Setting = (0, 1)  # of an index without lists or graph


def tune(index: VectorIndex, recall: float, monitor: Monitor) -> Tuning:
    """Return the fastest setting for `index` that finds the share `recall` of the ten nearest rows, as measured.

    The queries are rows of the index. Each is removed from its own result; otherwise a tenth of the recall would be
    free. The target is slightly higher than `recall`, since a setting selected on these queries does slightly worse
    on others. If no setting reaches the recall, the one with the highest recall is returned. An exact index has
    nothing to set, and is only timed.
    """
    queries = _queries(index)
    if len(queries) <= 1:
        return Tuning(recall=1.0)
    vectors = index.unit_vectors(queries)
    if index.is_exact:
        return _timed(index, vectors, EXACT, recall=1.0)
    monitor.step("measuring recall", 0, len(queries), "vectors")
    wanted = min(BUILD.count, len(index) - 1)
    _, exact = index.nearest_exactly(vectors, wanted + 1)
    monitor.step("measuring recall", len(queries), len(queries), "vectors")
    target = recall + BUILD.tuning_margin * (1 - recall)
    recalls = _sweep(index, vectors, queries, exact[:, -1], target, monitor)
    reachable = min(target, max(recalls.values()))
    sufficient = [setting for setting, reached in recalls.items() if reached >= reachable]
    timed = [_timed(index, vectors, setting, recalls[setting]) for setting in _cheapest(sufficient)]
    return min(timed, key=lambda tuning: tuning.milliseconds or 0.0)


def _queries(index: VectorIndex) -> NDArray[np.int64]:
    count = min(len(index), BUILD.tuning_queries)
    return np.sort(np.random.default_rng(BUILD.seed + 1).choice(len(index), count, replace=False))


def _sweep(
    index: VectorIndex,
    vectors: NDArray[np.float32],
    queries: NDArray[np.int64],
    least: NDArray[np.float32],
    recall: float,
    monitor: Monitor,
) -> dict[Setting, float]:
    """Return the recall of each effort with each factor of candidates, until more effort no longer helps.

    A row counts as correct if it is as similar as `least`, the last of the exact result.
    """
    most = BUILD.most_candidates
    factors = _powers(1, most)
    wanted = min(BUILD.count, len(index) - 1)
    recalls: dict[Setting, float] = {}
    best: list[float] = []
    for effort in _efforts(index):
        monitor.check()
        rows = index.candidates(vectors, factors[-1] * (BUILD.count + 1), effort)
        similarities = index.candidate_similarities(vectors, rows)
        is_correct = (similarities >= least[:, None] - SIMILARITY_TOLERANCE) & (rows != queries[:, None])
        for factor in factors:
            found = is_correct[:, : factor * (BUILD.count + 1)].sum(axis=1)
            recalls[effort, factor] = float(np.minimum(found, wanted).mean() / wanted)
        best.append(recalls[effort, factors[-1]])
        if recalls[effort, 1] >= recall or _has_converged(best, recall):
            break
        factors = _powers(1, min(most, 2 * _sufficient_factor(recalls, effort, factors)))
    return recalls


def _has_converged(best: list[float], recall: float) -> bool:
    """Return whether two doublings of the effort hardly raised the recall, which is high enough."""
    return len(best) > 2 and best[-3] >= recall and best[-1] - best[-3] < (1 - recall) / 10


def _sufficient_factor(recalls: dict[Setting, float], effort: int, factors: list[int]) -> int:
    """Return the smallest factor with the full recall of this effort. The next effort rarely needs twice that."""
    return next(factor for factor in factors if recalls[effort, factor] == recalls[effort, factors[-1]])


def _cheapest(settings: list[Setting]) -> list[Setting]:
    """Return the Pareto-optimal settings: no other has both less or equal effort and fewer or equal candidates."""
    kept: list[Setting] = []
    for effort, factor in sorted(settings, key=lambda setting: (setting[1], setting[0])):
        if not kept or effort < kept[-1][0]:
            kept.append((effort, factor))
    return kept


def _timed(index: VectorIndex, vectors: NDArray[np.float32], setting: Setting, recall: float) -> Tuning:
    """Time the queries one by one, as users make them; return the median, which ignores the warm-up."""
    effort, candidates = setting
    before, index.tuning = index.tuning, Tuning(effort, candidates)
    try:
        seconds: list[float] = []
        for vector in vectors[: BUILD.timed_queries]:
            seconds.append(_seconds(index, vector))
            if len(seconds) >= BUILD.fewest_timed and sum(seconds) > BUILD.timed_seconds:
                break
    finally:
        index.tuning = before
    return Tuning(effort, candidates, round(recall, 4), round(1000 * float(np.median(seconds)), 3))


def _seconds(index: VectorIndex, vector: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    index.nearest_vectors(vector[None], BUILD.count)
    return time.perf_counter() - started


def _efforts(index: VectorIndex) -> list[int]:
    if index.lists:
        return _powers(1, index.lists)
    return _powers(16, 1024) if hnsw_of(index.core) is not None else [0]


def _powers(first: int, limit: int) -> list[int]:
    """Return `first` doubled again and again, up to `limit`."""
    powers = [first]
    while powers[-1] * 2 <= limit:
        powers.append(powers[-1] * 2)
    return powers
