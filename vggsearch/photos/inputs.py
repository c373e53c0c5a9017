"""Query inputs: an image as a file, as bytes, as a Pillow image or as an array, optionally cropped."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.errors import OptionError, Spelled
from vggsearch.photos.decode import decode, decoder_errors, upright_rgb

Box = tuple[int, int, int, int]  # left, top, width, height, in pixels
ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
IMAGE_TYPES = (str, os.PathLike, bytes, Image.Image, np.ndarray)  # ImageLike, for isinstance


def name_of(image: ImageLike) -> str:
    """Return the path of an image, "-" if it is not a file."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "-"


def read_image(image: ImageLike, at_least: int, crop: Box | None = None) -> Image.Image:
    """Return the image as upright RGB, cropped to `crop` (in pixels of the upright image) if given.

    Without `crop`, a large JPEG is decoded at a reduced size of at least `at_least` pixels per side. Raises
    ImageError if the image cannot be used, OptionError for an array of another dtype or shape and for a crop
    outside the image.
    """
    with decoder_errors():
        if crop is None:
            return _read(image, at_least)
        full = _read(image, None)
    left, top, width, height = crop
    is_inside = min(left, top) >= 0 and left + width <= full.width and top + height <= full.height
    if not is_inside or min(width, height) < 1:
        raise OptionError(
            f"The crop {left},{top},{width},{height} is not inside {name_of(image)} "
            f"({full.width} x {full.height} pixels). Pass ",
            Spelled("crop=(left, top, width, height)", "--crop LEFT,TOP,WIDTH,HEIGHT"),
            " in pixels.",
        )
    return full.crop((left, top, left + width, top + height))


def _read(image: ImageLike, at_least: int | None) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, bytes):
        return decode(io.BytesIO(image), at_least=at_least).image
    with Path(image).open("rb") as file:
        return decode(file, str(image), at_least=at_least).image


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise OptionError(
            f"An image array must be uint8 RGB of shape (height, width, 3); got {array.dtype} {array.shape}."
        )
    return Image.fromarray(array)
