"""How good ranked answers are: mAP, recall, N-S, and all pairs under one threshold.

Answers come one query at a time, from wherever they were found; memory does not grow with them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import MEASURE
from vggsearch.errors import TruthError
from vggsearch.tables import Table, Tabular, arrow_table

Similarities = NDArray[np.float32]
Counts = NDArray[np.float64]  # whole numbers, far below 2^53

RECALL_AT = (1, 5, 10)
PRECISION = 0.99  # wanted of pairs
THRESHOLD_STEPS = 10_000  # thresholds from 0 to 1: four decimals, as similarities are shown
THRESHOLDS = 2 * THRESHOLD_STEPS + 1  # from -1 to 1
BLOCK_QUERIES, BLOCK_PAIRS = 128, 1 << 21  # are counted at once: a product of matrices, not of rows
OFF = 1e-3  # by how much rounding may leave a cosine outside -1 to 1
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
    """Where a figure lies with 95 % confidence, had other queries been drawn from where these come from."""

    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """How good the answers to `queries` were among `images` photos. 1.0 is perfect, for `ns` 4.0.

    `map` and `recall_at` are means over the queries that have a relevant photo; `without_partner` counts the
    others, whose pairs are all wrong. `map` is mean average precision. `recall_at` k is the share of queries
    with at least one relevant photo among the first k, as is usual where one copy is to be found (Jégou et al.,
    PAMI 2011) and in metric learning (Oh Song et al., CVPR 2016); it is not the share of the relevant photos.
    `ns` is UKBench's count (Nistér & Stewénius, CVPR 2006): how many of the first four are of the query's label,
    itself included as the first; None unless every query has exactly three others.

    `pair_ap` is micro-AP: the average precision of the pairs of all queries in one list, so under one threshold
    (Douze et al., ISC2021; Pizzi et al., CVPR 2022). `recall_at_p99` is the largest share of the right pairs
    found at any threshold with a precision of at least 99 %; `threshold_at_p99` is the highest such threshold,
    None if there is none. A relevant photo that is not among the answers counts as not found everywhere.
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
        """Return the figures by the names of FIGURE_COLUMNS; each interval as its two ends."""
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
    """What each threshold gives: float64 arrays of one shape (n,), highest threshold first.

    A pair is found if its similarity, rounded to four decimals, is at least the `threshold`. `precision` is the
    share of the found pairs that are right, `recall` the share of the right pairs that are found.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def to_arrow(self) -> Table:
        """Return one row per threshold: threshold, precision and recall."""
        columns = dict.fromkeys(("threshold", "precision", "recall"), "double")
        return arrow_table(columns, zip(self.threshold, self.precision, self.recall, strict=True))

    def at_p99(self) -> int | None:
        """Return where recall is largest with a precision of at least 99 %; of equals, the highest threshold."""
        precise = np.where(self.precision >= PRECISION, self.recall, 0.0)
        return int(np.argmax(precise)) if precise.any() else None


class Tally:
    """Takes the answers to one query after the other, and says how good they were.

    Two similarities that are the same do not say which comes first, so a tie never counts in our favour: within
    one query the wrong photos of a tie come before the relevant ones; among all pairs a tie is one threshold,
    passed by all of it or none. All pairs are compared at four decimals, the precision in which similarities and
    thresholds are shown; so they need only be counted, and 100 million take no more memory than a thousand.
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
        """Take the answers to one query, itself left out: most similar first, float32 and bool of shape (k,).

        `total` is how many relevant photos there are, found or not. Raises ValueError where that cannot be.
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
        """Return how good the answers so far were, out of `images` photos.

        Raises TruthError where no query has a relevant photo.
        """
        asked = self._queries - self._without_partner
        if asked == 0:
            raise TruthError(
                f"None of {self._queries:,} photos has another of its label among {images:,} photos, so that there "
                f"is nothing to find. Check that the paths are those of the index: vggsearch query --format paths"
            )
        pair_ap, recall = self._pairs.resampled()
        curve = self.curve()
        at = curve.at_p99()
        return Figures(
            images=images,
            queries=self._queries,
            without_partner=self._without_partner,
            map=self._precision_sum / asked,
            recall_at={k: hits / asked for k, hits in self._hits.items()},
            ns=self._in_four / asked if self._only_fours else None,
            pair_ap=float(pair_ap[0]),
            pair_ap_interval=_interval(pair_ap[1:]),
            recall_at_p99=float(recall[0]),
            recall_at_p99_interval=_interval(recall[1:]),
            threshold_at_p99=None if at is None else float(curve.threshold[at]),
        )

    def curve(self) -> Curve:
        """Return precision and recall of all pairs so far, at every threshold that makes a difference."""
        return self._pairs.curve()


def worst_ranks(similarities: Similarities, relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the ranks of the relevant answers, ascending from 1, if in each tie the wrong ones come first.

    `similarities`, float32 (k,), are most similar first, and `relevant` is bool (k,).
    """
    found = np.flatnonzero(relevant)
    tie_end = np.searchsorted(-similarities, -similarities[found], side="right")
    behind = np.searchsorted(tie_end, tie_end, side="right") - np.arange(1, len(found) + 1)
    ranks: NDArray[np.int64] = tie_end - behind
    return ranks


class _Pairs:
    """How many pairs, and how many right ones, are at each similarity: of all queries, and of resampled ones.

    A resample gives each query a weight, how often it is drawn. Poisson weights of mean 1 need not know how many
    queries will come (Hanley & MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson
    frequencies"). Row 0 of each array has weight 1 throughout: the queries as they are.
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
        """Return average precision and recall at 99 %, as they are and of each resample that has right pairs."""
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
    """Add pairs, each of a query and at a place, to counts (rows, places), under weights (rows, queries)."""
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
        raise ValueError(f"similarities {similarities.shape} and relevant {relevant.shape} are not both (k,)")
    if not (similarities[:-1] >= similarities[1:]).all() or not (np.abs(similarities) <= 1 + OFF).all():
        raise ValueError("similarities are not cosines, most similar first")
    if relevant.sum() > total:
        raise ValueError(f"{relevant.sum()} answers are relevant, but only {total} photos are")
