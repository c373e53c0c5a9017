"""The confidence that a photo is a copy, from hashes, keypoints and pixels."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.helpers.textures import scene
from vggsearch.matching.evidence import (
    BITS,
    COPY,
    KINDS,
    UNRELATED_BITS,
    UNRELATED_FOUND,
    Found,
    compare_keypoints,
    confidence,
    kinship,
)
from vggsearch.matching.keypoints import detect_keypoints
from vggsearch.matching.rerank import raised

FOLDERS = (1, 20, 500, 7_000, 1_000_000)


def test_likelihoods_cover_all_that_may_be_found_and_add_up_to_one() -> None:
    for _, of_bits, of_found in KINDS.values():
        assert (len(of_bits), len(of_found)) == (len(BITS), len(Found))
        assert min(of_bits + of_found) > 0
        assert (sum(of_bits), sum(of_found)) == pytest.approx((1, 1), abs=0.02)
    assert (len(UNRELATED_BITS), len(UNRELATED_FOUND)) == (len(BITS), len(Found))


@pytest.mark.parametrize("bits", [None, 0, 40, 90, 128])
@pytest.mark.parametrize("found", [None, *Found])
def test_the_same_evidence_is_never_worth_more_in_a_larger_folder(bits: int | None, found: Found | None) -> None:
    values = [confidence(bits, found, photos) for photos in FOLDERS]
    assert values == sorted(values, reverse=True)
    assert all(0 < value < 1 for value in values)


@pytest.mark.parametrize("photos", FOLDERS)
def test_only_pictures_that_lie_in_place_are_certain_copies(photos: int) -> None:
    assert confidence(3, Found.MANY, photos) >= COPY
    assert confidence(120, Found.MANY, photos) >= COPY
    for found in (None, Found.NOTHING, Found.OTHER, Found.DISPLACED, Found.NEARLY):
        assert confidence(3, found, photos) < COPY
    assert confidence(3, Found.OTHER, photos) < 0.5
    assert confidence(120, Found.NOTHING, photos) < 0.01


def test_a_hash_alone_counts_only_where_it_is_nearly_the_same() -> None:
    values = [confidence(bits, None, 7_000) for bits in (0, 40, 70, 90, 110)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    assert values[-1] < 0.001


@pytest.mark.parametrize("edit", [ImageOps.mirror, lambda each: ImageEnhance.Brightness(each).enhance(1.4)])
def test_a_copy_lies_in_place_and_another_scene_nowhere(edit: object) -> None:
    photo = scene(1, (400, 300))
    assert callable(edit)
    comparison = compare_keypoints(detect_keypoints(edit(photo)), detect_keypoints(photo))
    assert comparison.found is Found.MANY
    assert comparison.alignment is not None
    other = compare_keypoints(detect_keypoints(scene(2, (400, 300))), detect_keypoints(photo))
    assert (other.alignment, other.found) == (None, Found.NOTHING)


def test_a_shot_from_elsewhere_is_no_copy() -> None:
    """From elsewhere, parts at different distances are displaced differently; here, one row more than the other."""
    photo = scene(1, (400, 300))
    displaced = [np.roll(row, round(4 * np.sin(at / 25)), axis=0) for at, row in enumerate(np.asarray(photo))]
    comparison = compare_keypoints(detect_keypoints(Image.fromarray(np.stack(displaced))), detect_keypoints(photo))
    assert comparison.alignment is not None
    assert confidence(20, comparison.found, 500) < 0.97


def test_a_certain_copy_is_raised_almost_to_1_and_the_order_of_others_stays() -> None:
    assert raised(0.2, 1.0) > 0.9
    assert raised(1.0, 0.5) == 1.0
    assert raised(0.4, 0.0) == 0.4
    assert raised(0.5, 0.01) > raised(0.45, 0.01)
    assert 0.4 < raised(0.4, 0.0, kinship=0.5) < raised(0.4, 0.0, kinship=1.0) < raised(0.4, 1.0, kinship=1.0)


@pytest.mark.parametrize("found", [Found.OTHER, Found.DISPLACED])
def test_what_is_aligned_but_differs_shows_the_same_scene_and_is_no_copy(found: Found) -> None:
    assert kinship(None, found, 10_000) > 0.95
    assert confidence(None, found, 10_000) < 0.1
    assert kinship(None, Found.NOTHING, 10_000) < 0.1
    assert kinship(None, Found.MANY, 10_000) >= confidence(None, Found.MANY, 10_000) > 0.99
