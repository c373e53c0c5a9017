"""Retrieval metrics of ranked answers: mAP, recall, N-S, and all pairs under one threshold.

Answers are added one query at a time; memory use does not grow with their number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import MEASURE
from vggsearch.errors import Spelled, TruthError
from vggsearch.tables import Table, Tabular, arrow_table

Similarities = NDArray[np.float32]
Counts = NDArray[np.float64]  # integers, far below 2^53

RECALL_AT = (1, 5, 10)
PRECISION = 0.99  # required of the pairs that a threshold finds
THRESHOLD_STEPS = 10_000  # thresholds from 0 to 1: four decimals, as similarities are shown
THRESHOLDS = 2 * THRESHOLD_STEPS + 1  # from -1 to 1
BLOCK_QUERIES, BLOCK_PAIRS = 128, 1 << 21  # counted at once, by one matrix product
OFF = 1e-3  # how far outside -1 to 1 rounding may put a cosine
SEED = 0
FIGURE_COLUMNS = {
    "images": "int64",
    "queries": "int64",
    "without_partner": "int64",
    "map": "double",
    **{f"recall_at_{k}": "double" for k in RECALL_AT},
    "ns": "double",
    "pair_ap": "double",
    "pair_ap_low": "double",
    "pair_ap_high": "double",
    "recall_at_p99": "double",
    "recall_at_p99_low": "double",
    "recall_at_p99_high": "double",
    "threshold_at_p99": "double",
}


@dataclass(frozen=True)
class Interval:
    """The 95 % confidence interval of a metric over random samples of queries.

    >>> figures = evaluate(index, {"a.jpg": "cat", "copy of a.jpg": "cat"}, rerank=False).figures
    >>> figures.pair_ap_interval
    Interval(low=1.0, high=1.0)
    """

    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """The metrics of the answers to `queries` among `images` photos. 1.0 is perfect, for `ns` 4.0.

    `map` and `recall_at` are means over the queries that have a relevant photo; `without_partner` counts the
    others, whose pairs are all wrong. `map` is mean average precision. `recall_at` k is the fraction of queries
    with at least one relevant photo among the first k, as is usual for finding one copy (Jégou et al., PAMI 2011)
    and in metric learning (Oh Song et al., CVPR 2016); it is not the fraction of relevant photos that are found.
    `ns` is the UKBench score (Nistér & Stewénius, CVPR 2006): how many of the first four photos have the label of
    the query, which counts as the first; None unless every query has exactly three relevant photos.

    `pair_ap` is micro-AP: the average precision of the pairs of all queries in one list, so under one threshold
    (Douze et al., ISC2021; Pizzi et al., CVPR 2022). `recall_at_p99` is the largest fraction of the right pairs
    found at any threshold with a precision of at least 99 %; `threshold_at_p99` is the highest such threshold, None
    if no threshold has that precision. In all metrics, a relevant photo that is not among the answers counts as
    not found.

    >>> figures = evaluate(index, {"a.jpg": "cat", "copy of a.jpg": "cat"}, rerank=False).figures
    >>> figures.queries, figures.images, figures.map
    (2, 4, 1.0)
    """

    images: int
    queries: int
    without_partner: int
    map: float
    recall_at: dict[int, float]
    ns: float | None
    pair_ap: float
    pair_ap_interval: Interval
    recall_at_p99: float
    recall_at_p99_interval: Interval
    threshold_at_p99: float | None

    def row(self) -> dict[str, float | int | None]:
        """Return the metrics under the names in FIGURE_COLUMNS; an interval becomes two values."""
        values: dict[str, float | int | None] = {f"recall_at_{k}": share for k, share in self.recall_at.items()}
        for name in FIGURE_COLUMNS:
            if name.endswith(("_low", "_high")):
                figure, _, end = name.rpartition("_")
                values[name] = getattr(getattr(self, f"{figure}_interval"), end)
            elif name not in values:
                values[name] = getattr(self, name)
        return {name: values[name] for name in FIGURE_COLUMNS}


@dataclass(frozen=True, eq=False)
class Curve(Tabular):
    """Precision and recall at each threshold: float64 arrays (n,), highest threshold first.

    A pair is found if its similarity, rounded to four decimals, is at least the `threshold`. `precision` is the
    fraction of the found pairs that are right, `recall` the fraction of the right pairs that are found.

    >>> curve = evaluate(index, {"a.jpg": "cat", "copy of a.jpg": "cat"}, rerank=False).curve
    >>> float(curve.threshold[0]), float(curve.precision[0])
    (1.0, 1.0)
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def to_arrow(self) -> Table:
        """Return one row per threshold: threshold, precision and recall."""
        columns = dict.fromkeys(("threshold", "precision", "recall"), "double")
        return arrow_table(columns, zip(self.threshold, self.precision, self.recall, strict=True))

    def at_p99(self) -> int | None:
        """Return the index of the largest recall with a precision of at least 99 %, the first one of a tie."""
        precise = np.where(self.precision >= PRECISION, self.recall, 0.0)
        return int(np.argmax(precise)) if precise.any() else None


