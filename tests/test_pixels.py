"""What two aligned pictures show: a copy and its original, or two shots, or two pages of one form."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from vggsearch.matching.keypoints import align, detect_keypoints
from vggsearch.matching.pixels import align_copy, difference
from vggsearch.photos.edits import COLLAGE, EDITS, edited

WORDS = ("lorem ipsum dolor", "sit amet", "consectetur elit", "sed eiusmod", "tempor magna", "aliqua enim minim")


def sample(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def form(page: int) -> Image.Image:
    """One page of a form: the printed part is the same on every page, the entries are not."""
    image = Image.new("RGB", (620, 860), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 20), "MUNICIPAL WATER BOARD - FORM 27b", "black", ImageFont.load_default(28))
    for row in range(10):
        top = 80 + 76 * row
        draw.rectangle((30, top, 590, top + 60), outline="black", width=2)
        draw.text((40, top + 4), f"{row + 1}. {WORDS[row % 6]}", "black", ImageFont.load_default(18))
        entry = f"{WORDS[(row * 5 + page * 7) % 6]} {(row + 3) * 7919 * (page + 2) % 9973}"
        draw.text((230, top + 26), entry, (20, 20, 120), ImageFont.load_default(22))
    return image


def shot(photo: Image.Image, seed: int, shift: float = 0.0) -> Image.Image:
    """One shot of a scene: with its own noise, and with parts displaced by up to `shift` pixels."""
    values = np.random.default_rng(seed)
    pixels = np.asarray(photo)
    height, width = pixels.shape[:2]
    depth = cv2.GaussianBlur(np.random.default_rng(9).normal(size=(height, width)).astype(np.float32), (0, 0), 18)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(pixels, x + depth / np.abs(depth).max() * shift, y, cv2.INTER_CUBIC)
    return Image.fromarray(np.clip(moved + values.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8))


def saved(image: Image.Image, quality: int = 88) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def matches(first: Image.Image, second: Image.Image) -> bool:
    return align_copy(detect_keypoints(first), detect_keypoints(second)) is not None


@pytest.mark.parametrize("name", [name for name in EDITS if name != COLLAGE])
def test_edited_copies_of_a_photo_match_it(name: str) -> None:
    photo = sample("chelsea")
    assert matches(photo, Image.open(io.BytesIO(edited(photo, EDITS[name], name))))


@pytest.mark.parametrize("name", ["half", "jpeg30", "crop50", "grey", "border", "turn90"])
def test_edited_copies_of_a_form_match_it(name: str) -> None:
    page = form(1)
    assert matches(page, Image.open(io.BytesIO(edited(page, EDITS[name], name))))


@pytest.mark.parametrize("quality", [95, 75])
def test_two_pages_of_one_form_do_not_match(quality: int) -> None:
    first, second = form(1), saved(form(2), quality)
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, second)
    assert not matches(second.resize((310, 430)), first)


def test_two_views_of_one_scene_do_not_match() -> None:
    scene = sample("chelsea")
    first, second = shot(scene, 1), shot(scene, 2, shift=14)
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, second)
    assert not matches(second, first)


def test_the_position_is_refined_where_keypoints_are_inexact() -> None:
    picture = detect_keypoints(sample("chelsea"))
    found = align(picture, picture)
    assert found is not None
    inexact = replace(found, corners=tuple((x + 0.004, y - 0.003) for x, y in found.corners))
    result = difference(picture.picture, picture.picture, inexact)
    assert result is not None
    assert result.shift < 0.2
    assert result.places == 0


def test_pictures_that_share_too_little_are_not_compared() -> None:
    picture = detect_keypoints(sample("chelsea"))
    found = align(picture, picture)
    assert found is not None
    apart = replace(found, corners=tuple((x + 0.97, y) for x, y in found.corners))
    assert difference(picture.picture, picture.picture, apart) is None
