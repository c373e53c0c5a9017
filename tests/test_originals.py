"""Which of two duplicates is the original, by what both show."""

import io
import random
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps
from skimage import data

from tests.helpers.duplicates import photo
from tests.helpers.textures import scene
from vggsearch.duplicates.keep_policy import LOSSLESS, RatedPhoto
from vggsearch.duplicates.originals import Evidence, Originals
from vggsearch.errors import ImageError
from vggsearch.matching.alignment import Alignment, inverted
from vggsearch.photos.edits import captioned, recoloured, screenshot, stickered
from vggsearch.photos.upright import Box
from vggsearch.progress import SILENT

PHOTO = scene(1, (640, 480))
WHOLE = (0.0, 0.0, 1.0, 1.0)


class Positions:
    """Stands in for the matcher: row 0 lies in row 1 there."""

    def __init__(self, left: float, top: float, right: float, bottom: float, *, same_pixels: bool = False) -> None:
        self._same_pixels = same_pixels
        scale = ((right - left) * (bottom - top)) ** 0.5
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        self._alignment = Alignment(0.9, 40, False, 0.0, scale, corners)

    def position(self, query: int, photo: int) -> Alignment:
        return self._alignment if (query, photo) == (0, 1) else inverted(self._alignment)

    def have_same_pixels(self, pair: tuple[int, int]) -> bool:
        return self._same_pixels


def rated(image: Image.Image | None, **facts: Any) -> RatedPhoto:
    quality, format = facts.pop("quality", 90), facts.pop("format", "JPEG")
    made = photo("a.jpg", **{"size": image.size if image else (640, 480), "taken": None, **facts})
    return RatedPhoto(replace(made, sha256=uuid4().hex, format=format), quality)


def compared(
    one: Image.Image | None,
    other: Image.Image | None,
    at: tuple[float, float, float, float] = WHOLE,
    /,
    same_pixels: bool = False,
    **facts: dict[str, Any],
) -> Evidence:
    """Compare rows 0 and 1, of which the first lies `at` that place in the second."""
    images = [one, other]

    def read(row: int, part: Box | None) -> Image.Image:
        image = images[row]
        if image is None:
            raise ImageError("gone", "unreadable")
        return image if part is None else image.crop((part[0], part[1], part[0] + part[2], part[1] + part[3]))

    photos = {0: rated(one, **facts.get("one", {})), 1: rated(other, **facts.get("other", {}))}
    return Originals(photos, Positions(*at, same_pixels=same_pixels), read).compare([(0, 1)], SILENT)  # type: ignore[arg-type]


def as_jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resized(factor: float) -> Image.Image:
    size = round(PHOTO.width * factor), round(PHOTO.height * factor)
    return PHOTO.resize(size, Image.Resampling.LANCZOS)


def test_the_photo_that_a_crop_was_cut_from_is_the_original_even_if_the_crop_was_enlarged() -> None:
    crop = PHOTO.crop((128, 96, 512, 384)).resize((1280, 960))
    evidence = compared(crop, PHOTO, (0.2, 0.2, 0.8, 0.8), one={"quality": LOSSLESS, "taken": datetime(2020, 1, 1)})
    assert evidence.why == {(1, 0): "shows more of the scene"}


def test_of_two_crops_of_one_photo_each_shows_what_the_other_does_not() -> None:
    left, right = PHOTO.crop((0, 0, 480, 480)), PHOTO.crop((160, 0, 640, 480))
    assert compared(left, right, (-1 / 3, 0, 2 / 3, 1)).beyond == {(0, 1), (1, 0)}
    assert compared(left, PHOTO, (0, 0, 0.75, 1)).beyond == {(1, 0)}
    assert not compared(
        ImageOps.expand(PHOTO, 30, "white"), PHOTO, (-30 / 640, -30 / 480, 670 / 640, 1.0625)
    ).beyond


def test_a_framed_copy_is_not_the_original_although_it_is_larger() -> None:
    framed = ImageOps.expand(PHOTO, 80, "white")
    at = (80 / 800, 80 / 640, 720 / 800, 560 / 640)
    assert compared(PHOTO, framed, at).why == {(0, 1): "the other shows it in a frame or on a screen"}


def test_a_reduced_copy_loses_by_its_detail_and_an_enlarged_one_gains_nothing() -> None:
    assert compared(resized(0.5), PHOTO).why == {(1, 0): "shows more detail, at 2.0 times the size"}
    evidence = compared(PHOTO, as_jpeg(resized(2)), one={"quality": 95}, other={"quality": 60})
    assert evidence.why == {(0, 1): "quality 95 vs. 60"}


