"""Fit an image of any aspect ratio to the square uint8 input of the network."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vggsearch.defaults import IMAGE, RESIZES

INPUT_FILTER = Image.Resampling.BICUBIC
PAD_COLOUR = (124, 116, 104)  # the mean colour of ImageNet, which normalisation maps to zero


def squash(image: Image.Image, size: int) -> Image.Image:
    """Resize the whole image to the square, ignoring its aspect ratio."""
    return image.resize((size, size), INPUT_FILTER, reducing_gap=IMAGE.reducing_gap)


def crop(image: Image.Image, size: int) -> Image.Image:
    """Keep the aspect ratio and the centre; cut off both ends of the longer side."""
    return ImageOps.fit(image, (size, size), INPUT_FILTER)


def pad(image: Image.Image, size: int) -> Image.Image:
    """Keep the aspect ratio and the whole image; fill the rest of the square with the mean colour."""
    return ImageOps.pad(image, (size, size), INPUT_FILTER, color=PAD_COLOUR)


RESIZE_BY_NAME: dict[str, Callable[[Image.Image, int], Image.Image]] = dict(
    zip(RESIZES, (squash, crop, pad), strict=True)
)


def square(image: Image.Image, size: int, resize: str) -> NDArray[np.uint8]:
    """Return uint8 of shape (size, size, 3), RGB in 0..255. `resize` is one of defaults.RESIZES."""
    # np.array copies, since torch needs writable memory.
    return np.array(RESIZE_BY_NAME[resize](image, size), dtype=np.uint8)


def small_grey(image: Image.Image, longer: int) -> NDArray[np.uint8]:
    """Return an image in grey, uint8 (height, width), its longer side `longer` pixels."""
    image = bounded(image, longer, of_longer=True)  # before a copy in grey is made of a large one
    scale = longer / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    reduced = image.convert("L").resize((width, height), INPUT_FILTER, reducing_gap=IMAGE.reducing_gap)
    return np.asarray(reduced)


def bounded(image: Image.Image, at_least: int, *, of_longer: bool = False) -> Image.Image:
    """Reduce an image as far as leaves IMAGE.reducing_gap times `at_least` pixels per side, or of the longer side.

    It gets no more than IMAGE.picture_pixels in any case. A small image stays as it is.
    """
    side = max(image.size) if of_longer else min(image.size)
    image = image.reduce(max(1, int(side / (at_least * IMAGE.reducing_gap))))
    if image.width * image.height <= IMAGE.picture_pixels:
        return image
    scale = math.sqrt(IMAGE.picture_pixels / (image.width * image.height))
    width, height = (max(1, int(each * scale)) for each in image.size)
    most_wide, most_high = max(1, IMAGE.picture_pixels // height), max(1, IMAGE.picture_pixels // width)
    return image.resize(
        (min(width, most_wide), min(height, most_high)), INPUT_FILTER, reducing_gap=IMAGE.reducing_gap
    )


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Return whether a square, uint8 (size, size, 3), is one colour apart from noise; padding is ignored."""
    pixels = pixels[::2, ::2].reshape(-1, 3)  # a quarter of the pixels gives the same result
    if (pixels[0] == PAD_COLOUR).all():
        pixels = pixels[(pixels != PAD_COLOUR).any(axis=1)]
    channels = pixels.T.copy()
    return channels.size == 0 or bool(max(channel.std() for channel in channels) < IMAGE.blank_deviation)
