"""A classifier learned from a few labelled photos in closed form, and how its scores become probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import LEARN
from vggsearch.knn.vectors import unit_rows
from vggsearch.learning.labelled import LabelledPhotos
from vggsearch.learning.projection import means_of

Scores = NDArray[np.float64]
TEMPERATURES = np.geomspace(0.1, 30, 50)
NEWTON_STEPS = 30
PENALTY = 1e-2  # on the weight of a logistic regression, so that it is finite where two kinds do not overlap
LEAST = 1e-12  # of a probability whose logarithm is taken


@dataclass(frozen=True, eq=False)
class Opinion:
    """What a classifier says about some photos, by photo and label: float64 (n, labels).

    `linear` is the score of the linear discriminant, -inf for a label it did not learn; `nearest` is the largest
    cosine to a photo with the label, -1 without one. `neighbour`, int64 (n,), is the position of the nearest
    labelled photo.
    """

    linear: Scores
    nearest: Scores
    neighbour: NDArray[np.int64]


class Classifier:
    """Linear discriminant analysis and nearest neighbours, both where the scatter within labels is the identity.

    The linear discriminant assumes that photos of each label are scattered alike around its mean (Hastie,
    Tibshirani & Friedman, "The elements of statistical learning", 2009, section 4.3). The covariance is shrunk
    towards a multiple of the identity, since a label may have as few as two photos.
    """

    def __init__(self, photos: LabelledPhotos, chosen: NDArray[np.int64]) -> None:
        """Learn from the photos at some positions."""
        vectors = photos.embeddings[chosen].astype(np.float64)
        self._chosen, self._label, self._labels = chosen, photos.label[chosen], len(photos.names)
        means, place = means_of(vectors, self._label)
        self._mean = means.mean(axis=0)
        variances, self._axes = _axes(vectors - means[place])
        average = max(float(variances.sum()) / vectors.shape[1], LEAST)
        shrunk = (1 - LEARN.classifier_shrinkage) * variances + LEARN.classifier_shrinkage * average
        self._others = (
            LEARN.classifier_shrinkage * average
        ) ** -0.5  # what directions without scatter are scaled by
        self._scales = shrunk**-0.5 - self._others
        self._means, self._learned = self._whiten(means), np.unique(self._label)
        self._photos = unit_rows(self._whiten(vectors))

    def opinion(self, embeddings: NDArray[np.float32]) -> Opinion:
        """Return what it says about photos with unit embeddings (n, dim)."""
        white = self._whiten(embeddings.astype(np.float64))
        linear = np.full((len(white), self._labels), -np.inf)
        linear[:, self._learned] = white @ self._means.T - (self._means**2).sum(axis=1) / 2
        cosines = unit_rows(white) @ self._photos.T
        nearest = np.full((len(white), self._labels), -1.0)
        for label in self._learned.tolist():
            nearest[:, label] = cosines[:, self._label == label].max(axis=1)
        return Opinion(linear, nearest, self._chosen[cosines.argmax(axis=1)])

    def _whiten(self, vectors: Scores) -> Scores:
        centred = vectors - self._mean
        white: Scores = self._others * centred + ((centred @ self._axes.T) * self._scales) @ self._axes
        return white


@dataclass(frozen=True)
class Calibration:
    """Turns opinions into probabilities.

    The scores of discriminant and neighbours are each divided by their spread, and weigh the same; `temperature`
    multiplies their sum. The probability that a photo has one of the labels at all is a logistic function of its
    largest cosine to a labelled photo, with `slope` and `offset`.
    """

    linear_spread: float
    nearest_spread: float
    temperature: float
    slope: float
    offset: float

    def probabilities(self, opinion: Opinion) -> Scores:
        """Return the probability of each label, for photos that have one of them: float64 (n, labels)."""
        scores = opinion.linear / self.linear_spread + opinion.nearest / self.nearest_spread
        return softmax(self.temperature * scores)

    def known(self, opinion: Opinion) -> Scores:
        """Return the probability that a photo has one of the labels: float64 (n,)."""
        return _logistic(self.slope * opinion.nearest.max(axis=1) + self.offset)

    @classmethod
    def learned(cls, tested: Opinion, label: NDArray[np.int64], strangers: Opinion) -> "Calibration":
        """Learn it from opinions on photos not learned from: on `tested` ones of known labels, and on `strangers`.

        The temperature is that with the largest likelihood (Guo, Pleiss, Sun & Weinberger, "On calibration of
        modern neural networks", ICML 2017). All `tested` photos together count as much as all `strangers`.
        """
        linear, nearest = (
            max(float(each[np.isfinite(each)].std()), LEAST) for each in (tested.linear, tested.nearest)
        )
        scores = tested.linear / linear + tested.nearest / nearest
        likelihoods = [_likelihood(softmax(each * scores), label) for each in TEMPERATURES]
        slope, offset = _regression(tested.nearest.max(axis=1), strangers.nearest.max(axis=1))
        return cls(linear, nearest, float(TEMPERATURES[int(np.argmax(likelihoods))]), slope, offset)


def cross_validated(photos: LabelledPhotos) -> tuple[NDArray[np.int64], Opinion]:
    """Return the positions of photos, ascending, and opinions on them, of classifiers that did not learn from them.

    Nor did these learn from copies of them. Photos of a label with a single photo are left out.
    """
    folds = photos.folds(LEARN.rounds)
    masks = (folds == fold for fold in range(LEARN.rounds))
    return _opinions(photos, masks)


def strangers(photos: LabelledPhotos) -> Opinion:
    """Return opinions on all photos, of classifiers that did not learn their labels."""
    groups = min(LEARN.rounds, len(photos.names))
    return _opinions(photos, (photos.label % groups == group for group in range(groups)))[1]


def _opinions(photos: LabelledPhotos, masks: Iterator[NDArray[np.bool_]]) -> tuple[NDArray[np.int64], Opinion]:
    positions, found = [], []
    for mask in masks:
        learned = np.flatnonzero(photos.without_copies(~mask, of=mask))
        if mask.any() and len(learned):
            positions.append(np.flatnonzero(mask))
            found.append(Classifier(photos, learned).opinion(photos.embeddings[mask]))
    order = np.argsort(np.concatenate(positions))
    columns = (np.concatenate([getattr(each, name) for each in found])[order] for name in Opinion.__annotations__)
    return np.concatenate(positions)[order], Opinion(*columns)


def mislabelled(probabilities: Scores, label: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which photos probably have another label, and which one, by confident learning: int64 (m,), both.

    A photo counts as one of a label if the probability of that label is at least the mean over the photos that
    have it. Those that count as one of another label, and of no more probable one, are returned (Northcutt, Jiang &
    Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021, section 3.1).
    """
    given = np.arange(probabilities.shape[1])
    thresholds = np.array(
        [probabilities[label == each, each].mean() if (label == each).any() else 1 for each in given]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.argmax(axis=1)
    at = np.flatnonzero((confident.max(axis=1) >= 0) & (counted != label))
    return at, counted[at]


def softmax(scores: Scores) -> Scores:
    """Return the probabilities of scores, (n, labels): each row sums to 1."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Scores = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _axes(deviations: Scores) -> tuple[Scores, Scores]:
    """Return the variances of vectors (n, dim) along their principal axes, and these as rows."""
    count, dim = deviations.shape
    if count < dim:
        _, values, axes = np.linalg.svd(deviations, full_matrices=False)
        return values**2 / count, axes
    variances, axes = np.linalg.eigh(deviations.T @ deviations / count)
    return np.maximum(variances, 0), axes.T


def _likelihood(probabilities: Scores, label: NDArray[np.int64]) -> float:
    return float(np.log(np.maximum(probabilities[np.arange(len(label)), label], LEAST)).mean())


def _regression(ones: Scores, zeros: Scores) -> tuple[float, float]:
    """Return slope and offset of a logistic regression that tells `ones` from `zeros`, which weigh the same."""
    both = np.concatenate([ones, zeros])
    middle, spread = float(both.mean()), max(float(both.std()), LEAST)
    features = np.stack([(both - middle) / spread, np.ones(len(both))])
    target = np.repeat([1.0, 0.0], [len(ones), len(zeros)])
    weights = np.repeat([0.5 / len(ones), 0.5 / len(zeros)], [len(ones), len(zeros)])
    found = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        probability = _logistic(found @ features)
        gradient = features @ (weights * (target - probability)) - PENALTY * found
        curvature = (features * (weights * probability * (1 - probability))) @ features.T + PENALTY * np.eye(2)
        found = found + np.linalg.solve(curvature, gradient)
    return float(found[0] / spread), float(found[1] - found[0] * middle / spread)


def _logistic(values: Scores) -> Scores:
    return 0.5 * (1 + np.tanh(values / 2))
