"""How sure it is that two photos are duplicates, as learned from the folder itself.

Of two groups of pairs it is known beforehand: edited copies made of a sample of the photos are duplicates,
pairs of them at random are not. How many keypoints fit in each says what a number of inliers is worth. How many
of the folder's own pairs are duplicates at all depends on how similar they are, and on how many photos there
are, since unrelated pairs grow with their square: that share is found by expectation maximisation, for each
band of similarity by itself. Together they give the confidence of a pair, by Bayes' theorem, and the pairs that
are called duplicates are those of which it promises the wanted precision on average: the local false discovery
rate of Efron, "Large-scale inference", 2010, chapter 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES

# The first number of inliers of each bin; below four there is no alignment.
BINS = (0, 4, 5, 6, 7, 8, 10, 12, 15, 19, 25)


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs of which it is known whether they are duplicates: how similar each is, and how many inliers it has."""

    similarities: tuple[float, ...] = ()
    inliers: tuple[int, ...] = ()

    def and_also(self, others: "LabelledPairs") -> "LabelledPairs":
        """Return these and others."""
        return LabelledPairs(self.similarities + others.similarities, self.inliers + others.inliers)


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` learned.

    `inliers` are the first numbers of each bin, `evidence` the log of how many times likelier it is among
    duplicates than among others. `similarities` are the middles of bands, ascending; `shares` of the pairs of each
    are duplicates. `copies` are the edited copies it was learned from.
    """

    inliers: tuple[int, ...]
    evidence: tuple[float, ...]
    similarities: tuple[float, ...]
    shares: tuple[float, ...]
    copies: LabelledPairs

    def confidences(
        self, similarities: NDArray[np.float64], inliers: NDArray[np.int64], least_share: float = 0.0
    ) -> NDArray[np.float64]:
        """Return how sure it is, 0..1, that each pair is one of duplicates; -1 inliers where not compared.

        At least `least_share` of them are taken to be, before their keypoints are looked at.
        """
        bins = np.maximum(np.searchsorted(self.inliers, inliers, "right") - 1, 0)
        evidence = np.where(inliers >= 0, np.array(self.evidence)[bins], 0.0)
        odds = (
            np.interp(similarities, self.similarities, _log_odds(np.maximum(self.shares, least_share))) + evidence
        )
        found: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
        return found

    def recall(self, confidence: float) -> float:
        """Return what share of edited copies is at least so sure to be found, 0..1."""
        if not self.copies.similarities:
            return 0.0
        found = self.confidences(np.array(self.copies.similarities), np.array(self.copies.inliers))
        return float(np.mean(found >= confidence))


def calibrate(
    copies: LabelledPairs, others: LabelledPairs, similarities: NDArray[np.float64], inliers: NDArray[np.int64]
) -> Calibration:
    """Learn from known duplicates and others, and from the folder's own pairs, (n,) both, that were compared.

    Bands in which hardly any are duplicates join the others: there are more of those, and look-alikes among them.
    Others do not: hard edits of one photo, compared with each other, would pass for look-alikes.
    """
    among_copies = _shares(_counts(copies.inliers))
    known_others = _counts(others.inliers)
    bins = np.searchsorted(BINS, inliers, "right") - 1
    bands = _bands(similarities, DUPLICATES.band_pairs)
    band = np.searchsorted(bands, similarities, "right") - 1
    sizes = np.bincount(band, minlength=len(bands)).astype(np.float64)
    shares = np.full(len(bands), 0.5)
    evidence = isotonic(np.log(among_copies / _shares(known_others)))
    for _ in range(DUPLICATES.rounds):
        odds = _log_odds(shares)[band] + evidence[bins]
        confidence = 1 / (1 + np.exp(-odds))
        shares = isotonic(np.bincount(band, confidence, len(bands)) / np.maximum(sizes, 1), sizes)
        others_too = (1 - confidence) * (shares <= DUPLICATES.mostly_others)[band]
        counts = known_others + np.bincount(bins, others_too, len(BINS))
        evidence = isotonic(np.log(among_copies / _shares(counts)))
    shares = np.minimum(shares, DUPLICATES.largest_share)
    middles = _middles(similarities, band, len(bands))
    return Calibration(BINS, tuple(evidence.tolist()), middles, tuple(shares.tolist()), copies)


def by_similarity(
    similarities: NDArray[np.float64], at_random: NDArray[np.float64], pair_count: int
) -> Calibration:
    """Learn from the similarities of a folder's candidates alone, (n,): nothing was compared.

    `at_random` are those of pairs at random, of the `pair_count` there are. Hardly any of them are duplicates, so
    that they tell how unrelated pairs become fewer as similarity grows: above the most similar tenth by the same
    factor at each step, the exponential tail of Pickands, "Statistical inference using extreme order statistics",
    1975. It is stretched by DUPLICATES.tail, since far out there are scenes that are alike. What is there beyond
    it are duplicates. Photos that look alike are more than that, too: comparing tells them apart.
    """
    if not len(similarities) or len(at_random) < DUPLICATES.fewest_at_random:
        return Calibration(BINS, (0.0,) * len(BINS), (0.0,), (0.0,), LabelledPairs())
    start = float(np.quantile(at_random, 0.9))
    # Of the exponential distribution the median tells the scale, too, and a few duplicates do not move it.
    scale = float(np.median(at_random[at_random > start] - start)) / np.log(2) * DUPLICATES.tail
    bands = _bands(similarities, DUPLICATES.few_pairs)
    edges = np.append(bands, np.inf)
    beyond = pair_count * 0.1 * np.exp(-np.maximum(edges - start, 0) / max(scale, np.finfo(float).eps))
    band = np.searchsorted(bands, similarities, "right") - 1
    there = np.bincount(band, minlength=len(bands)).astype(np.float64)
    shares = isotonic(1 - np.minimum((beyond[:-1] - beyond[1:]) / np.maximum(there, 1), 1), there)
    middles = _middles(similarities, band, len(bands))
    return Calibration(BINS, (0.0,) * len(BINS), middles, tuple(shares.tolist()), LabelledPairs())


def least_confidence(confidences: NDArray[np.float64], precision: float) -> float:
    """Return from which confidence on pairs are called duplicates, so that they are right on average as often.

    At least DUPLICATES.least_confidence, or the precision if that is less: many sure pairs should not carry along
    what is hardly likely.
    """
    ordered = np.sort(confidences)[::-1]
    averages = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    is_last = np.append(ordered[1:] < ordered[:-1], True)[: len(ordered)]  # of those equally sure: all or none
    is_likely = ordered >= min(DUPLICATES.least_confidence, precision)
    enough = np.flatnonzero(is_last & (averages >= precision) & is_likely)
    return float(ordered[enough[-1]]) if len(enough) else 1.0 + np.finfo(float).eps


def isotonic(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
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


def _counts(inliers: Sequence[int]) -> NDArray[np.float64]:
    """Return how many pairs are in each bin."""
    bins = np.searchsorted(BINS, np.array(inliers, np.int64), "right") - 1
    return np.bincount(bins, minlength=len(BINS)).astype(np.float64)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the pairs in each bin; half a pair is added: none seen is not none there."""
    shares: NDArray[np.float64] = (counts + 0.5) / (counts + 0.5).sum()
    return shares


def _middles(similarities: NDArray[np.float64], band: NDArray[np.int64], count: int) -> tuple[float, ...]:
    """Return the median similarity of each band, none of which is empty; 0.0 where there are no pairs at all."""
    if not len(similarities):
        return (0.0,) * count
    return tuple(float(np.median(similarities[band == number])) for number in range(count))


def _log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(shares, DUPLICATES.least_share, 1 - DUPLICATES.least_share)
    return np.asarray(np.log(bounded / (1 - bounded)))


def _bands(similarities: NDArray[np.float64], fewest: int) -> NDArray[np.float64]:
    """Return the lowest similarity of each band, ascending.

    The most similar band has `fewest` pairs, each further one twice as many as that before it: a few duplicates
    among many other pairs are at the top.
    """
    descending = np.sort(similarities)[::-1]
    sizes = fewest * 2 ** np.arange(max(1, len(descending)).bit_length())
    lowest = np.cumsum(sizes) - 1
    edges = np.unique(descending[lowest[lowest < len(descending) - fewest]])
    if len(edges) and edges[0] == descending[-1]:  # all of what would be the last band are equal: it would be empty
        edges = edges[1:]
    return np.append(-1.0, edges)
