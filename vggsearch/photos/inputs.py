"""What can be asked for: a picture in a file, in memory or as an array, the whole of it or a part."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.errors import OptionError
from vggsearch.photos.decode import decode, decoder_errors, upright_rgb

Box = tuple[int, int, int, int]  # left, top, width, height, in pixels
ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
ONE_IMAGE = (str, os.PathLike, bytes, Image.Image, np.ndarray)  # as isinstance takes it


def name_of(image: ImageLike) -> str:
    """Return the path of a picture, "-" where it has none."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "-"


def read_picture(image: ImageLike, at_least: int, crop: Box | None = None) -> Image.Image:
    """Return the upright RGB picture, or the part `crop` of it.

    A large JPEG is decoded small, to `at_least` pixels a side. Raises ImageError where the picture cannot be used,
    OptionError for an array of another kind and for a part that is not in the picture.
    """
    with decoder_errors():
        if crop is None:
            return _read(image, at_least)
        picture = _read(image, None)
    left, top, width, height = crop
    is_inside = min(left, top) >= 0 and left + width <= picture.width and top + height <= picture.height
    if not is_inside or min(width, height) < 1:
        raise OptionError(
            f"The part {left},{top},{width},{height} is not in {name_of(image)}, which has {picture.width} x "
            f"{picture.height} pixels. Give left, top, width and height in pixels."
        )
    return picture.crop((left, top, left + width, top + height))


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
        raise OptionError(f"An array must be uint8 of shape (h, w, 3), RGB; this is {array.dtype} {array.shape}.")
    return Image.fromarray(array)
