"""The probability that two photos are duplicates, calibrated on the photos themselves.

Two sets of pairs are labelled in advance: edited copies made of a sample of the photos are duplicates, random pairs
of photos are not. The numbers of inliers in both give the likelihood ratio of each number of inliers, which starts
from the pairs of other folders: a small folder has too few. The prior probability that a pair of the collection is
a duplicate depends on its similarity, and on the number of photos, since the number of unrelated pairs grows with
its square: it is estimated by expectation maximisation, separately for each band of similarity. By Bayes'
theorem, both give the confidence of a pair. The pairs reported as duplicates are the most confident ones whose
average confidence reaches the wanted precision: the local false discovery rate of Efron, "Large-scale inference",
2010, chapter 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES
from vggsearch.matching.isotonic import isotonic

# The smallest number of inliers in each bin. There is no alignment with fewer than four, and from 65 on, the pixels
# agree, too.
INLIER_BINS = (0, 4, 5, 6, 7, 8, 10, 12, 15, 19, 25, 35, 65)
NO_EVIDENCE = (0.0,) * len(INLIER_BINS)
# The pairs in each bin, of edited copies and of pairs of different photos: benchmarks/duplicates_prior.py.
PRIOR_COPIES = (22, 0, 0, 1, 0, 0, 0, 2, 3, 1, 3, 2, 866)
PRIOR_OTHERS = (3643, 18, 36, 3, 1, 12, 5, 6, 8, 2, 2, 1, 0)


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs that are all duplicates, or all not: the similarity and the evidence of each.

    `inliers` is the number of matching keypoints, and EVIDENCE_OF_PIXELS more if the pixels agree, too; see
    matching.alignment.Alignment.

    >>> copies = index.duplicates().classified.calibration.copies
    >>> len(copies.similarities) == len(copies.inliers)
    True
    """

    similarities: tuple[float, ...] = ()
    inliers: tuple[int, ...] = ()

    def concat(self, others: "LabelledPairs") -> "LabelledPairs":
        """Return these pairs and others."""
        return LabelledPairs(self.similarities + others.similarities, self.inliers + others.inliers)


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`.

    `inliers` is the smallest number of inliers in each bin, `evidence` the log of the likelihood ratio of the bin,
    between duplicates and other pairs. `similarities` are the medians of the bands, ascending, `shares` the share
    of duplicates in each band, `sizes` its number of pairs. `copies` are the edited copies it was learned from.
    Pairs that are less similar than `least_similarity` are not compared.

    >>> calibration = index.duplicates().classified.calibration
    >>> len(calibration.inliers) == len(calibration.evidence)
    True
    """

    inliers: tuple[int, ...]
    evidence: tuple[float, ...]
    similarities: tuple[float, ...]
    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    copies: LabelledPairs
    least_similarity: float = -1.0

    def confidences(
        self, similarities: NDArray[np.float64], inliers: NDArray[np.int64], least_share: float = 0.0
    ) -> NDArray[np.float64]:
        """Return the probability, 0..1, that each pair is a pair of duplicates; `inliers` of -1 mean not compared.

        The prior probability, without regard to keypoints, is at least `least_share`.
        """
        return self._confidences(np.maximum(self.shares, least_share), similarities, inliers)

    @property
    def tried(self) -> int:
        """The number of edited copies that `recall` is learned from, those of the prior included."""
        return len(self.copies.similarities) + DUPLICATES.prior_copies

    def recall(self, confidence: float) -> float:
        """Return the share of edited copies, 0..1, that are likely compared and have at least this confidence.

        Few copies were made of the folder, so those of the prior, taken to be as similar, count as
        DUPLICATES.prior_copies further ones. 0 if none were made. Their confidence is the one they have if they are
        in the folder: among few pairs, one more copy counts.
        """
        if not self.copies.similarities:
            return 0.0
        similarities = np.array(self.copies.similarities)
        shares = (np.array(self.shares) * (np.array(self.sizes) + 1) + 1) / (np.array(self.sizes) + 2)

        def found(inliers: NDArray[np.int64]) -> NDArray[np.float64]:
            is_likely = self._confidences(shares, similarities, inliers) >= confidence
            return np.asarray(np.mean(is_likely & (similarities >= self.least_similarity), axis=-1))

        of_folder = float(found(np.array(self.copies.inliers)))
        of_prior = float(np.average(found(np.array(INLIER_BINS)[:, None]), weights=PRIOR_COPIES))
        return of_folder + (of_prior - of_folder) * DUPLICATES.prior_copies / self.tried

    def _confidences(
        self, shares: NDArray[np.float64], similarities: NDArray[np.float64], inliers: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        bins = np.maximum(np.searchsorted(self.inliers, inliers, "right") - 1, 0)
        evidence = np.where(inliers >= 0, np.array(self.evidence)[bins], 0.0)
        odds = np.interp(similarities, self.similarities, _log_odds(shares)) + evidence
        confidences: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
        return confidences


def calibrate(
    copies: LabelledPairs,
    others: LabelledPairs,
    similarities: NDArray[np.float64],
    inliers: NDArray[np.int64],
    least_similarity: float = -1.0,
) -> Calibration:
    """Calibrate on labelled pairs and on the collection's own compared pairs, (n,) both.

    The labelled pairs add to those of the prior. Pairs below `least_similarity` were not compared.

    Bands with hardly any duplicates also count as pairs that are not duplicates: they are many and include similar
    photos. Other bands do not: strong edits of one photo, compared with each other, would be taken for similar
    photos.
    """
    among_copies = _shares(np.array(PRIOR_COPIES) + counts_of(copies.inliers))
    counts_of_others = np.array(PRIOR_OTHERS) + counts_of(others.inliers)
    bins = np.searchsorted(INLIER_BINS, inliers, "right") - 1
    bands = _bands(similarities, DUPLICATES.band_pairs)
    band = np.searchsorted(bands, similarities, "right") - 1
    sizes = np.bincount(band, minlength=len(bands)).astype(np.float64)
    shares = np.full(len(bands), 0.5)
    evidence = isotonic(np.log(among_copies / _shares(counts_of_others)))
    for _ in range(DUPLICATES.rounds):
        odds = _log_odds(shares)[band] + evidence[bins]
        confidence = 1 / (1 + np.exp(-odds))
        expected = np.bincount(band, confidence, len(bands)) + DUPLICATES.assumed_share
        shares = isotonic(expected / (sizes + 1), sizes)  # as if one more pair was known
        further_others = (1 - confidence) * (shares <= DUPLICATES.mostly_others)[band]
        counts = counts_of_others + np.bincount(bins, further_others, len(INLIER_BINS))
        evidence = isotonic(np.log(among_copies / _shares(counts)))
    shares = np.minimum(shares, DUPLICATES.largest_share)
    medians = _medians(similarities, bands)
    counted = tuple(sizes.astype(int).tolist())
    learned = tuple(evidence.tolist())
    return Calibration(INLIER_BINS, learned, medians, tuple(shares.tolist()), counted, copies, least_similarity)


def calibrate_by_similarity(
    similarities: NDArray[np.float64], at_random: NDArray[np.float64], pair_count: int
) -> Calibration:
    """Calibrate on the similarities of the candidates alone, (n,), when no photos were compared.

    `at_random` are the similarities of random pairs, out of all `pair_count` pairs. Hardly any of these are
    duplicates, so they show how the number of unrelated pairs falls with rising similarity: exponentially in the
    most similar tenth, the tail of Pickands, "Statistical inference using extreme order statistics", 1975. The tail
    is stretched by DUPLICATES.tail, since similar scenes make it longer than that. All pairs in excess of it count
    as duplicates, including photos that are only similar, which only a comparison can tell from copies.
    """
    if not len(similarities) or len(at_random) < DUPLICATES.fewest_at_random:
        return Calibration(INLIER_BINS, NO_EVIDENCE, (0.0,), (0.0,), (0,), LabelledPairs())
    start = float(np.quantile(at_random, 0.9))
    # The scale of an exponential distribution follows from its median, which a few duplicates do not change.
    scale = float(np.median(at_random[at_random > start] - start)) / np.log(2) * DUPLICATES.tail
    bands = _bands(similarities, DUPLICATES.few_pairs, DUPLICATES.most_pairs)
    edges = np.append(np.maximum(bands, similarities.min()), np.inf)  # there are no candidates below
    unrelated_above = pair_count * 0.1 * np.exp(-np.maximum(edges - start, 0) / max(scale, np.finfo(float).eps))
    unrelated = unrelated_above[:-1] - unrelated_above[1:]
    band = np.searchsorted(bands, similarities, "right") - 1
    counts = np.bincount(band, minlength=len(bands)).astype(np.float64)
    shares = isotonic(1 - np.minimum(unrelated / np.maximum(counts, 1), 1), counts)
    medians = _medians(similarities, bands)
    counted = tuple(counts.astype(int).tolist())
    return Calibration(INLIER_BINS, NO_EVIDENCE, medians, tuple(shares.tolist()), counted, LabelledPairs())


def min_confidence(confidences: NDArray[np.float64], precision: float) -> float:
    """Return the lowest confidence of a duplicate at which the average confidence of duplicates is the precision.

    It is at least DUPLICATES.least_confidence, or `precision` if that is lower: many certain pairs must not make up
    for unlikely ones. Above 1 if there are no duplicates.
    """
    ordered = np.sort(confidences)[::-1]
    averages = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    is_last = np.append(ordered[1:] < ordered[:-1], True)[: len(ordered)]  # equal confidences: all or none
    is_likely = ordered >= min(DUPLICATES.least_confidence, precision)
    sufficient = np.flatnonzero(is_last & (averages >= precision) & is_likely)
    return float(ordered[sufficient[-1]]) if len(sufficient) else 1.0 + np.finfo(float).eps


def confidence_of_one_more(duplicates: NDArray[np.float64], precision: float) -> float:
    """Return the lowest confidence with which one more pair is a duplicate, beside those with these confidences.

    It is lower than that of any of them where their average exceeds the precision, see `min_confidence`.
    """
    making_up = precision * (len(duplicates) + 1) - float(duplicates.sum())
    return max(making_up, min(DUPLICATES.least_confidence, precision))


def likely_shares(found: int, tried: int, among: int) -> tuple[float, float]:
    """Return the lowest and the highest share, 0..1, of `among` copies that is likely found: 95 % are between them.

    Of `tried` other copies, `found` were found. The number is beta-binomial, from Jeffreys' prior. It is uncertain
    if few were tried, and if there are few: of two copies, a half may be found.
    """
    successes, failures = found + 0.5, tried - found + 0.5
    numbers = range(among + 1)
    logarithms = np.array(
        [
            _log_beta(successes + number, failures + among - number) - _log_beta(number + 1, among - number + 1)
            for number in numbers
        ]
    )
    weights = np.exp(logarithms - logarithms.max())
    up_to = weights.cumsum() / weights.sum()
    lowest, highest = np.searchsorted(up_to, (0.025, 0.975)).tolist()
    return lowest / among, highest / among


def _log_beta(one: float, other: float) -> float:
    return lgamma(one) + lgamma(other) - lgamma(one + other)


def counts_of(inliers: Sequence[int]) -> NDArray[np.float64]:
    """Return the number of pairs in each bin."""
    bins = np.searchsorted(INLIER_BINS, np.array(inliers, np.int64), "right") - 1
    return np.bincount(bins, minlength=len(INLIER_BINS)).astype(np.float64)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the pairs in each bin, with half a pair added: no probability is estimated as 0."""
    shares: NDArray[np.float64] = (counts + 0.5) / (counts + 0.5).sum()
    return shares


def _medians(similarities: NDArray[np.float64], bands: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the median similarity of each band, none of which is empty; 0.0 if there are no pairs at all.

    `bands` are the lowest similarities of the bands, ascending.
    """
    if not len(similarities):
        return (0.0,) * len(bands)
    ascending = np.sort(similarities)
    each = np.split(ascending, np.searchsorted(ascending, bands[1:], "left"))
    return tuple(float(np.median(band)) for band in each)


def _log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(shares, DUPLICATES.least_share, 1 - DUPLICATES.least_share)
    return np.asarray(np.log(bounded / (1 - bounded)))


def _bands(similarities: NDArray[np.float64], fewest: int, most: int | None = None) -> NDArray[np.float64]:
    """Return the lowest similarity of each band, ascending.

    The most similar band has `fewest` pairs, and each further band twice as many as the one before, `most` at most,
    since a few duplicates among many other pairs are at the top.
    """
    descending = np.sort(similarities)[::-1]
    most = most or max(1, len(descending))
    sizes = np.minimum(fewest * 2.0 ** np.arange(most.bit_length()), most).astype(np.int64)
    sizes = np.append(sizes, np.full(len(descending) // most, most))
    lowest = np.cumsum(sizes) - 1
    edges = np.unique(descending[lowest[lowest < len(descending) - fewest]])
    if len(edges) and edges[0] == descending[-1]:  # all values of the last band are equal, and it would be empty
        edges = edges[1:]
    return np.append(-1.0, edges)
