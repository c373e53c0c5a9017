"""Bring a picture of any shape to the square of uint8 pixels that the network sees."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vggsearch.defaults import IMAGE

FILTER = Image.Resampling.BICUBIC
PAD_COLOUR = (124, 116, 104)  # ImageNet's mean colour: zero to the network after normalisation


def squash(image: Image.Image, size: int) -> Image.Image:
    """Squeeze the whole picture into the square; its shape is lost, nothing else is."""
    return image.resize((size, size), FILTER, reducing_gap=IMAGE.reducing_gap)


def crop(image: Image.Image, size: int) -> Image.Image:
    """Keep the shape and the centre; the ends of the longer side are cut off."""
    return ImageOps.fit(image, (size, size), FILTER)


def pad(image: Image.Image, size: int) -> Image.Image:
    """Keep the shape and the whole picture; the rest of the square is filled with the mean colour."""
    return ImageOps.pad(image, (size, size), FILTER, color=PAD_COLOUR)


RESIZES: dict[str, Callable[[Image.Image, int], Image.Image]] = {"squash": squash, "crop": crop, "pad": pad}


def square(image: Image.Image, size: int, resize: str) -> NDArray[np.uint8]:
    """Return uint8 of shape (size, size, 3), RGB in 0..255. `resize` is a key of RESIZES."""
    return np.array(RESIZES[resize](image, size), dtype=np.uint8)  # a copy: torch wants to own what it reads


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Say whether a square, uint8 (size, size, 3), shows nothing: one colour but for noise, padding aside."""
    pixels = pixels[::2, ::2].reshape(-1, 3)  # a quarter says as much, in a quarter of the time
    if (pixels[0] == PAD_COLOUR).all():
        pixels = pixels[(pixels != PAD_COLOUR).any(axis=1)]
    channels = pixels.T.copy()
    return channels.size == 0 or bool(max(channel.std() for channel in channels) < IMAGE.blank_deviation)
