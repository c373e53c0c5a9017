"""The parts of the network that torch runs below the speed of a GPU's memory, in Triton.

Importing this module raises ImportError where torch has no Triton.
"""

from subprocess import SubprocessError

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

# What a first launch raises where kernels cannot be compiled: no C compiler, no headers of Python, no cache folder.
CANNOT_COMPILE = (TritonError, SubprocessError, OSError, RuntimeError, ImportError)
TAPS = 27  # weights of one output channel of the first convolution, 3 x 3 x 3
PADDED_TAPS = 32  # of a matrix product on tensor cores, a multiple of 16
PIXELS = 128  # of one program of the first convolution
VALUES = 1024  # of one program of the pooling


def first_layer(images: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ReLU(convolution) of normalised images: (n, channels, height, width), channels-last, as `weight`.

    `images` (n, 3, height, width) are in 0..255, uint8 or float32; `mean` and `scale` (3 values each, float32)
    normalise them to (images - mean) * scale. `weight` is (channels, 3, 3, 3), channels-last; the border is padded
    with zeros after normalisation. This takes a third of the time of normalising in torch and convolving in cuDNN,
    which first pads the three channels, since tensor cores take eight.
    """
    n, _, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).contiguous()
    result = _maps(weight, (n, len(weight), height, width))
    count = n * height * width
    with torch.cuda.device_of(result):  # type: ignore[no-untyped-call]
        _first_layer[(triton.cdiv(count, PIXELS),)](
            pixels, mean, scale, weight, bias, result, count, height, width, len(weight), TAPS, PADDED_TAPS, PIXELS
        )
    return result


def max_pool(maps: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 square of channels-last maps; an odd last row or column is dropped."""
    n, channels, height, width = maps.shape
    result = _maps(maps, (n, channels, height // 2, width // 2))
    row = width // 2 * channels
    with torch.cuda.device_of(result):  # type: ignore[no-untyped-call]
        _max_pool[(n * (height // 2), triton.cdiv(row, VALUES))](maps, result, height, width, channels, row, VALUES)
    return result


def compile_for(device: torch.device, dtype: torch.dtype) -> None:
    """Compile the kernels, or load them from Triton's cache. Raises CANNOT_COMPILE."""
    channels = 64
    weight = torch.zeros(channels, 3, 3, 3, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8, device=device)
    mean, bias = torch.zeros(3, device=device), torch.zeros(channels, dtype=dtype, device=device)
    max_pool(first_layer(images, mean, mean, weight, bias))


def _maps(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


# Without specialisation for sizes, such as multiples of 16, one compilation serves all of them.
@triton.jit(do_not_specialize=["count", "height", "width"])  # type: ignore[untyped-decorator]
def _first_layer(
    pixels: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    result: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.constexpr,
    taps: tl.constexpr,
    padded_taps: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Multiply (pixels, taps) by (taps, channels), where a tap is one colour of one of nine neighbours."""
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    row = pixel // width % height
    column = pixel % width
    tap = tl.arange(0, padded_taps)
    down, right, colour = tap // 9 - 1, tap // 3 % 3 - 1, tap % 3
    is_there = (row[:, None] + down >= 0) & (row[:, None] + down < height)
    is_there &= (column[:, None] + right >= 0) & (column[:, None] + right < width)
    is_there &= (pixel < count)[:, None] & (tap < taps)
    neighbour = (pixel[:, None] + down * width + right) * 3 + colour
    value = tl.load(pixels + neighbour, mask=is_there, other=0).to(tl.float32)
    value = (value - tl.load(mean + colour)) * tl.load(scale + colour)
    value = tl.where(is_there, value, 0.0).to(result.dtype.element_ty)
    channel = tl.arange(0, channels)
    weights = tl.load(weight + channel * taps + tap[:, None], mask=(tap < taps)[:, None], other=0)
    maps = tl.dot(value, weights) + tl.load(bias + channel).to(tl.float32)
    target = result + pixel[:, None] * channels + channel
    tl.store(target, tl.maximum(maps, 0.0).to(result.dtype.element_ty), mask=(pixel < count)[:, None])


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def _max_pool(
    maps: tl.tensor,
    result: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    row: tl.tensor,
    block: tl.constexpr,
) -> None:
    """One program makes `block` values of a row of the result; `row` is the number of values of one."""
    image, line = tl.program_id(0) // (height // 2), tl.program_id(0) % (height // 2)
    value = tl.program_id(1) * block + tl.arange(0, block)
    is_there = value < row
    below = width * channels
    corner = maps + (image.to(tl.int64) * height + 2 * line) * below + value // channels * channels + value
    upper = _larger(tl.load(corner, is_there), tl.load(corner + channels, is_there))
    lower = _larger(tl.load(corner + below, is_there), tl.load(corner + below + channels, is_there))
    tl.store(result + tl.program_id(0).to(tl.int64) * row + value, _larger(upper, lower), is_there)


@triton.jit  # type: ignore[untyped-decorator]
def _larger(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)  # as torch's pooling does
