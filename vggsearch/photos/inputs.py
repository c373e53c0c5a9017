"""Query inputs: an image as a file, as bytes, as a Pillow image, as an array or tensor, optionally cropped."""

import io
import operator
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.errors import InputError, OptionError, Spelled
from vggsearch.photos.decode import decode, decoder_errors, to_rgb, upright_rgb

Box = tuple[int, int, int, int]  # left, top, width, height, in pixels


@runtime_checkable
class ReadableFile(Protocol):
    """A file that is open for reading in binary mode, or anything that reads like one.

    >>> with open("photos/a.jpg", "rb") as file:
    ...     index.query(file, count=1).matches[0].path
    'a.jpg'
    """

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all by default."""


@runtime_checkable
class TensorLike(Protocol):
    """A tensor of PyTorch, which is not imported for this.

    >>> import torch
    >>> index.embed(torch.rand(3, 64, 64)).shape
    (1024,)
    """

    @property
    def ndim(self) -> int:
        """The number of dimensions."""

    def detach(self) -> Any:
        """Return the tensor without its gradient."""

    def is_floating_point(self) -> bool:
        """Return whether it contains floating-point numbers."""


ImageLike = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | ReadableFile
    | Image.Image
    | NDArray[np.uint8]
    | NDArray[np.floating]
    | TensorLike
)
ENCODED = (bytes, bytearray, memoryview)
IMAGE_TYPES = (str, os.PathLike, *ENCODED, ReadableFile, Image.Image, np.ndarray, TensorLike)
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


class ImageFile:
    """The bytes of an open file from its start, read at once, since it may be closed when they are needed.

    `name` is its path, "-" if it has none.
    """

    def __init__(self, file: ReadableFile, name: str | None = None) -> None:
        named = getattr(file, "name", None) if name is None else name
        self.name = named if isinstance(named, str) else "-"
        self._data = b""
        self._error: Exception | None = None
        try:
            self._data = _bytes_of(file)
        except (OSError, ValueError, InputError) as error:
            self._error = error

    def read(self, _: int = -1, /) -> bytes:
        """Return all bytes. Raises InputError for a file in text mode, and what reading it raised."""
        if self._error is not None:
            raise self._error
        return self._data


def _bytes_of(file: Any) -> bytes:
    with suppress(AttributeError, io.UnsupportedOperation):  # a stream cannot seek
        file.seek(0)
    data = None if isinstance(file, io.TextIOBase) else file.read()
    if not isinstance(data, bytes):
        raise InputError('A file of an image must be open in binary mode: open(path, "rb").')
    return data


def is_image(value: object) -> TypeGuard[ImageLike]:
    """Return whether a value is one image, rather than several, such as a batch with four dimensions."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":  # of paths
        return False
    return isinstance(value, IMAGE_TYPES) and getattr(value, "ndim", 0) != 4


def name_of(image: object) -> str:
    """Return the path of an image, "-" if it is not a file."""
    if isinstance(image, ImageFile):
        return image.name
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "-"


def read_image(image: ImageLike, at_least: int, crop: Box | None = None) -> Image.Image:
    """Return the image as upright RGB, cropped to `crop` (in pixels of the upright image) if given.

    Without `crop`, a large JPEG is decoded at a reduced size of at least `at_least` pixels per side. Raises
    ImageError if the image cannot be used, InputError for a value that is no image and for an array of another
    dtype or shape, see `_from_array`, and OptionError for a crop outside the image.
    """
    whole = None if crop is None else _whole(crop)
    with decoder_errors():
        if whole is None:
            return _read(image, at_least)
        full = _read(image, None)
    left, top, width, height = whole
    is_inside = min(left, top) >= 0 and left + width <= full.width and top + height <= full.height
    if not is_inside or min(width, height) < 1:
        raise OptionError(
            f"The crop {left},{top},{width},{height} is not inside {name_of(image)} "
            f"({full.width} x {full.height} pixels). Pass ",
            Spelled("crop=(left, top, width, height)", "--crop LEFT,TOP,WIDTH,HEIGHT"),
            " in pixels.",
        )
    return full.crop((left, top, left + width, top + height))


def _whole(crop: Sequence[SupportsIndex]) -> Box:
    try:
        left, top, width, height = map(operator.index, crop)
    except (TypeError, ValueError):
        raise OptionError(
            Spelled(f"crop={crop!r}", "--crop"), " is no (left, top, width, height) in whole pixels."
        ) from None
    return left, top, width, height


def _read(image: ImageLike, at_least: int | None) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, np.ndarray):
        return _from_array(_channels_last(image, is_tensor=False))
    if isinstance(image, ENCODED):
        return decode(io.BytesIO(bytes(image)), at_least=at_least).image
    if isinstance(image, str | os.PathLike):
        with Path(image).open("rb") as file:
            return decode(file, str(image), at_least=at_least).image
    if isinstance(image, ReadableFile):
        opened = image if isinstance(image, ImageFile) else ImageFile(image)
        return decode(io.BytesIO(opened.read()), opened.name, at_least=at_least).image
    if isinstance(image, TensorLike):
        values = image.detach().cpu()
        values = values.float() if image.is_floating_point() else values
        return _from_array(_channels_last(values.numpy(), is_tensor=True))
    raise InputError(
        "An image is a path, the bytes of a file, an open file, a PIL image, an array or a tensor, "
        f"not {type(image).__name__}."
    )


def _channels_last(array: NDArray[Any], *, is_tensor: bool) -> NDArray[Any]:
    """Return pixels as (height, width, channels): from that shape, (height, width), or (channels, height, width).

    The dimension with 1, 3 or 4 entries is that of the channels. If both the first and the last have, it is the
    last one of an array, and a tensor is refused, since both orders are common there.
    """
    if array.ndim == 2:
        return array[:, :, None]
    is_last, is_first = (array.ndim == 3 and array.shape[axis] in CHANNELS for axis in (2, 0))
    if is_last and is_first and is_tensor:
        raise InputError(
            f"A tensor of shape {array.shape} could have its channels first or last. Pass a NumPy array, with the "
            "channels last."
        )
    if is_last:
        return array
    if is_first:
        return np.moveaxis(array, 0, 2)
    raise _not_pixels(array)


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    """Return an image of (height, width, channels): uint8, or floating-point numbers from 0 to 1.

    Transparent pixels are put on white, as those of files. Raises InputError for any other numbers: whether they
    end at 255, at 65535 or are normalised cannot be known for certain from the numbers themselves.
    """
    if pixels.size == 0:
        raise _not_pixels(pixels)
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise _not_pixels(pixels, f", with values from {pixels.min():g} to {pixels.max():g}")
        pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise _not_pixels(pixels)
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)))


def _not_pixels(array: NDArray[Any], values: str = "") -> InputError:
    return InputError(
        "An image array must be uint8, or float from 0 to 1, of shape (height, width) or (height, width, 1, 3 or 4 "
        f"channels), RGB, or with the channels first; got {array.dtype} {array.shape}{values}."
    )
