"""Query inputs: an image as a file, as bytes, as a Pillow image, as an array or tensor, optionally cropped."""

import io
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import IMAGE
from vggsearch.errors import ImageError, InputError, OptionError, Spelled
from vggsearch.photos.addresses import address_of
from vggsearch.photos.decode import decoder_errors, upright_rgb
from vggsearch.photos.decoder_pool import Decoders, Source, View
from vggsearch.photos.resize import small_grey, square
from vggsearch.photos.upright import Box as Box
from vggsearch.photos.upright import OutsideError, edges_inside, to_rgb
from vggsearch.system.places import from_home


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
        except (OSError, ValueError, InputError, ImageError) as error:
            self._error = error

    def read(self, _: int = -1, /) -> bytes:
        """Return all bytes. Raises InputError for a file in text mode, and what reading it raised."""
        if self._error is not None:
            raise self._error
        return self._data


def _bytes_of(file: Any) -> bytes:
    with suppress(AttributeError, OSError):  # a stream cannot seek
        file.seek(0)
    data = None if isinstance(file, io.TextIOBase) else _read(file, IMAGE.stream_bytes + 1)
    if not isinstance(data, bytes):
        raise InputError('A file of an image must be open in binary mode: open(path, "rb").')
    if len(data) > IMAGE.stream_bytes:
        raise ImageError(f"has more than {IMAGE.stream_bytes >> 20} MB, the limit for a stream", "too large")
    return data


def _read(file: Any, most: int) -> object:
    if not isinstance(file, io.RawIOBase):
        return file.read(most)
    buffered = io.BufferedReader(file)  # a raw pipe returns what is there, not all that was asked for
    try:
        return buffered.read(most)
    finally:
        buffered.detach()


@dataclass(frozen=True)
class IndexedPhoto(os.PathLike[str]):
    """A photo that an index names: the file `path` below the folder `root`, which a link may not lead out of."""

    root: Path
    path: str

    def __fspath__(self) -> str:
        """Return the path of the file."""
        return str(self.root / self.path)


def is_image(value: object) -> TypeGuard[ImageLike]:
    """Return whether a value is one image, rather than several, such as a batch with four dimensions."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":  # of paths
        return False
    return isinstance(value, IMAGE_TYPES) and getattr(value, "ndim", 0) != 4


def name_of(image: object) -> str:
    """Return the path of an image, "-" if it is not a file."""
    if isinstance(image, ImageFile):
        return image.name
    return address_of(Path(image)) if isinstance(image, str | os.PathLike) else "-"


@contextmanager
def naming_image(image: object) -> Iterator[None]:
    """Have an ImageError about an image name its file."""
    try:
        yield
    except ImageError as error:
        name = name_of(image)
        raise ImageError(error.reason, error.kind, "" if name == "-" else name) from error


def view_of(
    image: ImageLike,
    size: int,
    resize: str,
    decoders: Callable[[], Decoders],
    crop: Box | None = None,
    *,
    longer: int = 0,
) -> View:
    """Return an image as a network with inputs of `size` pixels sees it, or its part `crop`, in its upright pixels.

    If `longer` is not 0, it has a grey picture, too, with so many pixels on the longer side.

    Files are decoded by `decoders()`, which is not called for what is in memory already: a PIL image, an array or a
    tensor. Raises ImageError if the image cannot be used, InputError for a value that is no image and for an array
    of another dtype or shape, see `_from_array`, and for a crop outside the image.
    """
    whole = None if crop is None else _whole(crop)
    try:
        source = _source(image)
        if source is not None:
            return decoders().view(source, size, resize, whole, longer=longer)
        picture = _cropped(picture_in_memory(image), whole)
    except OutsideError as error:
        raise InputError(
            f"The crop {','.join(map(str, whole or ()))} is not inside {name_of(image)} "
            f"({error.width} x {error.height} pixels); its numbers are left, top, width and height."
        ) from None
    grey = small_grey(picture, longer) if longer else None
    return View(square(picture, size, resize), picture.width / picture.height, grey)


def _whole(crop: Sequence[SupportsIndex]) -> Box:
    try:
        left, top, width, height = map(operator.index, crop)
    except (TypeError, ValueError):
        raise OptionError(
            Spelled(f"crop={crop!r}", "--crop"), " is no (left, top, width, height) in whole pixels."
        ) from None
    return left, top, width, height


def _source(image: ImageLike) -> Source | None:
    """Return what a decoder process is to decode, None for pixels. Raises ImageError for a file that has no end."""
    if isinstance(image, IndexedPhoto):
        return Source(image.path, image.root)
    if isinstance(image, str | os.PathLike):
        if "\0" in os.fspath(image):
            raise ImageError("its name contains a null character, which no file has", "bad name")
        return Source.named(from_home(image))
    if isinstance(image, ENCODED):
        return Source("", data=bytes(image))
    if isinstance(image, ReadableFile) and not isinstance(image, Image.Image):
        opened = image if isinstance(image, ImageFile) else ImageFile(image)
        with decoder_errors():
            return Source(opened.name, data=opened.read())
    return None


def _cropped(picture: Image.Image, crop: Box | None) -> Image.Image:
    if crop is None:
        return picture
    return picture.crop(edges_inside(crop, picture.size))


def picture_in_memory(image: object) -> Image.Image:
    """Return a PIL image, an array or a tensor as upright RGB. Raises InputError and ImageError."""
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise InputError(f"A PIL image of {image.width} x {image.height} pixels has nothing in it to compare.")
        return upright_rgb(image)
    if isinstance(image, np.ndarray):
        return _from_array(_channels_last(image, is_tensor=False))
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
