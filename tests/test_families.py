"""Where one photo lies in another follows from where both lie in a third one, but not always."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from tests.fakes import FakeEngine
from tests.helpers.calibration import calibrated_with
from vggsearch.duplicates import confirmation
from vggsearch.duplicates.confirmation import KeypointMatcher, Pair
from vggsearch.duplicates.families import Families
from vggsearch.image_index import ImageIndex
from vggsearch.matching.alignment import Alignment, inverted, score_of, with_agreement
from vggsearch.matching.composed import composed, laid_by_common
from vggsearch.matching.keypoints import Keypoints
from vggsearch.matching.pixels import align_copy
from vggsearch.photos.edits import EDITS, edited

UNIT = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
HUB, ONE, OTHER, FAR = range(4)


def lying(turned: float, scale: float, shift: tuple[float, float], *, mirrored: bool = False) -> Alignment:
    """Return the position of one square photo in another: mirrored, turned, scaled, and then shifted."""
    cosine, sine = scale * math.cos(math.radians(turned)), scale * math.sin(math.radians(turned))
    points = UNIT * (-1, 1) + (1, 0) if mirrored else UNIT  # y points down, so counter-clockwise is:
    corners = points @ np.array([[cosine, -sine], [sine, cosine]]) + shift
    return of_corners(corners, mirrored=mirrored, turned=turned, scale=scale)


def of_corners(corners: NDArray[np.float64], *, mirrored: bool, turned: float, scale: float) -> Alignment:
    placed = tuple((float(x), float(y)) for x, y in corners)
    return with_agreement(Alignment(score_of(30), 30, mirrored, turned, scale, placed), 0.95)


def area(left: float, top: float, right: float, bottom: float, agreement: float = 0.95) -> Alignment:
    """Return the position of a photo that shows this part of another one."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    scale = math.sqrt((right - left) * (bottom - top))
    return with_agreement(of_corners(corners, mirrored=False, turned=0.0, scale=scale), agreement)


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("is_other_mirrored", [False, True])
def test_positions_compose(is_mirrored: bool, is_other_mirrored: bool) -> None:
    first = lying(30, 0.5, (0.2, 0.3), mirrored=is_mirrored)
    then = lying(100, 0.8, (0.1, 0.4), mirrored=is_other_mirrored)
    found = composed(first, then)
    assert found.mirrored == (is_mirrored != is_other_mirrored)
    assert found.scale == pytest.approx(0.4)
    origin = found.corners[1 if found.mirrored else 0]  # lying() shifts the corner that is at the top left then
    again = lying(found.turned, found.scale, origin, mirrored=found.mirrored)
    assert np.array(found.corners) == pytest.approx(np.array(again.corners))
    middle = np.array(first.corners).mean(axis=0)
    across, down = np.array(then.corners)[1] - then.corners[0], np.array(then.corners)[3] - then.corners[0]
    expected = np.array(then.corners[0]) + middle[0] * across + middle[1] * down
    assert np.array(found.corners).mean(axis=0) == pytest.approx(expected)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_there_and_back_again_is_the_whole(is_mirrored: bool) -> None:
    there = lying(40, 0.6, (0.1, 0.2), mirrored=is_mirrored)
    back = composed(there, inverted(there))
    assert np.array(back.corners) == pytest.approx(UNIT, abs=1e-9)
    assert not back.mirrored
    assert (back.scale, back.turned) == pytest.approx((1, 0))


def test_a_crop_of_a_copy_lies_in_another_copy() -> None:
    found = laid_by_common(area(0.5, 0.5, 1, 1), area(0, 0, 1, 1))
    assert found is not None
    assert np.array(found.corners) == pytest.approx(np.array([(0.5, 0.5), (1, 0.5), (1, 1), (0.5, 1)]))
    assert found.agreement == pytest.approx(0.95**2)


def test_nothing_follows_from_parts_that_have_little_in_common() -> None:
    assert laid_by_common(area(0, 0, 0.6, 0.6), area(0.4, 0.4, 1, 1)) is None
    assert laid_by_common(area(0, 0, 0.4, 0.4), area(0.6, 0.6, 1, 1)) is None


