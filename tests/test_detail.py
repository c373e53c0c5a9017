"""Whether a photo shows more detail than a smaller copy, and whether a picture was once in a JPEG."""

import io

import pytest
from PIL import Image, ImageFilter

from tests.helpers.textures import scene
from vggsearch.matching.detail import detail_of, has_jpeg_grid

LANCZOS = Image.Resampling.LANCZOS


def has_real_detail(image: Image.Image, ratio: float) -> bool:
    detail = detail_of(image)
    assert detail is not None
    return detail.is_real(ratio)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("ratio", [1.4, 2.0, 4.0])
@pytest.mark.parametrize("quality", [60, 95])
def test_a_photo_has_detail_that_an_enlarged_copy_has_not(ratio: float, quality: int) -> None:
    photo = scene(1, (512, 384))
    enlarged = photo.resize((round(512 * ratio), round(384 * ratio)), LANCZOS)
    assert has_real_detail(as_jpeg(photo, 95), ratio)
    assert not has_real_detail(as_jpeg(enlarged, quality), ratio)


@pytest.mark.parametrize(("ratio", "quality"), [(1.4, 90), (1.5, 90), (2.0, 60)])
def test_the_noise_of_a_jpeg_is_no_detail_of_an_enlarged_copy_of_a_blurred_photo(
    ratio: float, quality: int
) -> None:
    photo = as_jpeg(scene(1, (400, 300)).filter(ImageFilter.GaussianBlur(2.5)), 93)
    enlarged = photo.resize((round(400 * ratio), round(300 * ratio)), LANCZOS)
    assert not has_real_detail(as_jpeg(enlarged, quality), ratio)


def test_of_equal_sizes_and_tiny_parts_nothing_is_known() -> None:
    assert not has_real_detail(scene(1, (512, 384)), 1.1)
    assert detail_of(scene(1, (40, 40))) is None


@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_a_picture_that_was_once_a_jpeg_still_shows_its_blocks(quality: int) -> None:
    assert has_jpeg_grid(as_jpeg(scene(2, (512, 384)), quality))


def test_a_picture_that_was_never_a_jpeg_shows_none() -> None:
    assert not has_jpeg_grid(scene(2, (512, 384)))
    assert not has_jpeg_grid(as_jpeg(scene(2, (512, 384)), 90).resize((640, 480), LANCZOS))
