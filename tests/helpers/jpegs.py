"""JPEG files, of those a GPU decodes and of those it does not, and what the CPU makes of them."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.fakes import picture
from vggsearch.defaults import EMBEDDING
from vggsearch.model.torch_engine.jpeg import DeviceJpeg
from vggsearch.photos import resize as resizing
from vggsearch.photos.decode import decode

Pixels = NDArray[np.uint8]

SIZE = EMBEDDING.map_size
SMALL, TALL, LARGE = (500, 375), (375, 500), (4000, 3000)
GRAIN = 25.0  # levels, standard deviation
TOLERANCE = {"smooth": 0.25, "grain": 0.6}  # levels, mean absolute difference; DeviceJpeg tells what was measured
LARGEST = 8  # levels, of any pixel
REPEATED_CHROMA = 1.5  # levels more, in the mean, where the decoder does not smooth 4:2:0 as libjpeg does
PREFIX = 2  # bytes before the first segment


def grainy(image: Image.Image) -> Image.Image:
    grain = np.random.default_rng(0).normal(0, GRAIN, (image.height, image.width, 3)).astype(np.float32)
    return Image.fromarray((np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8))


MAKE: dict[str, Callable[[Image.Image], Image.Image]] = {"smooth": Image.Image.copy, "grain": grainy}


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@cache
def photo(kind: str, size: tuple[int, int], subsampling: int = 2) -> bytes:
    return encoded(MAKE[kind](picture(1, size)), subsampling=subsampling)


def turned(data: bytes, orientation: int) -> bytes:
    """The same picture, whose EXIF block says how to turn it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    return data[:PREFIX] + b"\xff\xe1" + (len(block) + 2).to_bytes(2) + block + data[PREFIX:]


def on_cpu(data: bytes, resize: str, size: int = SIZE) -> Pixels:
    return resizing.square(decode(io.BytesIO(data), "photo.jpg", at_least=size).image, size, resize)


def assert_near(ours: Pixels, theirs: Pixels, mean: float, largest: float = LARGEST) -> None:
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.mean() <= mean
    assert difference.max() <= largest


@cache
def cpu() -> DeviceJpeg:
    return DeviceJpeg([torch.device("cpu")])


def squared(data: bytes, resize: str = "squash", orientation: int = 1, device: DeviceJpeg | None = None) -> Pixels:
    pixels = (device or cpu()).square(data, SIZE, resize, orientation)
    assert pixels is not None
    return pixels


def frame_at(data: bytes) -> int:
    """Where the frame's marker stands in a baseline file."""
    return data.index(b"\xff\xc0\x00\x11")


def replaced(data: bytes, at: int, byte: int) -> bytes:
    return data[:at] + bytes([byte]) + data[at + 1 :]


def without(data: bytes, marker: bytes) -> bytes:
    begin = data.index(marker)
    return data[:begin] + data[begin + 2 + int.from_bytes(data[begin + 2 : begin + 4]) :]


def png() -> bytes:
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    return file.getvalue()


BASELINE = photo("smooth", SMALL)
NOT_FOR_IT = {
    "nothing": b"",
    "a start and no more": b"\xff\xd8\xff",
    "a start and noise": b"\xff\xd8\xff" + bytes(range(256)) * 4,
    "a PNG": png(),
    "CMYK": encoded(picture(1).convert("CMYK")),
    "RGB stored as such": encoded(picture(1), keep_rgb=True),
    "RGB by the names of its components": without(encoded(picture(1), keep_rgb=True), b"\xff\xee"),
    "RGB by Adobe's marker": BASELINE[:PREFIX] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" + BASELINE[PREFIX:],
    "arithmetic codes": replaced(BASELINE, frame_at(BASELINE) + 1, 0xC9),
    "lossless": replaced(BASELINE, frame_at(BASELINE) + 1, 0xC3),
    "12 bits": replaced(BASELINE, frame_at(BASELINE) + 4, 12),
    "two components": replaced(BASELINE, frame_at(BASELINE) + 9, 2),
    "no frame": without(BASELINE, b"\xff\xc0"),
    "no end": BASELINE[:-2],
    "half of it": BASELINE[: len(BASELINE) // 2],
    "half of it, with a whole thumbnail": turned(BASELINE[: len(BASELINE) // 2], 1).replace(b"Exif", b"\xff\xd9if"),
    "no quantisation": without(without(BASELINE, b"\xff\xdb"), b"\xff\xdb"),
    "smaller than the square": photo("smooth", (SIZE - 1, 400)),
}

FOR_IT = {
    "progressive": encoded(picture(1, SMALL), progressive=True),
    "grey": encoded(picture(1, SMALL).convert("L")),
    "4:2:2": photo("smooth", SMALL, 1),
    "restart markers": encoded(picture(1, SMALL), restart_marker_blocks=4),
    "a profile and a comment": encoded(picture(1, SMALL), icc_profile=b"profile" * 20_000, comment=b"a comment"),
    "something after its end": BASELINE + b"trailer" * 100,
    "fill bytes before a marker": BASELINE[:PREFIX] + b"\xff\xff\xff" + BASELINE[PREFIX:],
    "Adobe's YCbCr": BASELINE[:PREFIX] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1" + BASELINE[PREFIX:],
}
