"""Photos on a device to squares as photos/resize.py makes them: by kernels on a GPU, otherwise by torch."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL.Image import Transpose
from torch import Tensor
from torch.nn.functional import interpolate

from vggsearch.defaults import IMAGE, RESIZES
from vggsearch.model.torch_engine.square_plan import Ints, plan, shift_of
from vggsearch.photos.resize import PAD_COLOUR
from vggsearch.photos.upright import UPRIGHT

log = logging.getLogger(__name__)

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


class SquareMaker(Protocol):
    """Makes squares of photos."""

    def __call__(
        self,
        photos: Sequence[Tensor],
        orientations: Sequence[int],
        samplings: Sequence[int],
        squares: Tensor,
        slots: Sequence[int],
    ) -> object:
        """Write the squares of photos, uint8 (height, width, 3), which are stored in these EXIF orientations.

        `samplings` are those of JpegHeader for photos whose chroma is repeated, not interpolated; otherwise 0x11.
        `squares` is uint8 (slots, size, size, 3); the photo at a position is written to the slot at this position.
        The memory of the photos, and of what is returned, is needed until the work that is queued now is done.
        """


def square_maker(device: torch.device, size: int, resize: str) -> SquareMaker:
    """Return the fastest that works on this device. `resize` is one of RESIZES."""
    if device.type == "cuda":
        try:
            from vggsearch.model.torch_engine.triton_kernels import CANNOT_COMPILE
        except ImportError:  # there is no Triton for Windows
            return TorchSquares(size, resize)
        try:
            return TritonSquares(device, size, resize)
        except CANNOT_COMPILE as error:
            log.warning("Triton compiles no kernels here, so photos are resized more slowly: %s", error)
    return TorchSquares(size, resize)


class TritonSquares:
    """Resizes all photos at once, as the CPU decodes and resizes them (square_plan.py).

    Of the same pixels, fewer than 1 in 500 values differ from Pillow's, by one level.
    """

    def __init__(self, device: torch.device, size: int, resize: str) -> None:
        """Compile the kernels, or load them from Triton's cache. Raises CANNOT_COMPILE."""
        from vggsearch.model.torch_engine import chroma_kernels, square_kernels

        self._kernels, self._chroma_kernels = square_kernels, chroma_kernels
        self._size, self._resize = size, resize
        photo = torch.zeros(8 * size, 2 * size, 3, dtype=torch.uint8, device=device)
        squares = torch.empty(2, size, size, 3, dtype=torch.uint8, device=device)
        self([photo, photo[:size]], [1, 1], [0x11, 0x22], squares, [0, 1])

    def __call__(
        self,
        photos: Sequence[Tensor],
        orientations: Sequence[int],
        samplings: Sequence[int],
        squares: Tensor,
        slots: Sequence[int],
    ) -> object:
        """See SquareMaker."""
        sources = np.array([(photo.data_ptr(), *photo.shape, *photo.stride()) for photo in photos], np.int64)
        interpolated = self._interpolate_chroma(sources, np.array(samplings), squares.device)
        planned = plan(sources, orientations, slots, self._size, self._resize)
        scratch = torch.empty(planned.scratch_bytes, dtype=torch.uint8, device=squares.device)
        table = _uploaded(planned.table(scratch.data_ptr()), squares.device)
        self._kernels.run(table, squares, planned.most_reduced, planned.most_rows, PAD_COLOUR)
        return interpolated, scratch, table

    def _interpolate_chroma(self, sources: Ints, samplings: Ints, device: torch.device) -> object:
        """Let `sources` be photos with interpolated chroma where that makes a difference; return what they need.

        At reduced size, libjpeg has no chroma to interpolate.
        """
        is_repeated = (samplings == 0x22) | (samplings == 0x21)
        rows = np.flatnonzero(is_repeated & (shift_of(sources[:, 1], sources[:, 2], self._size) == 0))
        if len(rows) == 0:
            return None
        source, height, width, _, down, right, channel = sources[rows].T
        ends = np.cumsum(np.concatenate([height * width * 3, height * (width + 1)]))
        scratch = torch.empty(int(ends[-1]), dtype=torch.uint8, device=device)
        target, chroma = np.split(scratch.data_ptr() + np.concatenate([[0], ends[:-1]]), 2)
        shares_rows = (samplings[rows] == 0x22).astype(np.int64)
        columns = source, down, right, channel, height, width, shares_rows, chroma, target
        table = _uploaded(np.stack(columns, axis=1), device)
        self._chroma_kernels.run(table, int((height * width).max()))
        sources[rows, 0], sources[rows, 4], sources[rows, 5:] = target, 3 * width, (3, 1)
        return scratch, table


