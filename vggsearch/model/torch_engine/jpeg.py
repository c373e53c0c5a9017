"""JPEG decoded and resized where the network runs, so that a few CPU cores can feed a GPU."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Transpose
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import io

from vggsearch.defaults import RESIZES
from vggsearch.errors import OptionError
from vggsearch.photos.decode import UPRIGHT
from vggsearch.photos.resize import PAD_COLOUR

START, END = b"\xff\xd8\xff", b"\xff\xd9"
ADOBE, SCAN = 0xEE, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # each is a way to code the picture
READ_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive, all in Huffman codes
PIXEL_LIMIT = 50_000_000  # up to 1.2 GB a thread as floats; what is larger the CPU decodes small

HEIGHT, WIDTH = 1, 2  # dimensions of pixels, which here are uint8 (3, height, width)
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
    """Decodes JPEG on devices; one object serves any number of threads, which it spreads over the devices.

    Against the CPU's way (images.decode reduced, then preprocess.square) at 192 pixels, quality 90, the mean
    absolute difference in levels of 0..255, measured with libjpeg-turbo on the CPU in place of nvJPEG:

    | picture, 4:2:0 and 4:4:4              | squash       | crop         | pad          |
    | ------------------------------------- | ------------ | ------------ | ------------ |
    | 500 x 375, smooth                     | 0.13         | 0.14         | 0.09         |
    | 500 x 375, grain of sigma 25          | 0.15         | 0.27 to 0.35 | 0.10         |
    | 4000 x 3000, smooth                   | 0.19 to 0.20 | 0.13 to 0.15 | 0.08 to 0.09 |
    | 4000 x 3000, grain of sigma 25        | 0.41 to 0.46 | 0.29 to 0.31 | 0.19 to 0.23 |

    No pixel differs by more than 6. A decoder that repeats the chroma of 4:2:0 where libjpeg smooths it adds
    (simulated, squash) 0.3 on the smooth 500 x 375, 0.4 on a photo and 1.3 on colour grain.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        """Try the decoder out. Raises OptionError where there is no GPU, or torchvision is built without nvJPEG.

        Or has no decoder at all: its decoders are deprecated in favour of another package's.
        """
        self._devices = cycle(devices)
        self._of_thread = threading.local()
        try:
            with torch.inference_mode(), self._stream() as device:
                decoded(io.encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), device)
        except (RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise OptionError(f"JPEG cannot be decoded on the GPU ({reason}). Use --decode cpu.") from error

    def square(self, data: bytes, size: int, resize: str, orientation: int) -> NDArray[np.uint8] | None:
        """Return one file's picture as preprocess.square does: uint8 (size, size, 3), RGB, upright, the caller's.

        `resize` is one of defaults.RESIZES, `orientation` the EXIF one, applied here and nowhere else. None where
        the file is not for this decoder: the CPU's then decodes it, or says what is wrong with it.
        """
        if not is_for_device(data, size):
            return None
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)  # of bytes themselves torch would warn
        try:
            with torch.inference_mode(), self._stream() as device:
                fitted = _upright(RESIZE_BY_NAME[resize](decoded(encoded, device), size), orientation)
                pixels = fitted.permute(1, 2, 0).cpu().numpy()  # waits for the stream
        except RuntimeError:  # what torchvision and nvJPEG raise, and torch where the GPU's memory is full
            return None
        return _centred(pixels, size)

    @contextmanager
    def _stream(self) -> Iterator[torch.device]:
        """Work on this thread's device, in a stream of its own, which is idle whenever a decode begins.

        nvJPEG's hardware writes at once, without waiting for what is queued in the caller's stream. In a shared
        stream it would be handed memory that the network has given back and not yet read (pytorch/vision 9606).
        """
        if not hasattr(self._of_thread, "device"):
            self._of_thread.device = next(self._devices)
            if self._of_thread.device.type == "cuda":
                self._of_thread.stream = torch.cuda.Stream(self._of_thread.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(getattr(self._of_thread, "stream", None)):
            yield self._of_thread.device


def decoded(encoded: Tensor, device: torch.device) -> Tensor:
    """Return a file's pixels, uint8 (3, height, width), as they are stored. Raises RuntimeError."""
    pixels: Tensor = io.decode_jpeg(encoded, io.ImageReadMode.RGB, device)
    return pixels


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the first scan, which begins at byte `scan`."""

    coding: int
    bits: int
    height: int
    width: int
    components: bytes
    is_adobe_rgb: bool
    scan: int


def is_for_device(data: bytes, size: int) -> bool:
    """Say whether nvJPEG decodes this file as libjpeg does. It would not refuse all that it gets wrong.

    Left to the CPU are: CMYK, which comes out in wrong colours, and RGB that is not stored as YCbCr, which may; 12
    bits and arithmetic codes; a file cut short, which must be refused; what is larger than PIXEL_LIMIT; and what
    would be enlarged, where the two resizes differ most and the CPU has least to do.
    """
    header = _header(data)
    if header is None:
        return False
    return (
        header.coding in READ_FRAMES
        and header.bits == 8
        and len(header.components) in (1, 3)
        and not (len(header.components) == 3 and (header.is_adobe_rgb or header.components == b"RGB"))
        and size <= min(header.height, header.width)
        and header.height * header.width <= PIXEL_LIMIT
        and data.find(END, header.scan) >= 0  # within a scan FF is followed by 00 or a restart: this is the end
    )


def _header(data: bytes) -> _Header | None:
    """Return the header, None where the data is no JPEG or not as the standard has it."""
    if not data.startswith(START):
        return None
    segments = list(_segments(data))
    frames = [(marker, data[begin:end]) for marker, begin, end in segments if marker in FRAMES]
    if len(frames) != 1 or segments[-1][0] != SCAN:
        return None
    coding, frame = frames[0]
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5]:
        return None
    adobe = [data[begin:end] for marker, begin, end in segments if marker == ADOBE]
    return _Header(
        coding=coding,
        bits=frame[0],
        height=int.from_bytes(frame[1:3]),
        width=int.from_bytes(frame[3:5]),
        components=frame[6::3],
        is_adobe_rgb=any(text.startswith(b"Adobe") and text[11:12] == b"\0" for text in adobe),
        scan=segments[-1][2],
    )


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker and where its content begins and ends, up to the first scan's."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # a marker may be preceded by any number of these
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        yield data[at + 1], at + 4, end
        if data[at + 1] == SCAN:
            return
        at = end


def squash(pixels: Tensor, size: int) -> Tensor:
    """See preprocess.squash."""
    return _resized(pixels, size, size)


def crop(pixels: Tensor, size: int) -> Tensor:
    """See preprocess.crop, whose edges lie within pixels where the shape is odd: 62.5 to 437.5 of 500 x 375.

    Torch cuts only between pixels, so such a side is doubled first. Cut half a pixel beside, 500 x 375 with grain
    differed by 1.8 levels in the mean, not by 0.35.
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
    """See preprocess.pad; what is missing to the square is filled once the picture is upright."""
    _, height, width = pixels.shape
    longer = max(height, width)
    return _resized(pixels, round(height / longer * size), round(width / longer * size))


RESIZE_BY_NAME: dict[str, Callable[[Tensor, int], Tensor]] = dict(zip(RESIZES, (squash, crop, pad), strict=True))


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize in float, as CUDA has no other antialiasing; bicubic goes beyond 0..255 at edges."""
    floats = interpolate(pixels[None].float(), (height, width), mode="bicubic", antialias=True)[0]
    return floats.round_().clamp_(0, 255).to(torch.uint8)


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    if orientation not in UPRIGHT:
        return pixels
    swapped, flipped = SWAP_AND_FLIPS[UPRIGHT[orientation]]
    return (pixels.transpose(HEIGHT, WIDTH) if swapped else pixels).flip(flipped)


def _centred(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Copy the picture into the middle of a square of its own, as ImageOps.pad places it."""
    height, width, _ = pixels.shape
    top, left = round((size - height) * 0.5), round((size - width) * 0.5)
    square = np.full((size, size, 3), PAD_COLOUR, np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square