def test_a_grey_copy_is_not_the_original() -> None:
    grey = PHOTO.convert("L").convert("RGB")
    evidence = compared(grey, PHOTO, one={"quality": LOSSLESS, "format": "PNG"})
    assert evidence.why == {(1, 0): "in colour, the other is not"}


def test_a_colour_filter_makes_no_original_of_a_copy() -> None:
    """A photo of little colour, and one of none, to which a filter gives much of one colour."""
    for faint in (Image.blend(PHOTO, PHOTO.convert("L").convert("RGB"), 0.9), PHOTO.convert("L").convert("RGB")):
        warm = as_jpeg(recoloured(faint, 1.25, 1.0, 0.7))
        evidence = compared(faint, warm, one={"taken": datetime(2016, 1, 16)}, other={"quality": 98})
        assert evidence.why == {(0, 1): "taken 2016-01-16 00:00, the other has no date"}


@pytest.mark.parametrize("seed", range(4))
def test_a_sticker_makes_no_original_of_a_copy_of_a_grey_photo(seed: int) -> None:
    grey = Image.fromarray(getattr(data, "camera")()).convert("RGB")  # noqa: B009 - scikit-image has no types
    stuck = as_jpeg(stickered(grey, random.Random(seed)))
    evidence = compared(grey, stuck, one={"taken": datetime(2016, 1, 16)})
    assert evidence.why == {(0, 1): "taken 2016-01-16 00:00, the other has no date"}


def test_noise_and_a_sticker_make_no_original_of_a_copy_of_a_toned_photo() -> None:
    toned = recoloured(PHOTO.convert("L").convert("RGB"), 1.0, 0.97, 0.9)
    noise = np.random.default_rng(1).normal(0, 30, (PHOTO.height, PHOTO.width, 3))
    noisy = Image.fromarray((np.asarray(toned) + noise).clip(0, 255).astype(np.uint8))
    stuck = toned.copy()
    stuck.paste("red", (0, 0, 320, 240))
    for copy in (noisy, stuck):
        evidence = compared(toned, copy, one={"taken": datetime(2016, 1, 16)}, other={"quality": 98})
        assert evidence.why == {(0, 1): "taken 2016-01-16 00:00, the other has no date"}


def test_a_mirrored_copy_without_the_date_of_the_camera_is_not_the_original() -> None:
    evidence = compared(ImageOps.mirror(PHOTO), PHOTO, one={"quality": 98}, other={"taken": datetime(2019, 7, 14)})
    assert evidence.why == {(1, 0): "taken 2019-07-14 00:00, the other has no date"}


def test_a_png_made_of_a_jpeg_is_not_the_original_and_a_jpeg_made_of_a_png_is_not_either() -> None:
    png = {"quality": LOSSLESS, "format": "PNG"}
    jpeg = as_jpeg(PHOTO)
    assert compared(jpeg, jpeg, other=png).why == {(0, 1): "the PNG file was made from a JPEG"}
    assert compared(jpeg, PHOTO, other=png).why == {(1, 0): "lossless"}


def test_a_png_with_the_pixels_of_a_jpeg_was_made_from_it_even_where_nothing_else_shows_it() -> None:
    """Blocks do not show in a page that is nearly white."""
    page = ImageOps.expand(PHOTO.resize((64, 48)), 400, "white")
    jpeg, png = as_jpeg(page, 70), {"quality": LOSSLESS, "format": "PNG"}
    assert compared(jpeg, jpeg, other=png).why == {(1, 0): "lossless"}
    assert compared(jpeg, jpeg, other=png, same_pixels=True).why == {(0, 1): "the PNG file was made from it"}
    assert compared(jpeg, jpeg, one=png, same_pixels=True).why == {(1, 0): "the PNG file was made from it"}


def test_the_web_format_then_the_lower_quality_then_the_later_file_is_the_copy() -> None:
    assert compared(PHOTO, PHOTO, other={"format": "WEBP"}).why == {(0, 1): "the other was saved as WEBP"}
    assert compared(PHOTO, PHOTO, one={"quality": 70}).why == {(1, 0): "quality 90 vs. 70"}
    older = {"taken": datetime(2019, 1, 1)}
    assert compared(PHOTO, PHOTO, one={"taken": datetime(2020, 1, 1)}, other=older).why == {(1, 0): "the older one"}
    assert compared(PHOTO, PHOTO).why == {}


