"""Interpolate chroma that a decoder has repeated, in Triton: what libjpeg calls fancy upsampling, in two launches.

Importing this module raises ImportError where torch has no Triton.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# The columns of the table of `run`: the decoded pixels, whether two rows share chroma, too, and where to write.
COLUMNS = tl.constexpr(9)
SOURCE, DOWN, RIGHT, CHANNEL, HEIGHT, WIDTH, SHARED_ROWS, CHROMA, TARGET = (
    tl.constexpr(number) for number in range(9)
)

PIXELS = 256  # in one program


def run(table: Tensor, most_pixels: int) -> None:
    """Write photos with interpolated chroma, as the rows of `table` say. `most_pixels` are those of the largest.

    SOURCE is the address of pixels whose strides are DOWN, RIGHT and CHANNEL; SHARED_ROWS is 1 for 4:2:0 and 0 for
    4:2:2; TARGET is the address of uint8 (HEIGHT, WIDTH, 3), CHROMA that of HEIGHT * (WIDTH + 1) bytes.
    """
    with torch.cuda.device_of(table):  # type: ignore[no-untyped-call]
        grid = triton.cdiv(most_pixels, PIXELS), len(table)
        _separate_chroma[grid](table, PIXELS)
        _interpolate[grid](table, PIXELS)


@triton.jit  # type: ignore[untyped-decorator]
def _separate_chroma(table: tl.tensor, pixels: tl.constexpr) -> None:
    """Write Cb and Cr of each 2 x 2 or 1 x 2 pixels that share them.

    They follow from the mean of these pixels, without those that a colour of 0 or 255 may have been clipped to.
    """
    row = table + tl.program_id(1) * COLUMNS
    height, width = tl.load(row + HEIGHT).to(tl.int32), tl.load(row + WIDTH).to(tl.int32)
    shared = tl.load(row + SHARED_ROWS).to(tl.int32)
    columns, rows = (width + 1) // 2, (height + shared) >> shared
    if tl.program_id(0) * pixels < rows * columns:
        source = tl.load(row + SOURCE).to(tl.pointer_type(tl.uint8))
        down, right, channel = tl.load(row + DOWN), tl.load(row + RIGHT), tl.load(row + CHANNEL)
        place = tl.program_id(0) * pixels + tl.arange(0, pixels)
        is_place = place < rows * columns
        top, left = place // columns << shared, place % columns * 2
        red = tl.full((pixels,), 0.0, tl.float32)
        green, blue, total = red, red, red
        for step in range(2 + 2 * shared):
            y, x = tl.minimum(top + step // 2, height - 1), tl.minimum(left + step % 2, width - 1)
            pixel = source + y * down + x * right
            r = tl.load(pixel, mask=is_place, other=0).to(tl.float32)
            g = tl.load(pixel + channel, mask=is_place, other=0).to(tl.float32)
            b = tl.load(pixel + 2 * channel, mask=is_place, other=0).to(tl.float32)
            least, most = tl.minimum(tl.minimum(r, g), b), tl.maximum(tl.maximum(r, g), b)
            weight = tl.where((least > 0.0) & (most < 255.0), 1.0, 0.001)
            red += weight * r
            green += weight * g
            blue += weight * b
            total += weight
        cb = (-0.168735892 * red - 0.331264108 * green + 0.5 * blue) / total
        cr = (0.5 * red - 0.418687589 * green - 0.081312411 * blue) / total
        chroma = tl.load(row + CHROMA).to(tl.pointer_type(tl.uint8)) + place * 2
        tl.store(chroma, _rounded(cb + 128.0), mask=is_place)
        tl.store(chroma + 1, _rounded(cr + 128.0), mask=is_place)


@triton.jit  # type: ignore[untyped-decorator]
def _interpolate(table: tl.tensor, pixels: tl.constexpr) -> None:
    """Write each pixel with its colours moved by as much as interpolation moves its chroma."""
    row = table + tl.program_id(1) * COLUMNS
    height, width = tl.load(row + HEIGHT).to(tl.int32), tl.load(row + WIDTH).to(tl.int32)
    if tl.program_id(0) * pixels < height * width:
        shared = tl.load(row + SHARED_ROWS).to(tl.int32)
        place = tl.program_id(0) * pixels + tl.arange(0, pixels)
        is_pixel = place < height * width
        y, x = place // width, place % width
        columns, rows = (width + 1) // 2, (height + shared) >> shared
        at_y, at_x = y >> shared, x // 2
        # The other row and column that are nearest, which count a third as much.
        near_y = tl.minimum(tl.maximum(at_y + shared * (y % 2 * 2 - 1), 0), rows - 1)
        near_x = tl.minimum(tl.maximum(at_x + (x % 2 * 2 - 1), 0), columns - 1)
        chroma = tl.load(row + CHROMA).to(tl.pointer_type(tl.uint8))
        here, below = chroma + (at_y * columns + at_x) * 2, chroma + (near_y * columns + at_x) * 2
        beside, across = chroma + (at_y * columns + near_x) * 2, chroma + (near_y * columns + near_x) * 2
        half = 8 - x % 2  # as in libjpeg, which rounds halves up and down in turn
        cb = _moved(here, below, beside, across, is_pixel, half, shared)
        cr = _moved(here + 1, below + 1, beside + 1, across + 1, is_pixel, half, shared)
        down, right, channel = tl.load(row + DOWN), tl.load(row + RIGHT), tl.load(row + CHANNEL)
        source = tl.load(row + SOURCE).to(tl.pointer_type(tl.uint8)) + y * down + x * right
        red = tl.load(source, mask=is_pixel, other=0).to(tl.float32)
        green = tl.load(source + channel, mask=is_pixel, other=0).to(tl.float32)
        blue = tl.load(source + 2 * channel, mask=is_pixel, other=0).to(tl.float32)
        target = tl.load(row + TARGET).to(tl.pointer_type(tl.uint8)) + place * 3
        tl.store(target, _rounded(red + 1.402 * cr), mask=is_pixel)
        tl.store(target + 1, _rounded(green - 0.344136286 * cb - 0.714136286 * cr), mask=is_pixel)
        tl.store(target + 2, _rounded(blue + 1.772 * cb), mask=is_pixel)


@triton.jit  # type: ignore[untyped-decorator]
def _moved(
    here: tl.tensor,
    below: tl.tensor,
    beside: tl.tensor,
    across: tl.tensor,
    mask: tl.tensor,
    half: tl.tensor,
    shared: tl.tensor,
) -> tl.tensor:
    """Return by how much the interpolated value differs from the one `here`."""
    value = tl.load(here, mask=mask, other=0).to(tl.int32)
    by = 3 * value + tl.load(below, mask=mask, other=0).to(tl.int32)
    to = 3 * tl.load(beside, mask=mask, other=0).to(tl.int32) + tl.load(across, mask=mask, other=0).to(tl.int32)
    of_two = 3 * value + tl.load(beside, mask=mask, other=0).to(tl.int32) + 9 - half
    return (tl.where(shared != 0, (3 * by + to + half) >> 4, of_two >> 2) - value).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _rounded(value: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(tl.floor(value + 0.5), 0.0), 255.0).to(tl.uint8)
