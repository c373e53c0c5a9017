"""Decode and resize JPEG on the GPU that runs the network, so that a few CPU cores suffice to feed it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Transpose
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import io

from vggsearch.defaults import RESIZES
from vggsearch.errors import OptionError, option
from vggsearch.photos.decode import UPRIGHT
from vggsearch.photos.jpeg_header import JpegHeader, jpeg_header
from vggsearch.photos.resize import PAD_COLOUR, is_blank

HEIGHT, WIDTH = 1, 2  # dimensions of pixels, here uint8 (3, height, width)
# Pillow's transposition -> whether to swap height and width, then the dimensions to flip.
SWAP_AND_FLIPS: dict[Transpose, tuple[bool, tuple[int, ...]]] = {
    Transpose.FLIP_LEFT_RIGHT: (False, (WIDTH,)),
    Transpose.ROTATE_180: (False, (HEIGHT, WIDTH)),
    Transpose.FLIP_TOP_BOTTOM: (False, (HEIGHT,)),
    Transpose.TRANSPOSE: (True, ()),
    Transpose.ROTATE_270: (True, (WIDTH,)),
    Transpose.TRANSVERSE: (True, (HEIGHT, WIDTH)),
    Transpose.ROTATE_90: (True, (HEIGHT,)),
}


class DeviceJpeg:
    """A JPEG decoder on one or more devices. Any number of threads may share it; they are spread over the devices.

    Mean absolute difference in levels of 0..255 from decoding on the CPU (reduced-size decoding, resize.square), at
    192 pixels and quality 90, measured with libjpeg-turbo on the CPU in place of nvJPEG:

    | image, 4:2:0 and 4:4:4                | squash       | crop         | pad          |
    | ------------------------------------- | ------------ | ------------ | ------------ |
    | 500 x 375, smooth                     | 0.13         | 0.14         | 0.09         |
    | 500 x 375, grain of sigma 25          | 0.15         | 0.27 to 0.35 | 0.10         |
    | 4000 x 3000, smooth                   | 0.19 to 0.20 | 0.13 to 0.15 | 0.08 to 0.09 |
    | 4000 x 3000, grain of sigma 25        | 0.41 to 0.46 | 0.29 to 0.31 | 0.19 to 0.23 |

    No pixel differs by more than 6. A decoder that replicates the chroma of 4:2:0, which libjpeg interpolates, adds
    (simulated, squash) 0.3 on the smooth 500 x 375, 0.4 on a photo and 1.3 on colour grain.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        """Test the decoder. Raises OptionError without a GPU, or if torchvision is built without nvJPEG.

        A future torchvision may lack decoders altogether: they are deprecated in favour of another package.
        """
        self._devices = cycle(devices)
        self._of_thread = threading.local()
        try:
            with torch.inference_mode(), self._stream() as device:
                decoded(io.encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), device)
        except (RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise OptionError(
                f"JPEG cannot be decoded on the GPU ({reason}). Use ", option("decode", "cpu"), "."
            ) from error

    def square(self, data: bytes, size: int, resize: str, orientation: int) -> NDArray[np.uint8] | None:
        """Return the image of a file like resize.square: a new uint8 (size, size, 3), RGB, upright.

        `resize` is one of defaults.RESIZES, `orientation` the EXIF orientation, which is applied here only. None if
        the file is not supported: the CPU then decodes it, or reports what is wrong with it.
        """
        if jpeg_header(data, size) is None:
            return None
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)  # torch warns about read-only memory
        try:
            with torch.inference_mode(), self._stream() as device:
                fitted = _upright(RESIZE_BY_NAME[resize](decoded(encoded, device), size), orientation)
                pixels = fitted.permute(1, 2, 0).cpu().numpy()  # waits for the stream
        except RuntimeError:  # of torchvision and nvJPEG, and of torch if the memory of the GPU is full
            return None
        return _centred(pixels, size)

    @contextmanager
    def _stream(self) -> Iterator[torch.device]:
        """Work on the device of this thread, in a stream of its own, which is idle whenever a decode begins.

        The nvJPEG hardware writes immediately, without waiting for work queued in the caller's stream. In a shared
        stream it would be given memory that the network has freed but not yet read (pytorch/vision 9606).
        """
        if not hasattr(self._of_thread, "device"):
            self._of_thread.device = next(self._devices)
            if self._of_thread.device.type == "cuda":
                self._of_thread.stream = torch.cuda.Stream(self._of_thread.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(getattr(self._of_thread, "stream", None)):
            yield self._of_thread.device


class SquareDecoder:
    """See engine.SquareDecoder: decodes the files of a batch one after another."""

    def __init__(self, gpu: torch.device, size: int, resize: str) -> None:
        self._gpu, self._size, self._resize = gpu, size, resize
        self._jpeg = DeviceJpeg([gpu])

    def squares(
        self, files: Sequence[bytes], headers: Sequence[JpegHeader]
    ) -> tuple[Tensor, NDArray[np.bool_], NDArray[np.bool_]]:
        """See engine.SquareDecoder."""
        pixels = np.zeros((len(files), self._size, self._size, 3), np.uint8)
        is_decoded = np.zeros(len(files), np.bool_)
        for row, (data, header) in enumerate(zip(files, headers, strict=True)):
            square = self._jpeg.square(data, self._size, self._resize, header.orientation)
            if square is not None:
                pixels[row], is_decoded[row] = square, True
        return torch.from_numpy(pixels).to(self._gpu), is_decoded, np.array([is_blank(each) for each in pixels])


def decoded(encoded: Tensor, device: torch.device) -> Tensor:
    """Return the pixels of a file as stored, uint8 (3, height, width). Raises RuntimeError."""
    pixels: Tensor = io.decode_jpeg(encoded, io.ImageReadMode.RGB, device)
    return pixels


def squash(pixels: Tensor, size: int) -> Tensor:
    """See photos.resize.squash."""
    return _resized(pixels, size, size)


def crop(pixels: Tensor, size: int) -> Tensor:
    """See photos.resize.crop, which may cut through pixels: columns 62.5 to 437.5 of 500 x 375.

    torch cuts only between pixels, so such a side is doubled first. With a cut half a pixel off, 500 x 375 with
    grain differed by 1.8 levels in the mean instead of 0.35.
    """
    _, height, width = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = pixels[:, top : height - top, left : width - left]
    for dimension in (HEIGHT, WIDTH):
        if cut.shape[dimension] > side:
            cut = cut.repeat_interleave(2, dimension).narrow(dimension, 1, 2 * side)
    return _resized(cut, size, size)


def pad(pixels: Tensor, size: int) -> Tensor:
    """See photos.resize.pad; `_centred` fills the rest of the square once the image is upright."""
    _, height, width = pixels.shape
    longer = max(height, width)
    return _resized(pixels, round(height / longer * size), round(width / longer * size))


RESIZE_BY_NAME: dict[str, Callable[[Tensor, int], Tensor]] = dict(zip(RESIZES, (squash, crop, pad), strict=True))


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize as float32, for which alone CUDA has antialiasing; bicubic overshoots 0..255 at edges."""
    floats = interpolate(pixels[None].float(), (height, width), mode="bicubic", antialias=True)[0]
    return floats.round_().clamp_(0, 255).to(torch.uint8)


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    if orientation not in UPRIGHT:
        return pixels
    swapped, flipped = SWAP_AND_FLIPS[UPRIGHT[orientation]]
    return (pixels.transpose(HEIGHT, WIDTH) if swapped else pixels).flip(flipped)


def _centred(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Copy the image to the centre of a new square, where ImageOps.pad places it."""
    height, width, _ = pixels.shape
    top, left = round((size - height) * 0.5), round((size - width) * 0.5)
    square = np.full((size, size, 3), PAD_COLOUR, np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square
