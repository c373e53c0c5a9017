import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import picture
from vggsearch.defaults import RESIZES
from vggsearch.model.networks import IMAGENET_MEAN
from vggsearch.photos.resize import PAD_COLOUR, RESIZE_BY_NAME, is_blank, square

SIZE = 192
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)

every_resize = pytest.mark.parametrize("resize", RESIZES)


def with_red_and_blue_ends(size: tuple[int, int]) -> Image.Image:
    """Green, with a red first and a blue last eighth of the longer side."""
    width, height = size
    image = Image.new("RGB", size, GREEN)
    if width > height:
        image.paste(RED, (0, 0, width // 8, height))
        image.paste(BLUE, (width - width // 8, 0, width, height))
    else:
        image.paste(RED, (0, 0, width, height // 8))
        image.paste(BLUE, (0, height - height // 8, width, height))
    return image


def with_red_corners(size: tuple[int, int], side: int) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, BLUE)
    for left in (0, width - side):
        for top in (0, height - side):
            image.paste(RED, (left, top, left + side, top + side))
    return image


def colour(pixels: NDArray[np.uint8], row: int, column: int) -> tuple[int, ...]:
    return tuple(int(value) for value in pixels[row, column])


def test_every_resize_mode_has_the_function_of_its_name() -> None:
    assert {name: function.__name__ for name, function in RESIZE_BY_NAME.items()} == dict(
        zip(RESIZES, RESIZES, strict=True)
    )


def test_the_colour_of_the_padding_is_the_mean_that_normalisation_maps_to_zero() -> None:
    assert tuple(round(255 * mean) for mean in IMAGENET_MEAN) == PAD_COLOUR


@every_resize
@pytest.mark.parametrize("size", [(320, 240), (240, 320), (192, 192), (50, 70), (1, 1), (3, 4000), (4000, 3)])
def test_any_shape_becomes_a_writeable_square(resize: str, size: tuple[int, int]) -> None:
    pixels = square(picture(0, size), SIZE, resize)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.owndata
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@every_resize
@pytest.mark.parametrize("size", [32, 100, 224])
def test_the_square_has_the_requested_size(resize: str, size: int) -> None:
    assert square(picture(0), size, resize).shape == (size, size, 3)


@every_resize
def test_a_square_image_of_the_right_size_is_not_changed(resize: str) -> None:
    image = picture(0, (SIZE, SIZE))
    assert (square(image, SIZE, resize) == np.asarray(image)).all()


@every_resize
def test_the_input_image_is_not_changed(resize: str) -> None:
    image = picture(0)
    square(image, SIZE, resize)[:] = 0
    assert image.tobytes() == picture(0).tobytes()


@every_resize
def test_one_pixel_fills_the_square_with_its_colour(resize: str) -> None:
    assert (square(Image.new("RGB", (1, 1), (10, 20, 30)), SIZE, resize) == (10, 20, 30)).all()


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (4000, 400)])
def test_squash_keeps_all_four_corners(size: tuple[int, int]) -> None:
    pixels = square(with_red_corners(size, 60), SIZE, "squash")
    last = SIZE - 1
    assert {colour(pixels, row, column) for row in (0, last) for column in (0, last)} == {RED}
    assert colour(pixels, SIZE // 2, SIZE // 2) == BLUE


@pytest.mark.parametrize("size", [(800, 400), (400, 800)])
def test_squash_keeps_both_ends_in_their_share(size: tuple[int, int]) -> None:
    pixels = square(with_red_and_blue_ends(size), SIZE, "squash")
    assert (pixels == RED).all(axis=2).mean() == pytest.approx(1 / 8, abs=0.01)
    assert (pixels == BLUE).all(axis=2).mean() == pytest.approx(1 / 8, abs=0.01)


@pytest.mark.parametrize("size", [(800, 400), (400, 800)])
def test_crop_cuts_both_ends_of_the_longer_side(size: tuple[int, int]) -> None:
    assert (square(with_red_and_blue_ends(size), SIZE, "crop") == GREEN).all()


def test_crop_keeps_the_ends_of_the_shorter_side() -> None:
    pixels = square(with_red_corners((192, 192), 20).resize((192, 192)), SIZE, "crop")
    assert colour(pixels, 0, 0) == RED
    assert colour(pixels, SIZE - 1, SIZE - 1) == RED


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_the_aspect_ratio_and_fills_with_the_mean_colour(turned: bool) -> None:
    pixels = square(with_red_and_blue_ends((400, 800) if turned else (800, 400)), SIZE, "pad")
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    quarter = SIZE // 4
    assert (pixels[:quarter] == PAD_COLOUR).all()
    assert (pixels[-quarter:] == PAD_COLOUR).all()
    assert not (pixels[quarter:-quarter] == PAD_COLOUR).all(axis=2).any()
    assert colour(pixels, SIZE // 2, 0) == RED
    assert colour(pixels, SIZE // 2, SIZE // 2) == GREEN
    assert colour(pixels, SIZE // 2, SIZE - 1) == BLUE


@every_resize
@pytest.mark.parametrize("seed", range(3))
def test_a_half_size_copy_is_nearly_the_same_square(resize: str, seed: int) -> None:
    original = picture(seed, (1600, 1200))
    half = original.resize((800, 600), Image.Resampling.LANCZOS)
    other = picture(seed + 10, (1600, 1200))
    squares = [square(image, SIZE, resize).astype(float) for image in (original, half, other)]
    assert np.abs(squares[0] - squares[1]).mean() < 1
    assert np.abs(squares[0] - squares[2]).mean() > 20


@every_resize
def test_a_very_large_image_is_averaged_and_not_sampled(resize: str) -> None:
    stripes = np.zeros((1920, 1920, 3), np.uint8)
    stripes[:, ::2] = 200
    pixels = square(Image.fromarray(stripes), SIZE, resize)
    assert np.abs(pixels.astype(int) - 100).max() <= 12


def noise(deviation: float, mean: float = 60.0) -> NDArray[np.uint8]:
    values = np.random.default_rng(0).normal(mean, deviation, (192, 192, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 90), PAD_COLOUR])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (50, 50)])
def test_one_colour_is_blank_with_every_resize_mode(
    colour: tuple[int, int, int], resize: str, size: tuple[int, int]
) -> None:
    assert is_blank(square(Image.new("RGB", size, colour), 192, resize))


@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_with_content_is_not_blank(resize: str) -> None:
    assert not is_blank(square(picture(0), 192, resize))


def test_the_noise_under_a_lens_cap_is_blank_and_fog_is_not() -> None:
    assert is_blank(noise(2))
    across = np.linspace(200, 220, 192)[None, :, None]  # a slope of twenty levels of 255
    assert not is_blank(np.broadcast_to(across, (192, 192, 3)).astype(np.uint8))


def test_a_word_on_a_white_page_is_not_blank() -> None:
    page = np.full((192, 192, 3), 255, np.uint8)
    page[90:94, 60:80] = 0
    assert not is_blank(page)
