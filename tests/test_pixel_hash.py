"""The pixel hash: equal for files that show the same in every frame, pixel, transparency and depth only."""

import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from vggsearch import defaults
from vggsearch.photos import pixel_hash as module
from vggsearch.photos.decode import has_frames
from vggsearch.photos.pixel_hash import pixel_hash

SIZE = (40, 30)


def written(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def hash_of(data: bytes) -> str:
    return pixel_hash(io.BytesIO(data))


def animation(format: str, *seeds: int, duration: int = 100, **options: Any) -> bytes:
    frames = [picture(seed, SIZE) for seed in seeds]
    options = {"duration": duration, **options} if format != "TIFF" else options
    return written(frames[0], format, save_all=True, append_images=frames[1:], **options)


def test_the_container_and_an_orientation_in_exif_do_not_matter() -> None:
    image = picture(0, SIZE)
    exif = Image.Exif()
    exif[0x112] = 6
    turned = written(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    lossless = [written(image, "PNG"), written(image, "BMP"), written(image, "TIFF"), turned]
    webp = written(image, "WEBP", lossless=True)
    assert len({hash_of(data) for data in (*lossless, webp)}) == 1
    assert hash_of(written(picture(1, SIZE), "PNG")) != hash_of(lossless[0])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_every_frame_or_page_counts(format: str) -> None:
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    whole = animation(format, 1, 2, 3, **options)
    others = [animation(format, *seeds, **options) for seeds in ((1, 2, 4), (1, 2), (1, 2, 3, 4), (1,))]
    assert len({hash_of(data) for data in (whole, *others)}) == 5
    assert hash_of(whole) == hash_of(animation(format, 1, 2, 3, **options))
    assert [has_frames(io.BytesIO(data)) for data in (whole, others[1], others[3])] == [True, True, False]


def test_one_animation_in_two_containers_is_the_same_unless_it_runs_at_another_speed() -> None:
    webp = animation("WEBP", 1, 2, 3, lossless=True)
    assert hash_of(webp) == hash_of(animation("PNG", 1, 2, 3))
    assert hash_of(webp) != hash_of(animation("WEBP", 1, 2, 3, lossless=True, duration=50))


def test_transparency_counts_but_not_what_it_hides() -> None:
    pixels = np.array(picture(1, SIZE).convert("RGBA"))
    opaque = pixels.copy()
    pixels[5:10, 5:10, 3] = 0
    hidden = pixels.copy()
    hidden[5:10, 5:10, :3] = 77
    white = pixels.copy()
    white[5:10, 5:10] = 255
    transparent, other, on_white = (written(Image.fromarray(each), "PNG") for each in (pixels, hidden, white))
    assert hash_of(transparent) == hash_of(other)
    assert hash_of(transparent) != hash_of(on_white)
    assert hash_of(written(Image.fromarray(opaque), "PNG")) == hash_of(written(picture(1, SIZE), "PNG"))


def test_depth_counts() -> None:
    grey = np.asarray(picture(1, SIZE).convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    finer = Image.fromarray(grey.astype(np.uint16) * 257 - (grey > 9))
    shallow = written(Image.fromarray(grey), "PNG")
    assert len({hash_of(data) for data in (written(deep, "PNG"), written(finer, "PNG"), shallow)}) == 3
    assert hash_of(written(deep, "PNG")) == hash_of(written(deep, "TIFF"))


def test_colours_of_16_bits_are_the_same_only_in_files_with_the_same_bytes() -> None:
    import cv2

    deep = np.asarray(picture(1, SIZE)).astype(np.uint16) * 257
    one, other = (cv2.imencode(".png", deep, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes() for level in (1, 9))
    assert hash_of(one) == hash_of(one) != hash_of(other)
    assert Image.open(io.BytesIO(one)).mode == "RGB"


def test_long_animations_are_the_same_only_in_files_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGE", defaults.ImageDefaults(most_frames=3))
    whole, other = animation("GIF", 1, 2, 3, 4), animation("GIF", 1, 2, 3, 4, comment=b"other bytes")
    assert hash_of(whole) == hash_of(whole) != hash_of(other)
    short = animation("GIF", 1, 2, 3), animation("GIF", 1, 2, 3, comment=b"other bytes")
    assert hash_of(short[0]) == hash_of(short[1])


def test_an_animation_of_thousands_of_frames_takes_a_moment() -> None:
    frames = [Image.fromarray(np.full((8, 8), number % 251, np.uint8)) for number in range(3000)]
    data = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    started = time.process_time()
    assert hash_of(data).startswith("bytes ")
    assert has_frames(io.BytesIO(data))
    assert time.process_time() - started < 2
