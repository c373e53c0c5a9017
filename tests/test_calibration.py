"""The confidence that two photos are duplicates, on pairs of which the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vggsearch.duplicates.calibration import (
    LabelledPairs,
    calibrate,
    calibrate_by_similarity,
    confidence_of_one_more,
    likely_shares,
    min_confidence,
)
from vggsearch.matching.isotonic import isotonic

Sample = tuple[NDArray[np.float64], NDArray[np.int64]]


def duplicates(random: np.random.Generator, count: int) -> Sample:
    """Return similarities and inliers like those of edited copies."""
    return np.clip(random.normal(0.6, 0.2, count), 0.2, 1), random.negative_binomial(2, 0.02, count)


def unrelated(random: np.random.Generator, count: int) -> Sample:
    """Return similarities and inliers like those of unrelated pairs: low, and hardly any."""
    inliers = np.where(random.random(count) < 0.02, random.geometric(0.3, count) + 3, 0)
    return 0.2 + random.exponential(0.05, count), inliers


def labelled(sample: Sample) -> LabelledPairs:
    return LabelledPairs(tuple(sample[0].tolist()), tuple(sample[1].tolist()))


@pytest.mark.parametrize("copies", [5, 100, 2000])
@pytest.mark.parametrize("others", [500, 20_000])
@pytest.mark.parametrize("precision", [0.9, 0.99])
def test_the_wanted_precision_is_reached_with_any_number_of_unrelated_pairs(
    copies: int, others: int, precision: float
) -> None:
    counts = np.zeros(2, int)
    for seed in range(5):
        random = np.random.default_rng(seed)
        right, wrong = duplicates(random, copies), unrelated(random, others)
        similarity, inliers = (np.concatenate(both) for both in zip(right, wrong, strict=True))
        learned = calibrate(
            labelled(duplicates(random, 200)), labelled(unrelated(random, 500)), similarity, inliers
        )
        confidence = learned.confidences(similarity, inliers)
        chosen = confidence >= min_confidence(confidence, precision)
        counts += np.count_nonzero(chosen[:copies]), np.count_nonzero(chosen[copies:])
    assert counts[1] <= max(1, (1 - precision + 0.01) * counts.sum())
    assert counts[0] >= 5 * (0.85 if copies > 5 else 0.5) * copies


def test_without_duplicates_none_are_found() -> None:
    random = np.random.default_rng(1)
    similarity, inliers = unrelated(random, 5000)
    learned = calibrate(labelled(duplicates(random, 200)), labelled(unrelated(random, 500)), similarity, inliers)
    confidence = learned.confidences(similarity, inliers)
    assert np.count_nonzero(confidence >= min_confidence(confidence, 0.99)) <= 1


@pytest.mark.parametrize(("copies", "others"), [(1, 0), (1, 5), (3, 250), (6, 60)])
def test_the_copies_of_a_small_folder_are_found(copies: int, others: int) -> None:
    """Nothing can be learned from so few pairs, and the photos are as similar as their copies."""
    random = np.random.default_rng(6)
    similarity = np.concatenate([np.full(copies, 0.95), random.uniform(0.2, 0.9, others)])
    inliers = np.concatenate([np.full(copies, 100), np.zeros(others, np.int64)])
    learned = calibrate(LabelledPairs(), LabelledPairs(), similarity, inliers)
    confidence = learned.confidences(similarity, inliers)
    assert (confidence >= min_confidence(confidence, 0.99)).tolist() == [True] * copies + [False] * others


def test_copies_that_are_not_compared_are_not_expected_to_be_found() -> None:
    copies = LabelledPairs((0.9, 0.8, 0.1, 0.04), (100, 100, 100, 100))
    similarity, inliers = np.array([0.9, 0.1, 0.1]), np.array([100, 0, 0])
    found = [calibrate(copies, LabelledPairs(), similarity, inliers, least).recall(0.9) for least in (-1, 0.1, 0.5)]
    assert found == pytest.approx([found[0], 0.75 * found[0], 0.5 * found[0]])
    assert found[0] > 0.9


def test_few_copies_of_a_folder_move_the_expected_recall_little_and_many_decide_it() -> None:
    similarity, inliers = np.array([0.9, 0.1, 0.1]), np.array([100, 0, 0])

    def recall(found: int, missed: int) -> float:
        copies = LabelledPairs((0.5,) * (found + missed), (100,) * found + (0,) * missed)
        return calibrate(copies, LabelledPairs(), similarity, inliers).recall(0.9)

    assert 0.9 < recall(2, 2) < recall(3, 1) < recall(4, 0) < 1
    assert recall(2000, 2000) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("precision", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [0, 1, 6, 400])
def test_a_copy_that_would_be_reported_if_it_were_there_counts_as_found(count: int, precision: float) -> None:
    confidences = np.random.default_rng(count).uniform(0.995, 1, count)
    least = confidence_of_one_more(confidences, precision)
    assert min_confidence(np.append(confidences, least + 1e-9), precision) == least + 1e-9
    assert min_confidence(np.append(confidences, least - 1e-6), precision) > least


def test_the_range_of_the_recall_is_wide_for_few_copies_and_covers_what_chance_leaves() -> None:
    random = np.random.default_rng(4)
    for among in (2, 6, 60, 600):
        outside, drawn = 0, 400
        for _ in range(drawn):
            rate = random.uniform(0.8, 1)
            low, high = likely_shares(int(random.binomial(78, rate)), 78, among)
            outside += not low <= random.binomial(among, rate) / among <= high
        assert outside / drawn < 0.09
    assert likely_shares(74, 78, 6) == (4 / 6, 1.0)
    low, high = likely_shares(74, 78, 600)
    assert 0.86 < low < 0.9
    assert 0.97 < high < 1


def test_confidence_rises_with_keypoints_and_similarity() -> None:
    random = np.random.default_rng(2)
    right, wrong = duplicates(random, 300), unrelated(random, 3000)
    similarity, inliers = (np.concatenate(both) for both in zip(right, wrong, strict=True))
    learned = calibrate(labelled(duplicates(random, 200)), labelled(unrelated(random, 500)), similarity, inliers)
    some, many = np.linspace(0, 1, 50), np.arange(0, 100)
    assert (np.diff(learned.confidences(some, np.full(50, 8))) >= 0).all()
    assert (np.diff(learned.confidences(np.full(100, 0.4), many)) >= 0).all()


def test_decisions_of_the_user_change_the_confidence() -> None:
    random = np.random.default_rng(3)
    right, wrong = duplicates(random, 300), unrelated(random, 3000)
    similarity, inliers = (np.concatenate(both) for both in zip(right, wrong, strict=True))
    copies, others = labelled(duplicates(random, 200)), labelled(unrelated(random, 500))
    before = calibrate(copies, others, similarity, inliers)
    with_decisions = others.concat(LabelledPairs((0.5,) * 40, (12,) * 40))
    after = calibrate(copies, with_decisions, similarity, inliers)
    at = np.array([0.5]), np.array([12])
    assert after.confidences(*at)[0] < before.confidences(*at)[0] - 0.01


@pytest.mark.parametrize(("photos", "copies"), [(500, 40), (1_000, 1_000), (100_000, 5_000)])
def test_without_photo_files_similarity_alone_separates_copies_from_unrelated_pairs(
    photos: int, copies: int
) -> None:
    """The number of unrelated pairs grows with the square of the photos; only the most similar are candidates."""
    random = np.random.default_rng(4)
    total = photos * (photos - 1) // 2
    at_random = random.laplace(0, 0.03, 50_000)
    listed = min(total // 2, 50 * photos)  # the upper tail of a Laplace distribution is exponential
    wrong = 0.03 * np.log(total / 2 / listed) + random.exponential(0.03, listed)
    similarity = np.concatenate([random.uniform(0.75, 1, copies), wrong])
    confidence = calibrate_by_similarity(similarity, at_random, total).confidences(
        similarity, np.full(len(similarity), -1)
    )
    chosen = confidence >= min_confidence(confidence, 0.99)
    assert np.count_nonzero(chosen[copies:]) <= 1 + 0.01 * np.count_nonzero(chosen)
    assert np.count_nonzero(chosen[:copies]) >= 0.4 * copies


@pytest.mark.parametrize("count", [1, 30, 50, 500])
def test_equally_similar_pairs_are_one_band(count: int) -> None:
    similarity, inliers = np.full(count, 0.9), np.full(count, 40)
    random = np.random.default_rng(5)
    learned = calibrate(labelled(duplicates(random, 200)), labelled(unrelated(random, 500)), similarity, inliers)
    assert learned.similarities == (0.9,)
    assert calibrate_by_similarity(similarity, random.normal(0, 0.03, 1000), 10_000).similarities == (0.9,)
    assert learned.confidences(similarity, inliers)[0] > 0.9


def test_many_certain_pairs_do_not_make_up_for_an_unlikely_one_unless_wanted() -> None:
    confidence = np.array([*[1.0] * 500, 0.85, 0.75, 0.55])
    assert [min_confidence(confidence, wanted) for wanted in (0.99, 0.7, 0.5)] == [0.85, 0.75, 0.55]


def test_without_candidates_there_are_no_duplicates() -> None:
    empty = np.empty(0)
    assert calibrate_by_similarity(empty, np.zeros(100), 1000).shares == (0.0,)
    assert calibrate_by_similarity(np.full(3, 0.9), np.zeros(3), 3).shares == (0.0,)  # too few to learn from
    learned = calibrate(LabelledPairs((0.9,), (50,)), LabelledPairs((0.0,), (0,)), empty, np.empty(0, np.int64))
    assert learned.confidences(empty, np.empty(0, np.int64)).shape == (0,)
    assert min_confidence(empty, 0.99) > 1


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_isotonic_values_never_fall_and_keep_their_mean(values: list[float]) -> None:
    found = isotonic(np.array(values))
    assert (np.diff(found) >= -1e-9).all()
    assert found.mean() == pytest.approx(np.mean(values), abs=1e-9)
