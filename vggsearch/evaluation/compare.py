"""Ask several indexes the same questions about labelled photos, and compare their answers question by question."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import MEASURE
from vggsearch.errors import TruthError
from vggsearch.evaluation.evaluate import Asked, labels_of, whitening_named
from vggsearch.evaluation.throughput import multiply_adds
from vggsearch.image_index import ImageIndex
from vggsearch.measures.metrics import Figures, Interval, Tally, worst_ranks
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.tables import Table, Tabular, arrow_table

SEED = 0
COLUMNS = {
    "index": "string",
    "map": "double",
    "map_gain": "double",
    "map_gain_low": "double",
    "map_gain_high": "double",
    "recall_at_1": "double",
    "recall_at_1_gain": "double",
    "recall_at_1_gain_low": "double",
    "recall_at_1_gain_high": "double",
    "pair_ap": "double",
}


@dataclass(frozen=True)
class Gain:
    """The difference of a figure to that of the first index, with its 95 % interval over samples of the queries.

    The interval is paired: each sample asks both indexes the same queries, so that hard ones do not widen it.

    >>> Gain(0.02, Interval(0.01, 0.03)).interval.low > 0
    True
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class Compared:
    """The answers of one index: its figures, and the gains in mAP and recall@1 over the first index.

    `multiply_adds` is the work of its network for one photo, None for a network of the user's own.

    >>> report = compare([index], {"a.jpg": "cat", "copy of a.jpg": "cat"}, rerank=False)
    >>> report.indexes[0].figures.recall_at[1]
    1.0
    """

    index: str
    figures: Figures
    map_gain: Gain
    recall_at_1_gain: Gain
    multiply_adds: int | None


@dataclass(frozen=True)
class ComparisonReport(Tabular):
    """The indexes in the order in which they were given, each asked the same `queries`.

    >>> report = compare([index], {"a.jpg": "cat", "copy of a.jpg": "cat"}, rerank=False)
    >>> report.queries, report.indexes[0].map_gain.value
    (2, 0.0)
    """

    queries: int
    indexes: tuple[Compared, ...]

    def to_arrow(self) -> Table:
        """Return one row per index: the figures, and the gains with their intervals."""
        return arrow_table(COLUMNS, map(_row, self.indexes))


def _row(each: Compared) -> tuple[object, ...]:
    of_map, of_first = each.map_gain, each.recall_at_1_gain
    return (
        each.index,
        each.figures.map,
        *(of_map.value, of_map.interval.low, of_map.interval.high),
        each.figures.recall_at[1],
        *(of_first.value, of_first.interval.low, of_first.interval.high),
        each.figures.pair_ap,
    )


def compare(
    indexes: Sequence[ImageIndex],
    labels: Mapping[str, str] | str | os.PathLike[str],
    *,
    whiten: str = "auto",
    rerank: bool = True,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> ComparisonReport:
    """Query several indexes with the same labelled photos, and compare how well each finds those with their label.

    `labels`, `whiten` and `rerank` are those of `evaluate`. The queries are the labelled photos that all indexes
    have; each index answers with all of its photos. Raises TruthError if there is no such photo, and what
    `evaluate` raises.

    >>> report = compare([index], {"a.jpg": "cat", "copy of a.jpg": "cat"}, rerank=False)
    >>> report.indexes[0].figures.map
    1.0
    """
    labels, monitor = labels_of(labels), Monitor(progress, stop)
    asked = [Asked(index, labels, whitening_named(whiten), rerank=rerank) for index in indexes]
    queries = [path for path in labels if all(path in each.rows for each in asked)]
    if not queries:
        raise TruthError(f"No labelled photo is in all {len(indexes)} indexes, so there is nothing to compare.")
    answered = [_answered(each, queries, monitor) for each in asked]
    first = answered[0][1]
    compared = (
        Compared(str(index.directory), figures, *_gains(scores - first), _work(index.spec))
        for index, (figures, scores) in zip(indexes, answered, strict=True)
    )
    return ComparisonReport(len(queries), tuple(compared))


def _work(spec: EmbeddingSpec) -> int | None:
    return None if spec.is_own else multiply_adds(spec)


def _answered(asked: Asked, queries: Sequence[str], monitor: Monitor) -> tuple[Figures, NDArray[np.float64]]:
    """Return the figures of all answers, and of each query its average precision and recall@1: (2, queries).

    They are NaN for a query with nothing to find.
    """
    tally, scores = Tally(), np.full((2, len(queries)), np.nan)
    for place, (_, answers) in enumerate(asked.answers(queries, monitor)):
        tally.add(answers.similarities, answers.relevant, answers.total)
        if answers.total:
            ranks = worst_ranks(answers.similarities, answers.relevant)
            scores[:, place] = (np.arange(1, len(ranks) + 1) / ranks).sum() / answers.total, 1.0 in ranks
    return tally.figures(len(asked.rows)), scores


def _gains(differences: NDArray[np.float64]) -> tuple[Gain, Gain]:
    of_map, of_first = differences
    return _gain(of_map), _gain(of_first)


def _gain(differences: NDArray[np.float64]) -> Gain:
    """Return the mean of the differences by query with its interval; queries with nothing to find do not count."""
    known = differences[np.isfinite(differences)]
    if not len(known):
        return Gain(0.0, Interval(0.0, 0.0))
    draws = np.random.default_rng(SEED).integers(0, len(known), (MEASURE.resamples, len(known)))
    low, high = np.percentile(known[draws].mean(axis=1), [2.5, 97.5])
    return Gain(float(known.mean()), Interval(float(low), float(high)))