class Tally:
    """Accumulates the answers to queries and computes their metrics.

    Ties are resolved pessimistically: among equally similar answers to one query, wrong photos rank before relevant
    ones; among all pairs, those with the same similarity are found at the same threshold. Similarities of pairs are
    rounded to four decimals, as similarities and thresholds are shown. So pairs only have to be counted, and 100
    million take no more memory than a thousand.
    """

    def __init__(self) -> None:
        self._queries = 0
        self._without_partner = 0
        self._precision_sum = 0.0
        self._hits = dict.fromkeys(RECALL_AT, 0)
        self._in_four = 0
        self._only_fours = True
        self._pairs = _Pairs()

    def add(self, similarities: Similarities, relevant: NDArray[np.bool_], total: int) -> None:
        """Add the answers to one query, without the query itself, most similar first: float32 (k,) and bool (k,).

        `total` is the number of relevant photos, found or not. Raises ValueError for inconsistent values.
        """
        _check(similarities, relevant, total)
        self._queries += 1
        self._pairs.add(similarities, relevant, total)
        self._only_fours &= total == 3
        if total == 0:
            self._without_partner += 1
            return
        ranks = worst_ranks(similarities, relevant)
        self._precision_sum += float((np.arange(1, len(ranks) + 1) / ranks).sum()) / total
        for k in RECALL_AT:
            self._hits[k] += int(bool((ranks <= k).any()))
        self._in_four += 1 + int((ranks <= 3).sum())

    def figures(self, images: int) -> Figures:
        """Return the metrics of the answers so far, among `images` photos.

        Raises TruthError if no query has a relevant photo.
        """
        with_partner = self._queries - self._without_partner
        if with_partner == 0:
            raise TruthError(
                f"None of {self._queries:,} photos has another with its label among {images:,} photos, so there is "
                "nothing to find. Check that the paths are those of the index: ",
                Spelled("index.paths()", "vggsearch query --random 10"),
            )
        pair_ap, recall = self._pairs.resampled()
        curve = self.curve()
        at = curve.at_p99()
        return Figures(
            images=images,
            queries=self._queries,
            without_partner=self._without_partner,
            map=self._precision_sum / with_partner,
            recall_at={k: hits / with_partner for k, hits in self._hits.items()},
            ns=self._in_four / with_partner if self._only_fours else None,
            pair_ap=float(pair_ap[0]),
            pair_ap_interval=_interval(pair_ap[1:]),
            recall_at_p99=float(recall[0]),
            recall_at_p99_interval=_interval(recall[1:]),
            threshold_at_p99=None if at is None else float(curve.threshold[at]),
        )

    def curve(self) -> Curve:
        """Return precision and recall of all pairs so far, at every similarity that occurs."""
        return self._pairs.curve()