def _uploaded(table: Ints, device: torch.device) -> Tensor:
    """Return a copy on the device, which is queued there."""
    on_host = torch.from_numpy(table)
    return on_host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else on_host


class TorchSquares:
    """Resizes photos one by one with torch's antialiased bicubic filter, from full size.

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

    def __init__(self, size: int, resize: str) -> None:
        self._size, self._fit = size, RESIZE_BY_NAME[resize]

    def __call__(
        self,
        photos: Sequence[Tensor],
        orientations: Sequence[int],
        samplings: Sequence[int],  # noqa: ARG002 - chroma stays as it is
        squares: Tensor,
        slots: Sequence[int],
    ) -> object:
        """See SquareMaker."""
        for photo, orientation, slot in zip(photos, orientations, slots, strict=True):
            fitted = _upright(self._fit(photo.permute(2, 0, 1), self._size), orientation)
            _write_centred(fitted.permute(1, 2, 0), squares[slot])
        return None


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
    """See photos.resize.pad; `_write_centred` fills the rest of the square once the image is upright."""
    _, height, width = pixels.shape
    longer = max(height, width)
    return _resized(pixels, round(height / longer * size), round(width / longer * size))


RESIZE_BY_NAME: dict[str, Callable[[Tensor, int], Tensor]] = dict(zip(RESIZES, (squash, crop, pad), strict=True))


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize as float32, for which alone CUDA has antialiasing; bicubic overshoots 0..255 at edges."""
    if height == 0 or width == 0:
        return pixels[:, :height, :width]
    floats = interpolate(pixels[None].float(), (height, width), mode="bicubic", antialias=True)[0]
    return floats.round_().clamp_(0, 255).to(torch.uint8)


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    if orientation not in UPRIGHT:
        return pixels
    swapped, flipped = SWAP_AND_FLIPS[UPRIGHT[orientation]]
    return (pixels.transpose(HEIGHT, WIDTH) if swapped else pixels).flip(flipped)


def _write_centred(pixels: Tensor, square: Tensor) -> None:
    """Write pixels (height, width, 3) to the centre of a square, where ImageOps.pad places them."""
    size, (height, width, _) = len(square), pixels.shape
    top, left = round((size - height) * 0.5), round((size - width) * 0.5)
    if pixels.shape != square.shape:
        for channel, value in enumerate(PAD_COLOUR):
            square[..., channel] = value
    square[top : top + height, left : left + width] = pixels


def are_blank(squares: Tensor) -> Tensor:
    """Return resize.is_blank for each of the squares, uint8 (n, size, size, 3), without waiting for the device."""
    pixels = squares[:, ::2, ::2].flatten(1, 2).int()
    is_pad = torch.ones_like(pixels[..., 0], dtype=torch.bool)
    for channel, value in enumerate(PAD_COLOUR):
        is_pad &= pixels[..., channel] == value
    counts = (~(is_pad & is_pad[:, :1])).int()[..., None]
    number = counts.sum(dim=1)
    total, squared = (pixels * counts).sum(dim=1), (pixels * pixels * counts).sum(dim=1)
    deviates = (number * squared - total * total).double() >= IMAGE.blank_deviation**2 * number.double() ** 2
    return ~deviates.any(dim=1) | (number == 0).any(dim=1)