def test_nothing_follows_for_what_the_third_photo_does_not_show() -> None:
    screenshot, another = area(0, -0.5, 1, 1.5), area(0, -0.4, 1, 1.6)
    assert laid_by_common(screenshot, another) is None
    assert laid_by_common(screenshot, area(0, 0, 1, 1)) is not None


def test_nothing_follows_from_pixels_that_hardly_agree() -> None:
    assert laid_by_common(area(0, 0, 1, 1, agreement=0.8), area(0, 0, 1, 1, agreement=0.8)) is None


def star(*sharpness: float) -> Families:
    """Return a photo that agrees with two others, of which one agrees with a fourth, too."""
    families = Families(lambda *_: area(0, 0, 1, 1))
    for row, each in enumerate(sharpness):
        families.see(row, each)
    for pair in ((HUB, ONE), (HUB, OTHER), (OTHER, FAR)):
        families.add(*pair, was_compared=True)
    families.add(HUB, FAR + 1, was_compared=True)
    return families


def test_two_copies_of_one_photo_need_not_be_compared() -> None:
    assert star(1, 1, 1).follows(ONE, OTHER) is not None
    assert star(1, 1, 1).follows(ONE, FAR) is None  # they have no third photo in common


def test_a_photo_joins_a_family_by_its_centre() -> None:
    families = star(1, 1, 1)
    assert families.centre(FAR) == HUB
    assert families.links(ONE, 99) == [(HUB, ONE), (HUB, 99)]
    assert families.links(HUB, 99) == []


def test_a_blurred_photo_hides_how_two_others_differ() -> None:
    assert star(0.2, 1, 1).follows(ONE, OTHER) is None
    assert star(0.2, 1, 0.3).follows(ONE, OTHER) is not None  # one of them is as blurred
    assert Families(lambda *_: None).follows(ONE, OTHER) is None


def test_of_many_copies_few_pairs_are_compared_and_all_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("half", "jpeg30", "bright", "contrast", "grey", "text", "turn90", "mirror", "colour", "turn180")
    (tmp_path / "photos").mkdir()
    for photo in ("astronaut", "coffee"):
        picture = Image.fromarray(getattr(data, photo)())
        for name in names:
            (tmp_path / "photos" / f"{photo} {name}.jpg").write_bytes(edited(picture, EDITS[name], name))
    compared = list[Keypoints]()

    def counted(query: Keypoints, photo: Keypoints) -> Alignment | None:
        compared.append(query)
        return align_copy(query, photo)

    monkeypatch.setattr(confirmation, "align_copy", counted)
    with calibrated_with(4), ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(tmp_path / "photos")
        pairs = index.duplicates().pairs
    assert all(pair.first.path[0] == pair.second.path[0] for pair in pairs)
    assert len(pairs) == 2 * len(names) * (len(names) - 1) // 2
    assert len(compared) < len(names) ** 2 + len(pairs) / 3  # all pairs of different photos, for the calibration


def test_the_photo_of_the_largest_file_is_the_centre_of_its_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path comes last, and those of blurred and reduced copies first: little follows from them."""
    names = ("blur", "thumbnail", "jpeg8", "half", "bright", "contrast", "grey", "jpeg30")
    (tmp_path / "photos").mkdir()
    picture = Image.fromarray(getattr(data, "coffee")())  # noqa: B009 - scikit-image has no types
    picture.save(tmp_path / "photos" / "whole.jpg", quality=97)
    for number, name in enumerate(names):
        (tmp_path / "photos" / f"{number} {name}.jpg").write_bytes(edited(picture, EDITS[name], name))
    largest = max((tmp_path / "photos").iterdir(), key=lambda path: path.stat().st_size)
    assert largest.name == "whole.jpg"
    hubs = Counter[int]()
    match = KeypointMatcher._match

    def counted(matcher: KeypointMatcher, pairs: Sequence[Pair]) -> None:
        hubs.update(hub for hub, _ in pairs)
        match(matcher, pairs)

    monkeypatch.setattr(KeypointMatcher, "_match", counted)
    with calibrated_with(4), ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(tmp_path / "photos")
        assert len(index.duplicates().pairs) == len(names) * (len(names) + 1) // 2
        assert index.paths()[max(hubs, key=lambda row: hubs[row])] == "whole.jpg"
    assert hubs.total() < 2 * len(names)
