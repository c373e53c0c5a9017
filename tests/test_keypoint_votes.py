"""Photos that share keypoints are found by the codes of these, on real photos that scikit-image ships."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage import data

from vggsearch.defaults import VOTES
from vggsearch.errors import Stopped
from vggsearch.knn import keypoint_votes as module
from vggsearch.knn.keypoint_votes import CodedKeypoints, voted_pairs
from vggsearch.matching.keypoint_codes import NO_KEYPOINTS, code_keypoints, mirrored_codes
from vggsearch.matching.keypoints import detect_keypoints, mirrored_keypoints
from vggsearch.progress import Monitor

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
PHOTOS = {name: Image.fromarray(getattr(data, name)()) for name in NAMES}


def coded(image: Image.Image) -> CodedKeypoints:
    return code_keypoints(detect_keypoints(image))


def crop(photo: Image.Image) -> Image.Image:
    """Return a fifth of the area."""
    width, height = photo.size
    return photo.crop((width // 3, height // 3, width // 3 + width * 9 // 20, height // 3 + height * 9 // 20))


def screen(photo: Image.Image) -> Image.Image:
    shown = Image.new("RGB", (400, 800), "black")
    shown.paste(ImageOps.contain(photo, (400, 400)), (0, 250))
    return shown


@pytest.fixture(scope="module")
def photos() -> list[CodedKeypoints]:
    return [coded(photo) for photo in PHOTOS.values()]


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inverted lists and several blocks for few photos."""
    monkeypatch.setattr(module, "VOTES", replace(VOTES, listed=100, block=2))


def pairs_of(
    found: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
) -> dict[tuple[int, int], float]:
    first, second, votes = found
    return dict(zip(zip(first.tolist(), second.tolist(), strict=True), votes.tolist(), strict=True))


@pytest.mark.parametrize(
    "edit", [crop, screen, ImageOps.mirror, ImageOps.flip, lambda photo: ImageOps.mirror(crop(photo.rotate(4)))]
)
def test_copies_that_the_network_does_not_recognise_have_most_votes(
    photos: list[CodedKeypoints], edit: Callable[[Image.Image], Image.Image]
) -> None:
    copies = [coded(edit(photo)) for photo in PHOTOS.values()]
    found = pairs_of(voted_pairs([*photos, *copies], mirrored_codes))
    right = {(number, number + len(photos)) for number in range(len(photos))}
    assert right <= found.keys()
    assert min(found[pair] for pair in right) > max((found[pair] for pair in found.keys() - right), default=0)


@pytest.mark.usefixtures("lists")
def test_inverted_lists_and_blocks_find_them_as_well(photos: list[CodedKeypoints]) -> None:
    copies = [coded(crop(photo)) for photo in PHOTOS.values()]
    found = pairs_of(voted_pairs([*photos, *copies], mirrored_codes))
    assert {(number, number + len(photos)) for number in range(len(photos))} <= found.keys()


def test_each_pair_is_listed_once_in_order_with_enough_votes(photos: list[CodedKeypoints]) -> None:
    first, second, votes = voted_pairs([*photos, *photos, *photos], mirrored_codes)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert (first < second).all()
    assert votes.min() >= VOTES.least
    assert len(pairs) >= 3 * len(photos)


def test_a_code_inverts_half_of_its_bits_for_the_mirror_image() -> None:
    keypoints = detect_keypoints(PHOTOS["chelsea"])
    mirrored, expected = mirrored_codes(code_keypoints(keypoints)), code_keypoints(mirrored_keypoints(keypoints))
    differing = np.bitwise_count(mirrored.codes ^ expected.codes).sum()
    assert differing <= len(keypoints.points) / 100  # a projection of about 0 may be rounded to either side
    np.testing.assert_allclose(mirrored.angles, expected.angles)
    np.testing.assert_allclose(mirrored.sizes, expected.sizes)


def test_each_bit_tells_keypoints_apart(photos: list[CodedKeypoints]) -> None:
    codes = np.concatenate([photo.codes for photo in photos])
    assert codes.shape[1] == VOTES.bytes
    shares = np.unpackbits(codes, axis=1).mean(axis=0)
    assert 0.05 < shares.min() <= shares.max() < 0.95


def test_photos_without_keypoints_are_in_no_pair(photos: list[CodedKeypoints]) -> None:
    blank = coded(Image.new("RGB", (100, 80), "grey"))
    assert len(blank) == len(NO_KEYPOINTS) == 0
    assert pairs_of(voted_pairs([blank, NO_KEYPOINTS], mirrored_codes)) == {}
    assert pairs_of(voted_pairs([], mirrored_codes)) == {}
    found = pairs_of(voted_pairs([blank, photos[0], NO_KEYPOINTS, photos[0]], mirrored_codes))
    assert found.keys() == {(1, 3)}


def test_it_can_be_stopped(photos: list[CodedKeypoints]) -> None:
    with pytest.raises(Stopped):
        voted_pairs(photos, mirrored_codes, Monitor(stop=lambda: True))
