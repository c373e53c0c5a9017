"""What a photo shows around the area in which another image lies."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from skimage import data

from tests.helpers.textures import scene
from vggsearch.defaults import SURROUNDINGS
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.surroundings import Around, around
from vggsearch.photos.resize import small_grey

WHOLE = (0.0, 0.0, 1.0, 1.0)


def at(left: float, top: float, right: float, bottom: float, *, mirrored: bool = False) -> Alignment:
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    if mirrored:
        corners = ((right, top), (left, top), (left, bottom), (right, bottom))
    return Alignment(0.9, 40, mirrored, 0.0, ((right - left) * (bottom - top)) ** 0.5, corners)


def shown(photo: Image.Image, alignment: Alignment) -> Around:
    return around(small_grey(photo, SURROUNDINGS.pixels), alignment)


def collage() -> Image.Image:
    made = Image.new("RGB", (800, 600))
    for index in range(4):
        made.paste(scene(index, (400, 300)), (index % 2 * 400, index // 2 * 300))
    return made


def conversation() -> Image.Image:
    made = Image.new("RGB", (400, 800), "white")
    made.paste(scene(1, (300, 225)), (20, 60))
    draw = ImageDraw.Draw(made)
    for line in range(22):
        draw.text(
            (20, 300 + 22 * line), "how are you and when do you come back home", "black", ImageFont.load_default(17)
        )
    return made


def screenshot() -> Image.Image:
    made = Image.new("RGB", (400, 800), "black")
    made.paste(scene(1, (400, 300)), (0, 250))
    ImageDraw.Draw(made).text((20, 20), "12:45", "white", ImageFont.load_default(20))
    return made


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_continues_in_the_photo_that_it_was_cut_from(mirrored: bool) -> None:
    assert shown(scene(1, (800, 600)), at(0.2, 0.2, 0.8, 0.8, mirrored=mirrored)) is Around.SCENE


def test_nothing_is_around_a_copy_of_the_whole_or_of_more() -> None:
    assert shown(scene(1, (800, 600)), at(*WHOLE)) is Around.NOTHING
    assert shown(scene(1, (800, 600)), at(-0.5, -0.5, 1.5, 1.5)) is Around.NOTHING
    assert shown(scene(1, (800, 600)), at(0.002, 0.003, 0.998, 1.0)) is Around.NOTHING


def test_white_around_white_is_nothing() -> None:
    photo = ImageOps.expand(Image.new("RGB", (400, 300), "white"), 100, "white")
    assert shown(photo, at(1 / 6, 0.2, 5 / 6, 0.8)) is Around.NOTHING


def test_pictures_in_a_collage_have_others_around_them() -> None:
    assert shown(collage(), at(0, 0, 0.5, 0.5)) is Around.OTHERS
    assert shown(collage(), at(0.5, 0.5, 1, 1)) is Around.OTHERS


def test_pictures_full_of_lines_have_others_around_them_if_nothing_goes_on_beyond_theirs() -> None:
    def woven(seed: int, width: int) -> Image.Image:
        bands = np.random.default_rng(seed).integers(0, 80, 12).repeat(40)
        lines = 150 * (np.arange(width) // 10 % 2)
        return Image.fromarray((bands[:, None] + lines).astype(np.uint8)).convert("RGB")

    both = Image.new("RGB", (800, 480))
    both.paste(woven(1, 400), (0, 0))
    both.paste(woven(2, 400), (400, 0))
    assert shown(both, at(0, 0, 0.5, 1)) is Around.OTHERS
    assert shown(woven(1, 800), at(0, 0, 0.5, 1)) is Around.SCENE


@pytest.mark.parametrize(
    ("name", "other", "size"), [("brick", "coins", (800, 300)), ("coins", "rocket", (400, 600))]
)
def test_a_picture_of_another_texture_beyond_an_edge_is_another_one(
    name: str, other: str, size: tuple[int, int]
) -> None:
    """Lines in either, parallel to their common edge, hide that this is a seam."""
    both = Image.new("RGB", size)
    for picture, place in ((name, (0, 0)), (other, (size[0] - 400, size[1] - 300))):
        photo = Image.fromarray(getattr(data, picture)()).convert("RGB")
        both.paste(ImageOps.fit(photo, (400, 300)), place)
    assert shown(both, at(0, 0, 400 / size[0], 300 / size[1])) is Around.OTHERS
    assert shown(both, at(0, 0, 320 / size[0], 240 / size[1])) is Around.SCENE


def test_a_conversation_shows_other_things_around_a_photo() -> None:
    assert shown(conversation(), at(20 / 400, 60 / 800, 320 / 400, 285 / 800)) is Around.OTHERS


def test_a_border_and_a_screen_are_frames() -> None:
    bordered = ImageOps.expand(scene(1, (400, 300)), 40, "white")
    assert shown(bordered, at(40 / 480, 40 / 380, 440 / 480, 340 / 380)) is Around.FRAME
    assert shown(screenshot(), at(0, 250 / 800, 1, 550 / 800)) is Around.FRAME


def test_a_line_along_the_edge_of_a_crop_makes_no_frame_of_what_is_around_it() -> None:
    product = Image.new("RGB", (600, 800), "white")
    product.paste(scene(1, (440, 300)), (20, 200))  # cut through by the left edge of the crop
    ImageDraw.Draw(product).rectangle((500, 180, 507, 620), "red")  # along its right edge
    assert shown(product, at(100 / 600, 100 / 800, 504 / 600, 700 / 800)) is Around.SCENE


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_crop_along_the_edges_of_a_thing_makes_no_frame_of_what_is_around_it(seed: int) -> None:
    photo, size = scene(seed, (600, 800)).copy(), (600, 800)
    bag = Image.blend(
        scene(seed + 10, size).filter(ImageFilter.GaussianBlur(1)), Image.new("RGB", size, "white"), 0.6
    )
    photo.paste(bag.crop((60, 60, 540, 800)), (60, 60))  # it goes on below the crop
    assert shown(photo, at(60 / 600, 60 / 800, 540 / 600, 760 / 800)) is Around.UNCLEAR


def test_a_blurred_copy_around_a_photo_is_not_more_of_the_scene() -> None:
    photo = scene(1, (600, 400))
    filled = photo.resize((1200, 800)).crop((300, 0, 900, 800)).filter(ImageFilter.GaussianBlur(20))
    filled.paste(photo, (0, 200))
    assert shown(filled, at(0, 0.25, 1, 0.75)) is Around.FRAME


def test_a_dark_photo_on_a_dark_screen_is_not_taken_for_more_of_the_scene() -> None:
    made = Image.new("RGB", (400, 800), "black")
    made.paste(ImageOps.expand(scene(1, (400, 420)), (0, 90), "black"), (0, 100))  # dark at its edges
    draw = ImageDraw.Draw(made)
    draw.text((20, 20), "12:45", "white", ImageFont.load_default(20))
    for left in range(40, 400, 100):
        draw.ellipse((left, 750, left + 24, 774), outline="white", width=2)
    assert shown(made, at(0, 100 / 800, 1, 700 / 800)) is Around.DRAWN


def test_impossible_positions_do_not_fail() -> None:
    photo = small_grey(scene(1, (400, 300)), SURROUNDINGS.pixels)
    assert around(photo, at(1e6, 1e6, 1e6 + 1, 1e6 + 1)) in Around
    assert around(photo, at(0.5, 0.5, 0.5, 0.5)) in Around
    assert around(np.zeros((1, 480), np.uint8), at(0.2, 0.2, 0.8, 0.8)) in Around


@pytest.mark.parametrize("grain", [1, 2, 3])
def test_fine_texture_around_a_crop_is_no_other_picture(grain: int) -> None:
    noise = np.random.default_rng(grain).integers(0, 256, (512, 512), np.uint8)
    grass = ImageOps.autocontrast(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(grain))).convert("RGB")
    assert shown(grass, at(0.17, 0.22, 0.77, 0.82)) is not Around.OTHERS
