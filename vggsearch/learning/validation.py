"""Cross-validation of learned transforms: on photos that were not learned from, of known and of unknown labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import LEARN, MEASURE
from vggsearch.knn.whitening import Whitening
from vggsearch.learning.labelled import LabelledPhotos
from vggsearch.learning.projection import Projections
from vggsearch.measures.metrics import Interval, Tally
from vggsearch.progress import Monitor

Transform = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Side = Literal["held", "unseen"]
SIDES: tuple[Side, ...] = get_args(Side)
MIDDLE = LEARN.shrinkages[1]  # of the discriminant, which is shown for comparison
BLOCK = 256  # queries compared with a gallery at once


@dataclass(frozen=True)
class Setting:
    """What cross-validation chooses: the shrinkage of the scatter within labels, 0..1, and the dimensions.

    >>> Setting(shrinkage=0.5, dim=128).dim
    128
    """

    shrinkage: float
    dim: int


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % confidence interval over random samples of the tested photos.

    >>> Measured(0.8, Interval(0.75, 0.85)).value
    0.8
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class Quality:
    """How well `queries` photos find those with their label: mAP, recall@1 and micro-AP, as in `Figures`.

    >>> quality = Quality(50, *[Measured(0.8, Interval(0.75, 0.85))] * 3)
    >>> quality.map.value
    0.8
    """

    queries: int
    map: Measured
    recall_at_1: Measured
    pair_ap: Measured


@dataclass(frozen=True, eq=False)
class Round:
    """One test: the positions of photos to learn from, and of those to test on.

    Queries are, on each side, the photos `held` out of known labels and those of `unseen` labels, as far as no
    earlier test asked for them.
    """

    train: NDArray[np.int64]
    tested: NDArray[np.int64]
    queries: dict[Side, NDArray[np.int64]]


def rounds_of(photos: LabelledPhotos) -> list[Round]:
    """Return LEARN.rounds tests.

    In each, a fifth of the labels is not learned from at all, and of every other label a fifth of the photos, or
    more where a label has few: two at least, since one alone has nothing to find. Nor is any copy of a tested photo
    learned from.
    """
    folds = photos.folds(LEARN.rounds, least=2)
    random = np.random.default_rng(LEARN.seed)
    order = random.permutation(len(photos.names))
    groups = min(LEARN.rounds, len(photos.names))
    group = np.empty(len(order), np.int64)
    group[order] = np.arange(len(order)) % groups
    number = np.array([folds[photos.label == label].max(initial=-1) + 1 for label in range(len(order))])[
        photos.label
    ]
    found, asked = [], {side: np.zeros(len(photos), bool) for side in SIDES}
    for each in range(LEARN.rounds):
        unseen = group[photos.label] == each % groups
        held = ~unseen & (number > 0) & (folds == each % np.maximum(number, 1))
        train = photos.without_copies(~unseen & ~held, of=unseen | held)
        queries = {side: mask & ~asked[side] for side, mask in zip(SIDES, (held, unseen), strict=True)}
        for side in SIDES:
            asked[side] |= queries[side]
        rows = {side: random.permutation(np.flatnonzero(mask))[: LEARN.queries] for side, mask in queries.items()}
        found.append(Round(np.flatnonzero(train), np.flatnonzero(held | unseen), rows))
    return found


class Validation:
    """Measures transforms in the same tests.

    A query is a photo that was not learned from. It is compared with the other such photos of the test, and with
    photos without a label; what the transform learned from labels is not among them.
    """

    def __init__(self, photos: LabelledPhotos, background: NDArray[np.float32], monitor: Monitor) -> None:
        self._photos, self._background, self._monitor = photos, background, monitor
        step = max(1, -(-len(background) // LEARN.gallery))
        self._distractors = background[::step]
        self._rounds = rounds_of(photos)

    def learned(self, settings: Sequence[Setting]) -> tuple[list[list[Whitening]], list[Whitening]]:
        """Return what is learned in each round with each setting, and by linear discriminant analysis."""
        found, discriminants = [], []
        for done, each in enumerate(self._rounds):
            self._monitor.step("cross-validating", done, len(self._rounds), "stages")
            train = each.train
            projections = Projections(self._photos.embeddings[train], self._photos.label[train], self._background)
            found.append([*whitenings(projections, settings)])
            discriminants.append(projections.discriminant(MIDDLE))
        self._monitor.step("cross-validating", len(self._rounds), len(self._rounds), "stages")
        return found, discriminants

    def precisions(self, transforms: Sequence[Transform], side: Side) -> NDArray[np.float64]:
        """Return the mAP in each round under its transform: float64 (rounds,), NaN where nothing can be found."""
        found = []
        for each, transform in zip(self._rounds, transforms, strict=True):
            self._monitor.check()
            answers = (answer for answer in self._answers(each, transform, side) if answer[1].any())
            values = [_average_precision(ranks_of(*answer)) for answer in answers]
            found.append(float(np.mean(values)) if values else np.nan)
        return np.array(found)

    def quality(self, transforms: Sequence[Transform], side: Side) -> Quality:
        """Return the quality over all rounds, each under its transform. Raises TruthError if there is none."""
        tally, precision, first = Tally(), list[float](), list[float]()
        for each, transform in zip(self._rounds, transforms, strict=True):
            for similarities, relevant in self._answers(each, transform, side):
                self._monitor.check()
                order = np.argsort(-similarities, kind="stable")
                tally.add(similarities[order], relevant[order], int(relevant.sum()))
                if relevant.any():
                    ranks = ranks_of(similarities, relevant)
                    precision.append(_average_precision(ranks))
                    first.append(float(ranks[0] == 1))
        figures = tally.figures(len(self._photos))
        micro = Measured(figures.pair_ap, figures.pair_ap_interval)
        return Quality(len(precision), measured(precision), measured(first), micro)

    def _answers(
        self, each: Round, transform: Transform, side: Side
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """Yield the similarities of all answers to each query of a round, and which of them have its label."""
        tested, queries = each.tested, each.queries[side]
        gallery = transform(np.concatenate([self._photos.embeddings[tested], self._distractors]))
        label = np.concatenate([self._photos.label[tested], np.full(len(self._distractors), -1)])
        content = np.concatenate([self._photos.content[tested], np.full(len(self._distractors), -1)])
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            found = np.clip(transform(self._photos.embeddings[block]) @ gallery.T, -1, 1)
            for query, similarities in zip(block.tolist(), found, strict=True):
                others = content != self._photos.content[query]  # a copy is no answer to what was learned
                yield similarities[others], label[others] == self._photos.label[query]


def whitenings(projections: Projections, settings: Sequence[Setting]) -> Iterator[Whitening]:
    """Yield the transform of each setting; settings with one shrinkage follow one another."""
    by_shrinkage: dict[float, list[int]] = {}
    for setting in settings:
        by_shrinkage.setdefault(setting.shrinkage, []).append(setting.dim)
    for shrinkage, dims in by_shrinkage.items():
        yield from projections.whitenings(shrinkage, dims)


def settings_for(dim: int) -> list[Setting]:
    """Return the settings to try for embeddings of `dim` dimensions."""
    dims = [each for each in LEARN.dims if each <= dim] or [dim]
    return [Setting(shrinkage, each) for shrinkage in LEARN.shrinkages for each in dims]


def best_setting(held: NDArray[np.float64], unseen: NDArray[np.float64], least_unseen: NDArray[np.float64]) -> int:
    """Return which setting to choose, from the mAP of each in each round, (settings, rounds).

    It is the one with the largest mAP on photos held out, of those whose mAP on unseen labels is not below
    `least_unseen`, (rounds,), in the mean; if there is none, the one that loses least there.
    """
    gain = _mean(unseen - least_unseen)
    allowed = gain >= 0
    return int(np.argmax(np.where(allowed, _mean(held), -np.inf)) if allowed.any() else np.argmax(gain))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row over its finite values, 0 where there are none."""
    finite = np.isfinite(values)
    means: NDArray[np.float64] = np.where(finite, values, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return means


def measured(values: Sequence[float]) -> Measured:
    """Return the mean of some values with its bootstrap interval."""
    array = np.array(values)
    draws = np.random.default_rng(LEARN.seed).integers(0, len(array), (MEASURE.resamples, len(array)))
    low, high = np.percentile(array[draws].mean(axis=1), [2.5, 97.5])
    return Measured(float(array.mean()), Interval(float(low), float(high)))


def ranks_of(similarities: NDArray[np.float32], relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return what measures.metrics.worst_ranks does, of answers in any order: sorting values alone is fast."""
    wrong, right = np.sort(similarities[~relevant]), np.sort(similarities[relevant])[::-1]
    before = len(wrong) - np.searchsorted(wrong, right, side="left")
    ranks: NDArray[np.int64] = before + np.arange(1, len(right) + 1)
    return ranks


def _average_precision(ranks: NDArray[np.int64]) -> float:
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())