def worst_ranks(similarities: Similarities, relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the ranks of the relevant answers, ascending from 1; in each tie, the wrong answers come first.

    `similarities`, float32 (k,), are in descending order; `relevant` is bool (k,).
    """
    found = np.flatnonzero(relevant)
    tie_end = np.searchsorted(-similarities, -similarities[found], side="right")
    behind = np.searchsorted(tie_end, tie_end, side="right") - np.arange(1, len(found) + 1)
    ranks: NDArray[np.int64] = tie_end - behind
    return ranks


class _Pairs:
    """The number of pairs, and of right pairs, at each similarity: for all queries, and for bootstrap samples.

    A bootstrap sample gives each query a weight, the number of times that it is drawn. Poisson weights of mean 1 do
    not require the number of queries in advance (Hanley & MacGibbon 2006, "Creating non-parametric bootstrap
    samples using Poisson frequencies"). In row 0 of each array, all weights are 1: the queries as they are.
    """

    def __init__(self) -> None:
        rows = 1 + MEASURE.resamples
        self._found: Counts = np.zeros((rows, THRESHOLDS))
        self._right: Counts = np.zeros((rows, THRESHOLDS))
        self._total: Counts = np.zeros(rows)
        self._random = np.random.default_rng(SEED)
        self._block: list[tuple[NDArray[np.int64], NDArray[np.bool_], int]] = []
        self._block_pairs = 0

    def add(self, similarities: Similarities, relevant: NDArray[np.bool_], total: int) -> None:
        steps = np.rint(similarities.astype(np.float64) * THRESHOLD_STEPS).astype(np.int64)
        self._block.append(
            (np.clip(steps, -THRESHOLD_STEPS, THRESHOLD_STEPS) + THRESHOLD_STEPS, relevant.copy(), total)
        )
        self._block_pairs += len(relevant)
        if len(self._block) >= BLOCK_QUERIES or self._block_pairs >= BLOCK_PAIRS:
            self._count_block()

    def curve(self) -> Curve:
        thresholds, precision, recall = self._curves(rows=1)
        return Curve(thresholds, precision[0], recall[0])

    def resampled(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return average precision and recall at 99 %: of all queries, then of each sample that has right pairs."""
        _, precision, recall = self._curves(rows=len(self._total))
        average = (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)
        precise = np.where(precision >= PRECISION, recall, 0.0).max(axis=1, initial=0.0)
        can_be_found = self._total > 0
        return average[can_be_found], precise[can_be_found]

    def _curves(self, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return thresholds (n,), highest first, and precision and recall (rows, n)."""
        self._count_block()
        places = np.flatnonzero(self._found[0])[::-1]
        found = self._found[:rows, places].cumsum(axis=1)
        right = self._right[:rows, places].cumsum(axis=1)
        precision = right / np.maximum(found, 1)
        recall = right / np.maximum(self._total[:rows, None], 1)
        return (places - THRESHOLD_STEPS) / THRESHOLD_STEPS, precision, recall

    def _count_block(self) -> None:
        if not self._block:
            return
        places, relevant, totals = zip(*self._block, strict=True)
        query = np.repeat(np.arange(len(places)), [len(each) for each in places])
        place, right = np.concatenate(places), np.concatenate(relevant)
        drawn = self._random.poisson(1.0, (len(places), MEASURE.resamples))
        weights = np.vstack([np.ones(len(places)), drawn.T])
        self._total += weights @ np.array(totals, np.float64)
        _count(self._found, weights, query, place)
        _count(self._right, weights, query[right], place[right])
        self._block, self._block_pairs = [], 0


def _count(counts: Counts, weights: Counts, query: NDArray[np.int64], place: NDArray[np.int64]) -> None:
    """Add pairs, given by query and place, to `counts` (rows, places), with `weights` (rows, queries)."""
    used = np.flatnonzero(np.bincount(place, minlength=THRESHOLDS))
    column = np.zeros(THRESHOLDS, np.int64)
    column[used] = np.arange(len(used))
    shape = (weights.shape[1], len(used))
    of_query = np.bincount(query * len(used) + column[place], minlength=shape[0] * shape[1]).reshape(shape)
    counts[:, used] += weights @ of_query.astype(np.float64)


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def _check(similarities: Similarities, relevant: NDArray[np.bool_], total: int) -> None:
    if similarities.shape != relevant.shape or similarities.ndim != 1:
        raise ValueError(f"similarities {similarities.shape} and relevant {relevant.shape} must both be (k,)")
    if not (similarities[:-1] >= similarities[1:]).all() or not (np.abs(similarities) <= 1 + OFF).all():
        raise ValueError("similarities must be cosines in descending order")
    if relevant.sum() > total:
        raise ValueError(f"{relevant.sum()} answers are relevant, but only {total} photos are")