def test_a_collage_contains_a_photo_and_is_no_copy() -> None:
    made = Image.new("RGB", (1280, 960))
    for index in range(4):
        made.paste(scene(index + 1, (640, 480)), (index % 2 * 640, index // 2 * 480))
    assert compared(PHOTO, made, (0, 0, 0.5, 0.5)) == Evidence(contains=frozenset({(0, 1)}))


def in_tiles(
    columns: int, rows: int, number: int, *, gap: int = 0, radius: int = 0
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Return a collage of square tiles, into one of which the photo was cropped, and where the whole photo lies."""
    side = 360
    made = Image.new("RGB", (columns * side, rows * side), "white")
    shape = Image.new("L", (side - gap, side - gap))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, side - gap - 1, side - gap - 1), radius, "white")
    for tile in range(columns * rows):
        image = PHOTO if tile == number else scene(tile + 2, (640, 480))
        place = (tile % columns * side + gap // 2, tile // columns * side + gap // 2)
        made.paste(ImageOps.fit(image, shape.size), place, shape)
    left, top = number % columns * side + side / 2, number // columns * side + side / 2
    width, height = (side - gap) * 4 / 6, (side - gap) / 2
    at = (left - width, top - height, left + width, top + height)
    return made, (at[0] / made.width, at[1] / made.height, at[2] / made.width, at[3] / made.height)


@pytest.mark.parametrize(
    ("collage", "at"),
    [
        in_tiles(2, 1, 0),
        in_tiles(1, 3, 1),
        in_tiles(2, 2, 3, gap=12),
        in_tiles(2, 2, 2, radius=40),
        in_tiles(3, 3, 4, gap=8, radius=20),
        in_tiles(3, 3, 0),
    ],
)
def test_a_collage_with_a_photo_that_was_cropped_to_fit_is_no_copy(
    collage: Image.Image, at: tuple[float, float, float, float]
) -> None:
    assert compared(PHOTO, collage, at) == Evidence(contains=frozenset({(0, 1)}))


def test_a_photo_that_was_cropped_into_the_corner_of_another_one_is_no_copy_of_it() -> None:
    made = scene(2, (800, 600)).copy()
    made.paste(PHOTO.crop((100, 60, 500, 420)), (400, 240))
    at = (300 / 800, 180 / 600, 940 / 800, 660 / 600)
    assert compared(PHOTO, made, at) == Evidence(contains=frozenset({(0, 1)}))


def test_crops_with_a_frame_a_caption_or_a_sticker_are_copies() -> None:
    crop = PHOTO.crop((160, 60, 560, 360))
    framed = ImageOps.expand(crop, 30, "white")
    at = (-130 / 460, -30 / 360, 510 / 460, 450 / 360)
    assert not compared(PHOTO, framed, at).contains
    captioned_crop = captioned(crop)
    at = (-160 / 400, -60 / 300, 480 / 400, 420 / 300)
    assert not compared(PHOTO, captioned_crop, at).contains
    for seed in range(4):
        assert not compared(PHOTO, stickered(crop, random.Random(seed)), at).contains


def test_a_photo_in_a_conversation_and_the_same_one_on_a_screen_are_no_copies_of_each_other() -> None:
    image = PHOTO.resize((400, 300))
    screen, chat = screenshot(image), Image.new("RGB", (540, 1100), (236, 229, 221))
    chat.paste(image, (20, 110))
    for line in range(4):
        ImageDraw.Draw(chat).text((20, 720 + 60 * line), "see you later", "black", ImageFont.load_default(24))
    top = 110 - (screen.height - 300) // 2
    at = (20 / 540, top / 1100, 420 / 540, (top + screen.height) / 1100)
    assert compared(screen, chat, at) == Evidence(contains=frozenset({(0, 1)}))


def test_two_frames_of_one_photo_are_copies_of_each_other() -> None:
    wide, high = ImageOps.expand(PHOTO, (60, 0), "white"), ImageOps.expand(PHOTO, (0, 40), "white")
    at = (-60 / 640, 40 / 560, 700 / 640, 520 / 560)
    assert not compared(wide, high, at).contains


def test_photos_that_cannot_be_read_are_compared_by_what_is_recorded() -> None:
    assert compared(None, PHOTO, one={"taken": datetime(2019, 7, 14)}).why == {
        (0, 1): "taken 2019-07-14 00:00, the other has no date"
    }


def test_a_photo_loses_the_share_of_its_comparisons() -> None:
    evidence = Evidence({(0, 1): "", (0, 2): "", (1, 2): "", (3, 0): ""})
    assert evidence.lost() == {1: 0.5, 2: 1.0, 0: pytest.approx(1 / 3)}
