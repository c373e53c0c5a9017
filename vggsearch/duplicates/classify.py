"""Find duplicates: candidates by similarity, compared by keypoints, a confidence for each pair, then groups."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.bursts import sibling
from vggsearch.duplicates.calibration import Calibration, Known, by_similarity, calibrate, least_confidence
from vggsearch.duplicates.calibration_pairs import KnownPairs
from vggsearch.duplicates.candidates import candidates_of
from vggsearch.duplicates.collection import Pool
from vggsearch.duplicates.decisions import Judgement
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import Compared, compare, in_common, similarities_at_random
from vggsearch.duplicates.results import Photo
from vggsearch.duplicates.verification import Checks
from vggsearch.knn.all_pairs import Stop
from vggsearch.knn.build import Tell
from vggsearch.knn.edges import Edges

Judged = dict[tuple[str, str], Judgement]
ONE_PRESS = "one press of the button: a burst, or raw and developed"
SAID = "different, as was said"


@dataclass(frozen=True, eq=False)
class Found:
    """The pairs that are duplicates, those that are similar, and how they were chosen.

    `compared` are all that were looked at, for a histogram. `precision` is how many of the duplicates are expected
    to be right, `recall` how many edited copies are expected to be found, None where no copies were made;
    `least_confidence` is where they begin, or `threshold`, a similarity. `left_alone` counts the pairs of one press
    of the button, and those a person said are different. `is_whole` is false where it was stopped.
    """

    duplicates: Compared
    similar: Compared
    compared: Compared
    calibration: Calibration | None
    precision: float | None
    recall: float | None
    least_confidence: float | None
    threshold: float | None
    left_alone: dict[str, int]
    is_whole: bool


def find_pairs(
    pool: Pool,
    options: DuplicateOptions,
    judged: Judged,
    checks: Checks | None,
    known: Callable[[], KnownPairs | None],
    tell: Tell,
    stop: Stop | None = None,
) -> Found | None:
    """Return the pairs that are duplicates; None where it was stopped before any were compared.

    `checks` compares pairs, None where the photos are not there; `known` makes, or reads, what a calibration learns
    from. `judged` is what a person said of pairs, by sha256: it decides, and is learned from.
    """
    edges = candidates_of(pool, lambda done, total: tell("finding candidates", done, total), stop)
    if edges is None:
        return None
    candidates, is_whole = _most_similar_first(_with_judged(edges, pool, judged)), True
    if checks is not None:
        candidates, is_whole = compare(candidates, checks, tell, stop)
    calibration = _calibration(candidates, pool, judged, known() if checks is not None and is_whole else None)
    compared = _with_confidence(candidates, calibration, pool, judged)
    if checks is not None and pool.others is None:
        compared, is_closed = _closed(compared, calibration, pool, judged, checks, options.precision, tell, stop)
        is_whole = is_whole and is_closed
    if options.by_folder and pool.others is None:
        compared = _of_folders(compared, pool)
    return _chosen(compared, calibration, pool, judged, options, is_whole=is_whole)


def _chosen(
    compared: Compared, calibration: Calibration, pool: Pool, judged: Judged, options: DuplicateOptions, *,
    is_whole: bool,
) -> Found:  # fmt: skip
    """Return which of the pairs are duplicates: sure enough or alike enough, and not to be left alone."""
    confidence, judgements = compared.confidence, _judgements(compared, pool, judged)
    left_alone = _left_alone(compared, pool, options)
    left_alone[(judgements == 1) & (left_alone == ONE_PRESS)] = ""
    left_alone[judgements == -1] = SAID
    allowed = left_alone == ""
    is_exact = pool.contents[compared.first] == pool.contents[compared.second]
    least = least_confidence(confidence[allowed & ~is_exact], options.precision)
    if options.threshold is not None:
        is_duplicate = allowed & ((compared.raised >= options.threshold) | (judgements == 1) | is_exact)
    else:
        is_duplicate = allowed & ((confidence >= least) | is_exact)
    is_similar = allowed & ~is_duplicate & (confidence >= DUPLICATES.similar) & options.similar
    counted = confidence[is_duplicate & ~is_exact]
    return Found(
        duplicates=compared.chosen(is_duplicate),
        similar=compared.chosen(is_similar),
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
    pairs: Compared, calibration: Calibration, pool: Pool, judged: Judged, least_share: float = 0.0
) -> Compared:
    """Return the pairs with how sure it is; a person is surer than that."""
    confidence = calibration.confidences(pairs.similarity, pairs.inliers, least_share)
    judgements = _judgements(pairs, pool, judged)
    confidence[judgements == 1], confidence[judgements == -1] = 1.0, 0.0
    return replace(pairs, confidence=confidence)


def _closed(
    compared: Compared, calibration: Calibration, pool: Pool, judged: Judged, checks: Checks, precision: float,
    tell: Tell, stop: Stop | None,
) -> tuple[Compared, bool]:  # fmt: skip
    """Return the pairs, and those that have a duplicate in common: two hard edits of a photo are hardly alike.

    And whether it came to its end.
    """
    for number in range(DUPLICATES.closures):
        likely = compared.chosen(compared.confidence >= least_confidence(compared.confidence, precision))
        pairs = in_common(likely, set(compared.pairs()))
        if not checks.ask(pairs, partial(tell, f"comparing copies of one photo, round {number + 1}"), stop):
            return compared, False
        rows = np.array(pairs, np.int64).reshape(-1, 2)
        inliers = np.array([checks.inliers(pair) for pair in pairs], np.int64)
        more = Compared(rows[:, 0], rows[:, 1], pool.similarities(rows), inliers, np.zeros(len(rows)))
        more = _with_confidence(more, calibration, pool, judged, DUPLICATES.of_a_copy).chosen(inliers > 0)
        compared = compared.joined(more)
    return compared, True


def _of_folders(compared: Compared, pool: Pool) -> Compared:
    """Return the pairs of contents as pairs of their copies, the first in each folder; then the copies of each."""
    first_rows = np.unique(pool.copies)
    of: dict[int, list[int]] = defaultdict(list)
    for row in np.setdiff1d(first_rows, pool.blank).tolist():
        of[int(pool.contents[row])].append(row)
    several = {content: rows for content, rows in of.items() if len(rows) > 1}
    pairs, places = [], []
    for place, (first, second) in enumerate(compared.pairs()):
        for pair in product(several.get(first, [first]), several.get(second, [second])):
            pairs.append(sorted(pair))
            places.append(place)
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    found = replace(compared.chosen(np.array(places, np.int64)), first=rows[:, 0], second=rows[:, 1])
    exact = np.array([pair for some in several.values() for pair in combinations(some, 2)], np.int64).reshape(-1, 2)
    ones = np.ones(len(exact))
    return found.joined(Compared(exact[:, 0], exact[:, 1], ones, np.full(len(exact), -1), ones))


def _with_judged(edges: Edges, pool: Pool, judged: Judged) -> Compared:
    """Return the candidates, and the pairs that were said to be the same, however little alike."""
    first, second = edges.first.astype(np.int64), edges.second.astype(np.int64)
    similarity = edges.similarity.astype(np.float64)
    rows = {pool.key(row): int(row) for row in np.unique(pool.contents)} if judged else {}
    there = set(zip(first.tolist(), second.tolist(), strict=True)) if judged else set()
    same = [
        tuple(sorted((rows[one], rows[other])))
        for (one, other), judgement in judged.items()
        if judgement == "same" and pool.others is None and one in rows and other in rows
    ]
    added = np.array([pair for pair in same if pair not in there], np.int64).reshape(-1, 2)
    first, second = np.concatenate([first, added[:, 0]]), np.concatenate([second, added[:, 1]])
    similarity = np.concatenate([similarity, pool.similarities(added)])
    unknown = np.full(len(first), -1)
    return Compared(first, second, similarity, unknown, np.zeros(len(first)))


def _most_similar_first(pairs: Compared) -> Compared:
    return pairs.chosen(np.lexsort((pairs.second, pairs.first, -pairs.similarity)))


def _judgements(pairs: Compared, pool: Pool, judged: Judged) -> NDArray[np.int64]:
    """Return 1 for each pair that was said to be the same, -1 for different, 0 for none of both."""
    if not judged:
        return np.zeros(len(pairs), np.int64)
    worth = {"same": 1, "different": -1, "undecided": 0}
    keys = ([pool.key(row) for row in pair] for pair in pairs.pairs())
    said = (judged.get((min(pair), max(pair)), "undecided") for pair in keys)
    return np.array([worth[each] for each in said], np.int64)


def _calibration(pairs: Compared, pool: Pool, judged: Judged, known: KnownPairs | None) -> Calibration:
    if known is None:
        return by_similarity(pairs.similarity, *similarities_at_random(pool))
    said, was_compared = _judgements(pairs, pool, judged), pairs.inliers >= 0

    def labelled(worth: int) -> Known:
        which = (said == worth) & was_compared
        return Known(tuple(pairs.similarity[which].tolist()), tuple(pairs.inliers[which].tolist()))

    return calibrate(
        known.copies.and_also(labelled(1)),
        known.others.and_also(labelled(-1)),
        pairs.similarity[was_compared],
        pairs.inliers[was_compared],
    )


def _left_alone(pairs: Compared, pool: Pool, options: DuplicateOptions) -> NDArray[np.str_]:
    """Return in words why each pair is not looked at, "" where it is."""
    likely = np.flatnonzero(pairs.confidence >= DUPLICATES.least_confidence)
    if options.threshold is not None:
        likely = np.flatnonzero(pairs.raised >= options.threshold)
    photos = pool.photos([*pairs.first[likely].tolist(), *pairs.second[likely].tolist()])
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
