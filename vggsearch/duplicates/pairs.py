"""Candidate pairs and their comparison by keypoints, and unrelated pairs for the calibration."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, DUPLICATES, PAIRS
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.confirmation import KeypointMatcher
from vggsearch.errors import Stopped
from vggsearch.matching.alignment import INLIERS_OF_HALF_SCORE
from vggsearch.progress import Monitor


@dataclass(frozen=True, eq=False)
class CandidatePairs:
    """Pairs of rows that may be duplicates, most similar first: `first` and `second`, int64 (n,).

    `similarity`, float64 (n,), is the cosine; `inliers`, int64 (n,), the weight of the evidence, see
    matching.alignment.Alignment, that is the number of matching keypoints if the pixels do not agree; -1 if not
    compared. `confidence`, float64 (n,), the estimated probability that they are duplicates.

    >>> compared = index.duplicates().classified.compared
    >>> len(compared), compared.similarity.dtype
    (3, dtype('float64'))
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float64]
    inliers: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)

    @cached_property
    def shown_similarity(self) -> NDArray[np.float64]:
        """The similarity that is reported, raised by matching keypoints as in re-ranking: float64 (n,)."""
        score = np.maximum(self.inliers, 0) / (np.maximum(self.inliers, 0) + INLIERS_OF_HALF_SCORE)
        raised: NDArray[np.float64] = self.similarity + (1 - self.similarity) * ALIGN.weight * score
        return raised

    def pairs(self) -> list[tuple[int, int]]:
        """Return the rows of each pair."""
        return list(zip(self.first.tolist(), self.second.tolist(), strict=True))

    def concat(self, others: "CandidatePairs") -> "CandidatePairs":
        """Return these pairs and others."""
        columns = ((getattr(self, name), getattr(others, name)) for name in self.__dataclass_fields__)
        return CandidatePairs(*map(np.concatenate, columns))

    def pair(self, index: int) -> tuple[int, int]:
        """Return the rows of one pair."""
        return int(self.first[index]), int(self.second[index])

    def subset(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "CandidatePairs":
        """Return the pairs chosen by indices or by a mask."""
        return CandidatePairs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def compare_pairs(
    candidates: CandidatePairs, matcher: KeypointMatcher, monitor: Monitor
) -> tuple[CandidatePairs, bool]:
    """Compare pairs by keypoints, most similar first, until hardly any further pair is a duplicate.

    Returns the pairs that were compared, and False if the comparison was stopped early.
    """
    pairs, counts = candidates.pairs(), np.full(len(candidates), -1)
    for start in range(0, len(pairs), DUPLICATES.block_pairs):
        block = pairs[start : start + DUPLICATES.block_pairs]
        is_complete = True
        try:
            matcher.match(block, "comparing pairs", monitor, before=start, total=len(pairs))
        except Stopped:
            is_complete = False
        inliers = np.array([matcher.inliers(pair) for pair in block])
        counts[start : start + len(block)] = inliers
        is_exhausted = np.mean(inliers >= DUPLICATES.confirmed) < DUPLICATES.fewest_confirmed
        if is_exhausted or not is_complete:
            last = start + len(block)
            return replace(candidates, inliers=counts).subset(np.arange(last)), is_complete
    return replace(candidates, inliers=counts), True


def pairs_sharing_a_duplicate(pairs: CandidatePairs, known: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pairs of photos that have a duplicate in common, except those in `known`."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for first, second in pairs.pairs():
        neighbours[first].add(second)
        neighbours[second].add(first)
    few = (each for each in neighbours.values() if len(each) <= DUPLICATES.most_neighbours)
    return sorted({pair for each in few for pair in combinations(sorted(each), 2)} - known)


def random_similarities(collection: Collection) -> tuple[NDArray[np.float64], int]:
    """Return the similarities of random pairs of the index's own photos, and the number of all pairs."""
    own, theirs = collection.own_contents, collection.others
    if len(own) < 2:
        return np.empty(0), 0
    drawn = np.random.default_rng(DUPLICATES.seed).choice(own, (DUPLICATES.at_random, 2))
    drawn = np.unique(np.sort(drawn[drawn[:, 0] != drawn[:, 1]], axis=1), axis=0)
    pair_count = len(own) * (len(own) - 1) // 2 if theirs is None else len(own) * len(theirs.own_contents)
    return collection.similarities(drawn), pair_count


def unrelated_pairs(collection: Collection) -> list[tuple[int, int]]:
    """Return at most DUPLICATES.unrelated random pairs of photos that are not similar enough to be candidates.

    They are drawn from few photos, since detecting the keypoints of a photo takes most of the time.
    """
    generator = np.random.default_rng(DUPLICATES.seed)
    rows = collection.own_contents
    if len(rows) < 2:
        return []
    few = generator.choice(rows, min(len(rows), DUPLICATES.unrelated_photos), replace=False)
    drawn = generator.choice(few, (2 * DUPLICATES.unrelated, 2))
    is_unrelated = (collection.similarities(drawn) < PAIRS.floor) & (drawn[:, 0] != drawn[:, 1])
    subset = dict.fromkeys((int(min(pair)), int(max(pair))) for pair in drawn[is_unrelated])
    return list(subset)[: DUPLICATES.unrelated]
