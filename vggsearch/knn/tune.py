"""Find out how hard an index has to look: on vectors of its own, next to the exact answer."""

import time

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.knn import brute_force
from vggsearch.knn.build import Tell
from vggsearch.knn.recipes import graph_of
from vggsearch.knn.vector_index import Tuning, VectorIndex

SAME = np.float32(1e-4)  # similarities that differ by less are one: copies may stand for each other
Point = tuple[int, int]  # effort, candidates


def tune(index: VectorIndex, recall: float, tell: Tell) -> Tuning:
    """Return the fastest way to search `index` that finds the share `recall` of the ten nearest, as measured.

    Some of its rows are the queries; each is taken out of its own answer, or a tenth of the recall would be free.
    It aims a little higher, since a way that is chosen for its recall here is less good elsewhere. Where no way
    reaches the recall, it is the one that comes nearest.
    """
    queries = _queries(index)
    if len(queries) <= 1:
        return Tuning(recall=1.0)
    vectors = index.unit_vectors(queries)
    tell("measuring recall", 0, len(queries))
    wanted = min(BUILD.count, len(index) - 1)
    _, exact = brute_force.nearest(vectors, wanted + 1, index.unit_vectors, len(index))
    tell("measuring recall", len(queries), len(queries))
    aim = recall + BUILD.tuning_margin * (1 - recall)
    recalls = _sweep(index, vectors, queries, exact[:, -1], aim)
    enough = min(aim, max(recalls.values()))
    reaching = [point for point, found in recalls.items() if found >= enough]
    timed = [_measured(index, vectors, point, recalls[point]) for point in _least(reaching)]
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
) -> dict[Point, float]:
    """Return the recall of each effort with each number of candidates, until more effort is of no more use.

    A row is right if it is as similar as `least`, the last of the exact answer.
    """
    most = 1 if index.is_exact else BUILD.most_candidates
    shares = _powers(1, most)
    wanted = min(BUILD.count, len(index) - 1)
    recalls: dict[Point, float] = {}
    best: list[float] = []
    for effort in _efforts(index):
        rows = index.candidates(vectors, shares[-1] * (BUILD.count + 1), effort)
        similarities = index.similarities_of(vectors, rows)
        right = (similarities >= least[:, None] - SAME) & (rows != queries[:, None])
        for share in shares:
            found = right[:, : share * (BUILD.count + 1)].sum(axis=1)
            recalls[effort, share] = float(np.minimum(found, wanted).mean() / wanted)
        best.append(recalls[effort, shares[-1]])
        if recalls[effort, 1] >= recall or _is_settled(best, recall):
            break
        shares = _powers(1, min(most, 2 * _enough(recalls, effort, shares)))
    return recalls


def _is_settled(best: list[float], recall: float) -> bool:
    """Whether twice and four times the effort found hardly any more, and enough is found."""
    return len(best) > 2 and best[-3] >= recall and best[-1] - best[-3] < (1 - recall) / 10


def _enough(recalls: dict[Point, float], effort: int, shares: list[int]) -> int:
    """Return how many candidates find all that the most find. A harder look needs a few more, seldom twice."""
    return next(share for share in shares if recalls[effort, share] == recalls[effort, shares[-1]])


def _least(points: list[Point]) -> list[Point]:
    """Return the points that may be the fastest: no other takes as little effort with as few candidates."""
    kept: list[Point] = []
    for effort, share in sorted(points, key=lambda point: (point[1], point[0])):
        if not kept or effort < kept[-1][0]:
            kept.append((effort, share))
    return kept


def _measured(index: VectorIndex, vectors: NDArray[np.float32], point: Point, recall: float) -> Tuning:
    """Time the queries one at a time, as a person asks, and take the median; the first few warm up."""
    effort, candidates = point
    before, index.tuning = index.tuning, Tuning(effort, candidates)
    try:
        seconds = [_seconds(index, vector) for vector in vectors[: BUILD.timed_queries]]
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
    return _powers(16, 1024) if graph_of(index.core) is not None else [0]


def _powers(least: int, most: int) -> list[int]:
    found = [least]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    return found
