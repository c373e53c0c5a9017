"""Compare candidates by keypoints, and pairs that have nothing in common, to know what that is worth."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, DUPLICATES, PAIRS
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.verification import KeypointMatcher
from vggsearch.errors import Stopped
from vggsearch.matching.keypoints import INLIERS_OF_HALF_SCORE
from vggsearch.progress import Monitor


@dataclass(frozen=True, eq=False)
class CandidatePairs:
    """Pairs of rows that may be duplicates, most similar first: `first` and `second`, int64 (n,).

    `similarity` is the cosine, float64 (n,), `inliers` are of keypoints, int64 (n,), -1 where none were looked for;
    `confidence`, float64 (n,), is how sure it is that they are duplicates.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float64]
    inliers: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.first)

    @cached_property
    def raised(self) -> NDArray[np.float64]:
        """Return the similarities as they are shown: raised by what the keypoints say, float64 (n,)."""
        score = np.maximum(self.inliers, 0) / (np.maximum(self.inliers, 0) + INLIERS_OF_HALF_SCORE)
        raised: NDArray[np.float64] = self.similarity + (1 - self.similarity) * ALIGN.weight * score
        return raised

    def pairs(self) -> list[tuple[int, int]]:
        """Return the rows of each pair."""
        return list(zip(self.first.tolist(), self.second.tolist(), strict=True))

    def concat(self, others: "CandidatePairs") -> "CandidatePairs":
        """Return these and others."""
        columns = ((getattr(self, name), getattr(others, name)) for name in self.__dataclass_fields__)
        return CandidatePairs(*map(np.concatenate, columns))

    def pair(self, place: int) -> tuple[int, int]:
        """Return the rows of one pair."""
        return int(self.first[place]), int(self.second[place])

    def subset(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> "CandidatePairs":
        """Return some of them."""
        return CandidatePairs(*(getattr(self, name)[places] for name in self.__dataclass_fields__))


def compare(candidates: CandidatePairs, matcher: KeypointMatcher, monitor: Monitor) -> tuple[CandidatePairs, bool]:
    """Compare the pairs by keypoints, most similar first, until hardly any more are duplicates.

    Return those that were compared, and whether it came to its end.
    """
    pairs, counts = candidates.pairs(), np.full(len(candidates), -1)
    for start in range(0, len(pairs), DUPLICATES.block_pairs):
        block = pairs[start : start + DUPLICATES.block_pairs]
        is_whole = True
        try:
            matcher.match(block, "comparing pairs", monitor, before=start, total=len(pairs))
        except Stopped:
            is_whole = False
        inliers = np.array([matcher.inliers(pair) for pair in block])
        counts[start : start + len(block)] = inliers
        is_over = np.mean(inliers >= DUPLICATES.confirmed) < DUPLICATES.fewest_confirmed
        if is_over or not is_whole:
            last = start + len(block)
            return replace(candidates, inliers=counts).subset(np.arange(last)), is_whole
    return replace(candidates, inliers=counts), True


def pairs_sharing_a_duplicate(pairs: CandidatePairs, seen: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pairs of photos that have a duplicate in common, but for those that were `seen`."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for first, second in pairs.pairs():
        neighbours[first].add(second)
        neighbours[second].add(first)
    few = (each for each in neighbours.values() if len(each) <= DUPLICATES.most_neighbours)
    return sorted({pair for each in few for pair in combinations(sorted(each), 2)} - seen)


def similarities_at_random(collection: Collection) -> tuple[NDArray[np.float64], int]:
    """Return the similarities of pairs of the index's own photos at random, and how many pairs there are."""
    own, theirs = collection.own_contents, collection.others
    if len(own) < 2:
        return np.empty(0), 0
    drawn = np.random.default_rng(DUPLICATES.seed).choice(own, (DUPLICATES.at_random, 2))
    drawn = np.unique(np.sort(drawn[drawn[:, 0] != drawn[:, 1]], axis=1), axis=0)
    there_are = len(own) * (len(own) - 1) // 2 if theirs is None else len(own) * len(theirs.own_contents)
    return collection.similarities(drawn), there_are


def unrelated_pairs(collection: Collection) -> list[tuple[int, int]]:
    """Return DUPLICATES.unrelated pairs of photos at random that are too little alike to be candidates.

    They are pairs of few photos, since finding the keypoints of a photo takes most of the time.
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
