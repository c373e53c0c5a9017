"""Find duplicates: candidates by similarity, compared by keypoints, a confidence for each pair, then groups."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.bursts import sibling
from vggsearch.duplicates.calibration import Calibration, LabelledPairs, by_similarity, calibrate, least_confidence
from vggsearch.duplicates.calibration_pairs import CalibrationPairs
from vggsearch.duplicates.candidates import candidates_of
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import CandidatePairs, compare, pairs_sharing_a_duplicate, similarities_at_random
from vggsearch.duplicates.results import Photo
from vggsearch.duplicates.verification import KeypointMatcher
from vggsearch.errors import Stopped
from vggsearch.knn.edges import Edges
from vggsearch.progress import Monitor
from vggsearch.store.decisions import Judgement

Judged = dict[tuple[str, str], Judgement]
ONE_PRESS = "one press of the button: a burst, or raw and developed"
SAID = "different, as was said"


@dataclass(frozen=True, eq=False)
class ClassifiedPairs:
    """The pairs that are duplicates, those that are similar, and how they were chosen.

    `compared` are all that were looked at, for a histogram. `precision` is how many of the duplicates are expected
    to be right, `recall` how many edited copies are expected to be found, None where no copies were made;
    `least_confidence` is where they begin, or `threshold`, a similarity. `left_alone` counts the pairs of one press
    of the button, and those a person said are different. `is_whole` is false where it was stopped.
    """

    duplicates: CandidatePairs
    similar: CandidatePairs
    compared: CandidatePairs
    calibration: Calibration | None
    precision: float | None
    recall: float | None
    least_confidence: float | None
    threshold: float | None
    left_alone: dict[str, int]
    is_whole: bool


def classify_pairs(
    collection: Collection,
    options: DuplicateOptions,
    judged: Judged,
    matcher: KeypointMatcher | None,
    known: Callable[[], CalibrationPairs | None],
    monitor: Monitor,
) -> ClassifiedPairs:
    """Return the pairs that are duplicates. Raises Stopped where it was stopped before any were compared.

    `checks` compares pairs, None where the photos are not there; `known` makes, or reads, what a calibration learns
    from. `judged` is what a person said of pairs, by sha256: it decides, and is learned from.
    """
    edges = candidates_of(collection, monitor)
    candidates, is_whole = _most_similar_first(_with_judged(edges, collection, judged)), True
    if matcher is not None:
        candidates, is_whole = compare(candidates, matcher, monitor)
    calibration = _calibration(
        candidates, collection, judged, known() if matcher is not None and is_whole else None
    )
    compared = _with_confidence(candidates, calibration, collection, judged)
    if matcher is not None and collection.others is None and is_whole:
        compared, is_whole = _closed(
            compared, calibration, collection, judged, matcher, options.min_precision, monitor
        )
    if options.by_folder and collection.others is None:
        compared = _of_folders(compared, collection)
    return _chosen(compared, calibration, collection, judged, options, is_whole=is_whole)


def _chosen(
    compared: CandidatePairs,
    calibration: Calibration,
    collection: Collection,
    judged: Judged,
    options: DuplicateOptions,
    *,
    is_whole: bool,
) -> ClassifiedPairs:
    """Return which of the pairs are duplicates: sure enough or alike enough, and not to be left alone."""
    confidence, judgements = compared.confidence, _judgements(compared, collection, judged)
    left_alone = _left_alone(compared, collection, options)
    left_alone[(judgements == 1) & (left_alone == ONE_PRESS)] = ""
    left_alone[judgements == -1] = SAID
    allowed = left_alone == ""
    is_exact = collection.contents[compared.first] == collection.contents[compared.second]
    least = least_confidence(confidence[allowed & ~is_exact], options.min_precision)
    if options.threshold is not None:
        is_duplicate = allowed & ((compared.raised >= options.threshold) | (judgements == 1) | is_exact)
    else:
        is_duplicate = allowed & ((confidence >= least) | is_exact)
    is_similar = allowed & ~is_duplicate & (confidence >= DUPLICATES.similar) & options.similar
    counted = confidence[is_duplicate & ~is_exact]
    return ClassifiedPairs(
        duplicates=compared.subset(is_duplicate),
        similar=compared.subset(is_similar),
        compared=compared,
        calibration=calibration,
        precision=float(counted.mean()) if len(counted) else None,
        recall=calibration.recall(least) if calibration.copies.similarities and options.threshold is None else None,
        least_confidence=least if options.threshold is None and len(counted) else None,
        threshold=options.threshold,
        left_alone=dict(Counter(left_alone[~allowed].tolist())),
        is_whole=is_whole,
    )


def _with_confidence(
    pairs: CandidatePairs,
    calibration: Calibration,
    collection: Collection,
    judged: Judged,
    least_share: float = 0.0,
) -> CandidatePairs:
    """Return the pairs with how sure it is; a person is surer than that."""
    confidence = calibration.confidences(pairs.similarity, pairs.inliers, least_share)
    judgements = _judgements(pairs, collection, judged)
    confidence[judgements == 1], confidence[judgements == -1] = 1.0, 0.0
    return replace(pairs, confidence=confidence)


def _closed(
    compared: CandidatePairs,
    calibration: Calibration,
    collection: Collection,
    judged: Judged,
    matcher: KeypointMatcher,
    precision: float,
    monitor: Monitor,
) -> tuple[CandidatePairs, bool]:
    """Return the pairs, and those that have a duplicate in common: two hard edits of a photo are hardly alike.

    And whether it came to its end.
    """
    for number in range(DUPLICATES.closures):
        likely = compared.subset(compared.confidence >= least_confidence(compared.confidence, precision))
        pairs = pairs_sharing_a_duplicate(likely, set(compared.pairs()))
        try:
            matcher.match(pairs, f"comparing copies of one photo, round {number + 1}", monitor)
        except Stopped:
            return compared, False
        rows = np.array(pairs, np.int64).reshape(-1, 2)
        inliers = np.array([matcher.inliers(pair) for pair in pairs], np.int64)
        more = CandidatePairs(rows[:, 0], rows[:, 1], collection.similarities(rows), inliers, np.zeros(len(rows)))
        more = _with_confidence(more, calibration, collection, judged, DUPLICATES.of_a_copy).subset(inliers > 0)
        compared = compared.concat(more)
    return compared, True


def _of_folders(compared: CandidatePairs, collection: Collection) -> CandidatePairs:
    """Return the pairs of contents as pairs of their copies, the first in each folder; then the copies of each."""
    first_rows = np.unique(collection.copies)
    of: dict[int, list[int]] = defaultdict(list)
    for row in np.setdiff1d(first_rows, collection.blank).tolist():
        of[int(collection.contents[row])].append(row)
    several = {content: rows for content, rows in of.items() if len(rows) > 1}
    pairs, places = [], []
    for place, (first, second) in enumerate(compared.pairs()):
        for pair in product(several.get(first, [first]), several.get(second, [second])):
            pairs.append(sorted(pair))
            places.append(place)
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    found = replace(compared.subset(np.array(places, np.int64)), first=rows[:, 0], second=rows[:, 1])
    exact = np.array([pair for some in several.values() for pair in combinations(some, 2)], np.int64).reshape(-1, 2)
    ones = np.ones(len(exact))
    return found.concat(CandidatePairs(exact[:, 0], exact[:, 1], ones, np.full(len(exact), -1), ones))


def _with_judged(edges: Edges, collection: Collection, judged: Judged) -> CandidatePairs:
    """Return the candidates, and the pairs that were said to be the same, however little alike."""
    first, second = edges.first.astype(np.int64), edges.second.astype(np.int64)
    similarity = edges.similarity.astype(np.float64)
    rows = {collection.key(row): int(row) for row in np.unique(collection.contents)} if judged else {}
    there = set(zip(first.tolist(), second.tolist(), strict=True)) if judged else set()
    same = [
        tuple(sorted((rows[one], rows[other])))
        for (one, other), judgement in judged.items()
        if judgement == "same" and collection.others is None and one in rows and other in rows
    ]
    added = np.array([pair for pair in same if pair not in there], np.int64).reshape(-1, 2)
    first, second = np.concatenate([first, added[:, 0]]), np.concatenate([second, added[:, 1]])
    similarity = np.concatenate([similarity, collection.similarities(added)])
    unknown = np.full(len(first), -1)
    return CandidatePairs(first, second, similarity, unknown, np.zeros(len(first)))


def _most_similar_first(pairs: CandidatePairs) -> CandidatePairs:
    return pairs.subset(np.lexsort((pairs.second, pairs.first, -pairs.similarity)))


def _judgements(pairs: CandidatePairs, collection: Collection, judged: Judged) -> NDArray[np.int64]:
    """Return 1 for each pair that was said to be the same, -1 for different, 0 for none of both."""
    if not judged:
        return np.zeros(len(pairs), np.int64)
    worth = {"same": 1, "different": -1, "undecided": 0}
    keys = ([collection.key(row) for row in pair] for pair in pairs.pairs())
    said = (judged.get((min(pair), max(pair)), "undecided") for pair in keys)
    return np.array([worth[each] for each in said], np.int64)


def _calibration(
    pairs: CandidatePairs, collection: Collection, judged: Judged, known: CalibrationPairs | None
) -> Calibration:
    if known is None:
        return by_similarity(pairs.similarity, *similarities_at_random(collection))
    said, was_compared = _judgements(pairs, collection, judged), pairs.inliers >= 0

    def labelled(worth: int) -> LabelledPairs:
        which = (said == worth) & was_compared
        return LabelledPairs(tuple(pairs.similarity[which].tolist()), tuple(pairs.inliers[which].tolist()))

    return calibrate(
        known.copies.and_also(labelled(1)),
        known.others.and_also(labelled(-1)),
        pairs.similarity[was_compared],
        pairs.inliers[was_compared],
    )


def _left_alone(pairs: CandidatePairs, collection: Collection, options: DuplicateOptions) -> NDArray[np.str_]:
    """Return in words why each pair is not looked at, "" where it is."""
    likely = np.flatnonzero(pairs.confidence >= DUPLICATES.least_confidence)
    if options.threshold is not None:
        likely = np.flatnonzero(pairs.raised >= options.threshold)
    photos = collection.photos([*pairs.first[likely].tolist(), *pairs.second[likely].tolist()])
    found = np.full(len(pairs), "", dtype="<U64")
    for place in likely.tolist():
        first, second = photos[int(pairs.first[place])], photos[int(pairs.second[place])]
        found[place] = _why_not(first, second, options) or ""
    return found


def _why_not(first: Photo, second: Photo, options: DuplicateOptions) -> str | None:
    is_one_folder = PurePosixPath(first.path).parent == PurePosixPath(second.path).parent
    if options.within_folder and not is_one_folder:
        return "in two folders"
    if options.across_folders and is_one_folder:
        return "in one folder"
    if not options.siblings and sibling(first, second) is not None:
        return ONE_PRESS
    return None
