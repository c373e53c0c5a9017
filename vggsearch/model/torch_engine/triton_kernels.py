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
FP8 = torch.float8_e4m3fn
LARGEST_FP8 = tl.constexpr(448.0)
FP8_BLOCK = (128, 256, 128)  # pixels and outputs of one program, and channels of one step


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


def max_pool(maps: Tensor, dtype: torch.dtype | None = None, factor: float = 1.0) -> Tensor:
    """Return the maximum of each 2 x 2 square of channels-last maps; an odd last row or column is dropped.

    `dtype` is that of the result if it is not that of the maps; with fp8, the maxima are multiplied by `factor`
    and clipped.
    """
    n, channels, height, width = maps.shape
    result = _maps(maps, (n, channels, height // 2, width // 2), dtype)
    row = width // 2 * channels
    with torch.cuda.device_of(result):  # type: ignore[no-untyped-call]
        _max_pool[(n * (height // 2), triton.cdiv(row, VALUES))](
            maps, result, height, width, channels, row, factor, VALUES
        )
    return result


def convolve_fp8(maps: Tensor, weight: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """Return ReLU(convolution * factor + bias), clipped: all of fp8 but `factor` and `bias`, float32 per channel.

    `maps` (n, channels, height, width) are channels-last, `weight` is (outputs, 3, 3, channels) and contiguous.
    Channels are a multiple of 128, outputs of 256.
    """
    n, channels, height, width = maps.shape
    outputs = len(weight)
    result = _maps(maps, (n, outputs, height, width))
    count = n * height * width
    with torch.cuda.device_of(result):  # type: ignore[no-untyped-call]
        _convolve_fp8[(triton.cdiv(count, FP8_BLOCK[0]) * (outputs // FP8_BLOCK[1]),)](
            maps, weight, factor, bias, result, count, height, width, channels, outputs, *FP8_BLOCK,
            num_warps=8, num_stages=3,
        )  # fmt: skip
    return result


def compile_for(device: torch.device, dtype: torch.dtype) -> None:
    """Compile the kernels, or load them from Triton's cache. Raises CANNOT_COMPILE."""
    channels = 64
    weight = torch.zeros(channels, 3, 3, 3, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8, device=device)
    mean, bias = torch.zeros(3, device=device), torch.zeros(channels, dtype=dtype, device=device)
    max_pool(first_layer(images, mean, mean, weight, bias))


def compile_fp8(device: torch.device) -> None:
    """Compile the kernels for fp8 as `compile_for` does. Raises CANNOT_COMPILE."""
    channels = FP8_BLOCK[1]
    weight = torch.zeros(channels, 3, 3, channels, device=device).to(FP8)
    factor = torch.zeros(channels, device=device)
    maps = torch.zeros(1, channels, 4, 4, dtype=torch.float16, device=device)
    quantised = max_pool(maps.to(memory_format=torch.channels_last), FP8)
    max_pool(convolve_fp8(quantised, weight, factor, factor))


def _maps(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


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


@triton.jit(do_not_specialize=["count", "height", "width"])  # type: ignore[untyped-decorator]
def _convolve_fp8(
    maps: tl.tensor,
    weight: tl.tensor,
    factor: tl.tensor,
    bias: tl.tensor,
    result: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    outputs: tl.tensor,
    pixels_per_block: tl.constexpr,
    outputs_per_block: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Multiply (pixels, 9 neighbours x channels) by (9 x channels, outputs), `depth` channels at a time."""
    blocks = outputs // outputs_per_block
    pixel = tl.program_id(0) // blocks * pixels_per_block + tl.arange(0, pixels_per_block)
    output = tl.program_id(0) % blocks * outputs_per_block + tl.arange(0, outputs_per_block)
    channel = tl.arange(0, depth)
    row = pixel // width % height
    column = pixel % width
    per_neighbour = channels // depth
    total = tl.zeros((pixels_per_block, outputs_per_block), tl.float32)
    for step in range(9 * per_neighbour):
        neighbour = step // per_neighbour
        down, right = neighbour // 3 - 1, neighbour % 3 - 1
        is_there = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        is_there &= pixel < count
        place = (pixel + down * width + right)[:, None] * channels + step % per_neighbour * depth + channel
        values = tl.load(maps + place, mask=is_there[:, None], other=0.0)
        weights = tl.load(weight + output * (9 * channels) + step * depth + channel[:, None])
        total = tl.dot(values, weights, total)
    scaled = total * tl.load(factor + output) + tl.load(bias + output)
    clipped = tl.minimum(tl.maximum(scaled, 0.0), LARGEST_FP8).to(result.dtype.element_ty)
    tl.store(result + pixel[:, None] * outputs + output, clipped, mask=(pixel < count)[:, None])


@triton.jit(do_not_specialize=["height", "width", "factor"])  # type: ignore[untyped-decorator]
def _max_pool(
    maps: tl.tensor,
    result: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    row: tl.tensor,
    factor: tl.tensor,
    block: tl.constexpr,
) -> None:
    """One program makes `block` values of a row of the result; `row` is the number of values of one."""
    image, line = tl.program_id(0) // (height // 2), tl.program_id(0) % (height // 2)
    value = tl.program_id(1) * block + tl.arange(0, block)
    is_there = value < row
    below = width * channels
    corner = maps + (image.to(tl.int64) * height + 2 * line) * below + value // channels * channels + value
    upper = _larger(_number(corner, is_there), _number(corner + channels, is_there))
    lower = _larger(_number(corner + below, is_there), _number(corner + below + channels, is_there))
    most = _larger(upper, lower)
    if result.dtype.element_ty == tl.float8e4nv:
        most = tl.minimum(most.to(tl.float32) * factor, LARGEST_FP8)
    tl.store(result + tl.program_id(0).to(tl.int64) * row + value, most.to(result.dtype.element_ty), is_there)


@triton.jit  # type: ignore[untyped-decorator]
def _number(address: tl.tensor, is_there: tl.tensor) -> tl.tensor:
    """Load numbers; those in fp8 as float16, which holds them all, since fp8 has no maximum."""
    number = tl.load(address, is_there)
    if number.dtype == tl.float8e4nv:
        number = number.to(tl.float16)
    return number


@triton.jit  # type: ignore[untyped-decorator]
def _larger(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)  # as torch's pooling does
