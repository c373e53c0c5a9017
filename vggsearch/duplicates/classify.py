"""Classify pairs as duplicates: find candidates, compare their keypoints, and compute a confidence for each."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES, VOTES
from vggsearch.duplicates.bursts import OTHER_EXPOSURES, SIBLINGS, other_exposures
from vggsearch.duplicates.calibration import (
    Calibration,
    LabelledPairs,
    calibrate,
    calibrate_by_similarity,
    confidence_of_one_more,
    min_confidence,
)
from vggsearch.duplicates.calibration_pairs import CalibrationPairs
from vggsearch.duplicates.candidates import find_candidates, find_sharing_keypoints
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.confirmation import KeypointMatcher
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import (
    CandidatePairs,
    compare_pairs,
    pairs_sharing_a_duplicate,
    random_similarities,
)
from vggsearch.duplicates.results import Photo
from vggsearch.errors import Stopped
from vggsearch.knn.edges import Edges
from vggsearch.photos.decode import FORMATS_WITH_FRAMES
from vggsearch.progress import Monitor

FRAMES = "animations or pages, of which only the first was compared"
SAME_PIXELS_SIMILARITY = 0.96  # below it, two photos of the same size cannot have the same pixels
RAW_AND_DEVELOPED = "a RAW file and a developed photo"
DECIDED_DIFFERENT = "marked as not duplicates"


@dataclass(frozen=True, eq=False)
class ClassifiedPairs:
    """The pairs that are duplicates, those that are only similar, and how they were classified.

    Of a pair in `contains`, one photo shows the other among other pictures, as a collage does. Of a pair in `raw`,
    one is the RAW file of the other.
    `compared` are all pairs considered. `precision` is the expected share of duplicates that are right, `recall`
    the expected share of edited copies that are found, None if unknown. Duplicates have at least `min_confidence`,
    or at least the similarity `threshold`, whichever is not None. `excluded` counts the pairs that were excluded,
    by reason: other exposures, pairs the user marked as different, and pairs in the wrong folders. `is_complete` is
    False if the search was stopped early.

    >>> classified = index.duplicates(threshold=0.99).classified
    >>> classified.threshold, classified.is_complete
    (0.99, True)
    """

    duplicates: CandidatePairs
    similar: CandidatePairs
    contains: CandidatePairs
    raw: CandidatePairs
    compared: CandidatePairs
    calibration: Calibration | None
    precision: float | None
    recall: float | None
    min_confidence: float | None
    threshold: float | None
    excluded: dict[str, int]
    is_complete: bool


def classify_pairs(
    collection: Collection,
    options: DuplicateOptions,
    matcher: KeypointMatcher | None,
    load_labelled: Callable[[], CalibrationPairs | None],
    has_frames: Callable[[int], bool],
    monitor: Monitor,
) -> ClassifiedPairs:
    """Find pairs and classify them. Raises Stopped if it was stopped before any pair was compared.

    The decisions of the user take precedence, and are used for the calibration as well. `matcher` compares pairs,
    None if the photo files are not available. `load_labelled` reads or creates the labelled pairs for the
    calibration. `has_frames` tells whether the photo of a row has several frames or pages, of which only the first
    is compared.
    """
    edges = find_candidates(collection, monitor)
    candidates, is_complete = _most_similar_first(_with_decided_pairs(edges, collection)), True
    if matcher is not None:
        candidates, is_complete = compare_pairs(candidates, matcher, monitor)
    labelled = load_labelled() if matcher is not None and is_complete else None
    are_voted = collection.others is None and len(collection) <= VOTES.most_photos  # however dissimilar
    calibration = _calibration(candidates, collection, labelled, -1.0 if are_voted else edges.floor)
    compared = _with_confidence(candidates, calibration, collection)
    if matcher is not None and labelled is not None and collection.others is None:
        compared, is_complete = _with_shared_keypoints(compared, labelled, collection, matcher, monitor)
    if matcher is not None and collection.others is None and is_complete:
        compared, is_complete = _with_copies_of_copies(
            compared, calibration, collection, matcher, options.min_precision, monitor
        )
    if options.within_folder and collection.others is None:
        compared = _pairs_within_folders(compared, collection)
    is_same = np.zeros(len(compared), bool)
    if matcher is not None and is_complete:
        is_same, is_complete = _same_pictures(compared, collection, matcher, monitor)
    judged = collection.decided.judgements(compared.first, compared.second)
    compared = replace(compared, confidence=np.where(is_same & (judged != -1), 1.0, compared.confidence))
    exclusions = _exclusions(compared, collection, options)
    exclusions[is_same & np.isin(exclusions, (SIBLINGS, OTHER_EXPOSURES))] = ""
    is_open = _is_likely(compared, options, DUPLICATES.similar) & ~is_same & (exclusions == "")
    exclusions[_with_other_frames(compared, is_open, collection, has_frames)] = FRAMES
    return _classified(compared, exclusions, calibration, collection, options, is_complete=is_complete)


def _classified(
    compared: CandidatePairs,
    exclusions: NDArray[np.str_],
    calibration: Calibration,
    collection: Collection,
    options: DuplicateOptions,
    *,
    is_complete: bool,
) -> ClassifiedPairs:
    """Return which pairs are duplicates: confident or similar enough, and not excluded for a reason.

    Pairs that are excluded for their FRAMES may be shown as similar.
    """
    confidence, judgements = compared.confidence, collection.decided.judgements(compared.first, compared.second)
    exclusions[(judgements == 1) & np.isin(exclusions, (SIBLINGS, OTHER_EXPOSURES, RAW_AND_DEVELOPED, FRAMES))] = ""
    exclusions[judgements == -1] = DECIDED_DIFFERENT
    allowed = exclusions == ""
    least = min_confidence(confidence[allowed], options.min_precision)
    if options.threshold is not None:
        is_duplicate = allowed & ((compared.shown_similarity >= options.threshold) | (judgements == 1))
    else:
        is_duplicate = allowed & (confidence >= least)
    is_similar = allowed & ~is_duplicate & (confidence >= DUPLICATES.similar) & options.similar
    is_similar |= (exclusions == FRAMES) & options.similar
    is_raw = exclusions == RAW_AND_DEVELOPED
    counted, recall = confidence[is_duplicate], None
    if calibration.copies.similarities and options.threshold is None:
        recall = calibration.recall(confidence_of_one_more(counted, options.min_precision))
    return ClassifiedPairs(
        duplicates=compared.subset(is_duplicate),
        similar=compared.subset(is_similar),
        contains=compared.subset(np.empty(0, np.int64)),
        raw=compared.subset(is_raw),
        compared=compared,
        calibration=calibration,
        precision=float(counted.mean()) if len(counted) else None,
        recall=recall,
        min_confidence=least if options.threshold is None and len(counted) else None,
        threshold=options.threshold,
        excluded=dict(Counter(exclusions[~allowed & ~is_similar & ~is_raw].tolist())),
        is_complete=is_complete,
    )


def may_show_the_same(first: Photo, second: Photo, similarity: float) -> bool:
    """Return whether it is worth comparing all pixels of two photos."""
    is_same_size = (first.width, first.height) == (second.width, second.height)
    return is_same_size and similarity >= SAME_PIXELS_SIMILARITY


def _same_pictures(
    pairs: CandidatePairs, collection: Collection, matcher: KeypointMatcher, monitor: Monitor
) -> tuple[NDArray[np.bool_], bool]:
    """Return which pairs show the same in every frame and pixel, which is certain without any calibration.

    The second value is False if the comparison was stopped early.
    """
    is_same = np.zeros(len(pairs), bool)
    similar = np.flatnonzero(pairs.similarity >= SAME_PIXELS_SIMILARITY)
    photos = collection.photos([*pairs.first[similar].tolist(), *pairs.second[similar].tolist()])

    def may_be_same(index: int) -> bool:
        first, second = pairs.pair(index)
        return may_show_the_same(photos[first], photos[second], pairs.similarity[index])

    chosen = [index for index in similar.tolist() if may_be_same(index)]
    for start in range(0, len(chosen), DUPLICATES.hashed_at_once):
        some = chosen[start : start + DUPLICATES.hashed_at_once]
        matcher.compare_pixels([pairs.pair(index) for index in some])
        is_same[some] = [matcher.have_same_pixels(pairs.pair(index)) for index in some]
        try:
            monitor.step("comparing pixels", start + len(some), len(chosen), "pairs")
        except Stopped:
            return is_same, False
    return is_same, True


def _with_other_frames(
    pairs: CandidatePairs,
    is_open: NDArray[np.bool_],
    collection: Collection,
    has_frames: Callable[[int], bool],
) -> NDArray[np.bool_]:
    """Return which of the open pairs have a photo of several frames or pages, of which only the first was seen."""
    chosen = np.flatnonzero(is_open)
    photos = collection.photos([*pairs.first[chosen].tolist(), *pairs.second[chosen].tolist()])
    is_other = np.zeros(len(pairs), bool)
    for index in chosen.tolist():
        is_other[index] = any(
            photos[row].format in FORMATS_WITH_FRAMES and has_frames(row) for row in pairs.pair(index)
        )
    return is_other


def _with_confidence(
    pairs: CandidatePairs,
    calibration: Calibration,
    collection: Collection,
    least_share: float = 0.0,
) -> CandidatePairs:
    """Return the pairs with their confidence; decisions of the user override the calibration."""
    confidence = calibration.confidences(pairs.similarity, pairs.inliers, least_share)
    judgements = collection.decided.judgements(pairs.first, pairs.second)
    confidence[judgements == 1], confidence[judgements == -1] = 1.0, 0.0
    return replace(pairs, confidence=confidence)


def _with_shared_keypoints(
    compared: CandidatePairs,
    labelled: CalibrationPairs,
    collection: Collection,
    matcher: KeypointMatcher,
    monitor: Monitor,
) -> tuple[CandidatePairs, bool]:
    """Add the pairs that share keypoints, however dissimilar the photos; these are calibrated by their votes.

    Returns all pairs, and False if the comparison was stopped early.
    """
    try:
        edges = find_sharing_keypoints(collection, matcher, monitor)
        rows = np.sort(collection.contents[np.stack([edges.first, edges.second], axis=1)], axis=1)
        known = set(compared.pairs())
        is_new = np.array([pair not in known for pair in map(tuple, rows.tolist())], bool)
        rows, votes = rows[is_new], edges.similarity[is_new].astype(np.float64)
        pairs = list(map(tuple, rows.tolist()))
        matcher.match(pairs, "comparing photos that share keypoints", monitor)
    except Stopped:
        return compared, False
    inliers = np.array([matcher.inliers(pair) for pair in pairs], np.int64)
    voted = CandidatePairs(rows[:, 0], rows[:, 1], votes, inliers, np.zeros(len(rows)))
    calibration = _calibration(voted, collection, labelled)
    voted = replace(_with_confidence(voted, calibration, collection), similarity=collection.similarities(rows))
    return compared.concat(voted.subset(inliers >= 0)), True


def _with_copies_of_copies(
    compared: CandidatePairs,
    calibration: Calibration,
    collection: Collection,
    matcher: KeypointMatcher,
    precision: float,
    monitor: Monitor,
) -> tuple[CandidatePairs, bool]:
    """Add the pairs that have a duplicate in common, since two strong edits of a photo are hardly similar.

    Returns all pairs, and False if the comparison was stopped early.
    """
    for number in range(DUPLICATES.closures):
        likely = compared.subset(compared.confidence >= min_confidence(compared.confidence, precision))
        pairs = pairs_sharing_a_duplicate(likely, set(compared.pairs()))
        try:
            matcher.match(pairs, f"comparing copies of one photo, round {number + 1}", monitor)
        except Stopped:
            return compared, False
        rows = np.array(pairs, np.int64).reshape(-1, 2)
        inliers = np.array([matcher.inliers(pair) for pair in pairs], np.int64)
        more = CandidatePairs(rows[:, 0], rows[:, 1], collection.similarities(rows), inliers, np.zeros(len(rows)))
        more = _with_confidence(more, calibration, collection, DUPLICATES.of_a_copy).subset(inliers > 0)
        compared = compared.concat(more)
    return compared, True


def _pairs_within_folders(compared: CandidatePairs, collection: Collection) -> CandidatePairs:
    """Replace each pair of contents by the pairs of their first copies in each folder that holds both."""
    rows_of: dict[int, dict[int, int]] = defaultdict(dict)
    for row in np.unique(collection.contents_by_folder).tolist():
        rows_of[int(collection.contents[row])][int(collection.folders[row])] = row
    pairs, indices = [], []
    for index, (first, second) in enumerate(compared.pairs()):
        ones, others = rows_of[first], rows_of[second]
        together = [sorted((ones[folder], others[folder])) for folder in sorted(ones.keys() & others.keys())]
        pairs += together or [[first, second]]
        indices += [index] * max(1, len(together))
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return replace(compared.subset(np.array(indices, np.int64)), first=rows[:, 0], second=rows[:, 1])


def _with_decided_pairs(edges: Edges, collection: Collection) -> CandidatePairs:
    """Return the candidates, and the pairs that the user marked as the same, however dissimilar."""
    first, second = np.sort(collection.contents[[edges.first, edges.second]], axis=0)
    same = collection.decided.same() if collection.others is None else []
    known = set(zip(first.tolist(), second.tolist(), strict=True)) if same else set()
    added = np.array([pair for pair in same if pair not in known], np.int64).reshape(-1, 2)
    first, second = np.concatenate([first, added[:, 0]]), np.concatenate([second, added[:, 1]])
    similarity = np.concatenate([edges.similarity.astype(np.float64), collection.similarities(added)])
    not_compared = np.full(len(first), -1)
    return CandidatePairs(first, second, similarity, not_compared, np.zeros(len(first)))


def _most_similar_first(pairs: CandidatePairs) -> CandidatePairs:
    return pairs.subset(np.lexsort((pairs.second, pairs.first, -pairs.similarity)))


def _calibration(
    pairs: CandidatePairs, collection: Collection, labelled: CalibrationPairs | None, least_similarity: float = -1.0
) -> Calibration:
    if labelled is None:
        return calibrate_by_similarity(pairs.similarity, *random_similarities(collection))
    judgements, was_compared = collection.decided.judgements(pairs.first, pairs.second), pairs.inliers >= 0

    def marked_as(judgement: int) -> LabelledPairs:
        chosen = (judgements == judgement) & was_compared
        return LabelledPairs(tuple(pairs.similarity[chosen].tolist()), tuple(pairs.inliers[chosen].tolist()))

    return calibrate(
        labelled.copies.concat(marked_as(1)),
        labelled.others.concat(marked_as(-1)),
        pairs.similarity[was_compared],
        pairs.inliers[was_compared],
        least_similarity,
    )


def _exclusions(pairs: CandidatePairs, collection: Collection, options: DuplicateOptions) -> NDArray[np.str_]:
    """Return in words why each pair is excluded, "" if it is not."""
    least = min(DUPLICATES.least_confidence, options.min_precision)
    likely = np.flatnonzero(_is_likely(pairs, options, least))
    photos = collection.photos([*pairs.first[likely].tolist(), *pairs.second[likely].tolist()])
    reasons = np.full(len(pairs), "", dtype="<U64")
    for index in likely.tolist():
        first, second = pairs.pair(index)
        is_in_one = _are_in_one_folder(first, second, collection)
        reasons[index] = _exclusion(photos[first], photos[second], options, is_in_one) or ""
    return reasons


def _is_likely(pairs: CandidatePairs, options: DuplicateOptions, least: float) -> NDArray[np.bool_]:
    """Return which pairs have the `least` confidence, or the similarity that the user chose instead."""
    if options.threshold is not None:
        return np.asarray(pairs.shown_similarity >= options.threshold)
    return np.asarray(pairs.confidence >= least)


def _are_in_one_folder(first: int, second: int, collection: Collection) -> bool:
    """Return whether all copies of two contents lie in one and the same folder."""
    folder = collection.only_folder[first]
    return bool(folder >= 0 and folder == collection.only_folder[second])


def _exclusion(first: Photo, second: Photo, options: DuplicateOptions, is_in_one_folder: bool) -> str | None:
    is_same_folder = PurePosixPath(first.path).parent == PurePosixPath(second.path).parent
    if options.within_folder and not is_same_folder:
        return "in different folders"
    if options.across_folders and is_in_one_folder:
        return "in the same folder"
    if first.is_raw != second.is_raw:
        return other_exposures(first, second) or RAW_AND_DEVELOPED
    return None if options.siblings else other_exposures(first, second)
