"""How sure it is that two photos are duplicates, as learned from the folder itself.

Of two groups of pairs it is known beforehand: edited copies made of a sample of the photos are duplicates,
pairs taken from the least similar candidates are not. How many keypoints fit in each says what a number of
inliers is worth. How many of the folder's own pairs are duplicates at all depends on how similar they are, and
on how many photos there are, since unrelated pairs grow with their square: that share is found by expectation
maximisation, for each band of similarity by itself. Together they give the confidence of a pair, by Bayes'
theorem, and the pairs that are called duplicates are those of which it promises the wanted precision on
average: the local false discovery rate of Efron, "Large-scale inference", 2010, chapter 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES

# The first number of inliers of each bin; below four there is no alignment.
BINS = (0, 4, 5, 6, 8, 10, 13, 17, 22, 30, 50)


@dataclass(frozen=True)
class Known:
    """Pairs of which it is known whether they are duplicates: their similarity, and how many inliers they have.

    All of shape (n,): float64 and int64 arrays as lists, so that they are kept as JSON.
    """

    similarities: tuple[float, ...] = ()
    inliers: tuple[int, ...] = ()

    def and_also(self, others: "Known") -> "Known":
        """Return these and others."""
        return Known(self.similarities + others.similarities, self.inliers + others.inliers)


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` learned.

    `inliers` are the first numbers of each bin, `evidence` the log of how many times likelier it is among
    duplicates than among others. `similarities` are the lowest of each band, ascending; `shares` of the pairs of
    each are duplicates. `copies` are the edited copies it was learned from.
    """

    inliers: tuple[int, ...]
    evidence: tuple[float, ...]
    similarities: tuple[float, ...]
    shares: tuple[float, ...]
    copies: Known

    def confidences(self, similarities: NDArray[np.float64], inliers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how sure it is, 0..1, that each pair is one of duplicates; -1 inliers where not compared."""
        bands = np.maximum(np.searchsorted(self.similarities, similarities, "right") - 1, 0)
        shares = np.clip(np.array(self.shares)[bands], DUPLICATES.least_share, 1 - DUPLICATES.least_share)
        bins = np.maximum(np.searchsorted(self.inliers, inliers, "right") - 1, 0)
        evidence = np.where(inliers >= 0, np.array(self.evidence)[bins], 0.0)
        odds = np.log(shares / (1 - shares)) + evidence
        found: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
        return found

    def recall(self, confidence: float) -> float:
        """Return what share of edited copies is at least so sure to be found, 0..1."""
        if not self.copies.similarities:
            return 0.0
        found = self.confidences(np.array(self.copies.similarities), np.array(self.copies.inliers))
        return float(np.mean(found >= confidence))


def calibrate(
    copies: Known, others: Known, similarities: NDArray[np.float64], inliers: NDArray[np.int64]
) -> Calibration:
    """Learn from known duplicates and others, and from the folder's own pairs, (n,) both, that were compared."""
    evidence = rising(np.log(_shares(copies.inliers) / _shares(others.inliers)))
    bins = np.searchsorted(BINS, inliers, "right") - 1
    bands = _bands(similarities)
    places = np.searchsorted(bands, similarities, "right") - 1
    likelier = np.exp(evidence)
    found = [_share_of_duplicates(likelier[bins[places == band]]) for band in range(len(bands))]
    weights = np.bincount(places, minlength=len(bands)).astype(np.float64)
    shares = rising(np.array(found), weights)
    return Calibration(BINS, tuple(evidence.tolist()), tuple(bands.tolist()), tuple(shares.tolist()), copies)


def by_similarity(similarities: NDArray[np.float64], floor: float) -> Calibration:
    """Learn from the similarities of a folder's candidates alone, (n,), none below `floor`: nothing was compared.

    Unrelated pairs are taken to become fewer as the less similar half does, by the same factor at each step; what
    is there beyond them are duplicates. Photos that look alike are more than that: comparing tells them apart.
    """
    bands = _bands(similarities)
    if not len(similarities):
        return Calibration(BINS, (0.0,) * len(BINS), (-1.0,), (0.0,), Known())
    step = max(float(np.median(similarities)) - floor, np.finfo(float).eps) / np.log(2)
    edges = np.append(np.maximum(bands, floor), np.inf)
    unrelated = len(similarities) * (np.exp(-(edges[:-1] - floor) / step) - np.exp(-(edges[1:] - floor) / step))
    there = np.histogram(similarities, np.append(edges[:-1], 2.0))[0]
    shares = rising(1 - np.minimum(unrelated / np.maximum(there, 1), 1), there.astype(np.float64))
    return Calibration(BINS, (0.0,) * len(BINS), tuple(bands.tolist()), tuple(shares.tolist()), Known())


def least_confidence(confidences: NDArray[np.float64], precision: float) -> float:
    """Return from which confidence on pairs are called duplicates, so that they are right on average as often.

    At least DUPLICATES.least_confidence: many sure pairs should not carry along what is hardly likely.
    """
    ordered = np.sort(confidences)[::-1]
    averages = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    enough = np.flatnonzero((averages >= precision) & (ordered >= DUPLICATES.least_confidence))
    return float(ordered[enough[-1]]) if len(enough) else 1.0 + np.finfo(float).eps


def rising(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the nearest values that never fall: isotonic regression by pooling neighbours, Ayer et al., 1955."""
    weights = np.ones(len(values)) if weights is None else weights
    pooled: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while pooled and pooled[-1][0] > mean:
            last_mean, last_total, last_count = pooled.pop()
            both = max(total + last_total, np.finfo(float).tiny)
            mean = (mean * total + last_mean * last_total) / both
            total, count = total + last_total, count + last_count
        pooled.append((mean, total, count))
    return np.concatenate([np.full(count, mean) for mean, _, count in pooled]) if pooled else np.empty(0)


def _shares(inliers: Sequence[int]) -> NDArray[np.float64]:
    """Return the share of the pairs in each bin; half a pair is added: none seen is not none there."""
    bins = np.searchsorted(BINS, np.array(inliers, np.int64), "right") - 1
    counts = np.bincount(bins, minlength=len(BINS)) + 0.5
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _bands(similarities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lowest similarity of each band, ascending: of as many pairs each, and at most DUPLICATES.bands."""
    count = int(np.clip(len(similarities) // DUPLICATES.band_pairs, 1, DUPLICATES.bands))
    edges = np.quantile(similarities, np.arange(count) / count) if len(similarities) else np.zeros(1)
    edges[0] = -1.0
    return np.unique(edges)


def _share_of_duplicates(likelier: NDArray[np.float64]) -> float:
    """Return the share of pairs that are duplicates, by expectation maximisation from a half on.

    `likelier` says of each pair how many times likelier it looks as a duplicate than as another.
    """
    share = 0.5
    for _ in range(DUPLICATES.rounds):
        duplicates = share * likelier / (share * likelier + 1 - share)
        share = float(np.mean(duplicates)) if len(likelier) else 0.0
    return share
