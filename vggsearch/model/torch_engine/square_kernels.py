"""Photos of any sizes to squares, in Triton: Pillow's reduce and bicubic resize, for a batch in three launches.

Importing this module raises ImportError where torch has no Triton. square_plan.py says what the kernels are to do.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vggsearch.model.torch_engine.square_plan import FIELDS

COLUMNS = tl.constexpr(len(FIELDS))
(
    SOURCE, SOURCE_DOWN, SOURCE_RIGHT, SOURCE_CHANNEL, SOURCE_HEIGHT, SOURCE_WIDTH,
    SHIFT, STORED_HEIGHT, STORED_WIDTH, FLIPS_ROWS, FLIPS_COLUMNS, IS_TURNED,
    UPRIGHT_HEIGHT, UPRIGHT_WIDTH, REDUCED, REDUCED_HEIGHT, REDUCED_WIDTH, FACTOR_DOWN, FACTOR_RIGHT,
    VIEW, VIEW_DOWN, VIEW_RIGHT, VIEW_CHANNEL, VIEW_HEIGHT, VIEW_WIDTH,
    TOP, LEFT, DIVISOR_DOWN, DIVISOR_RIGHT, BOX_HEIGHT, BOX_WIDTH,
    MIDDLE, HEIGHT, WIDTH, OFFSET_DOWN, OFFSET_RIGHT, IS_TRANSPOSED, SLOT,
) = (tl.constexpr(number) for number in range(len(FIELDS)))  # fmt: skip

PIXELS = 256  # of a reduced photo in one program
ROWS, PLACES = 8, 64  # of a photo, and across its square, in one program
LINES, VALUES = 4, 256  # of a square in one program; each pixel has three values


def run(
    table: Tensor, squares: Tensor, most_reduced: int, most_rows: int, pad_colour: tuple[int, int, int]
) -> None:
    """Write the squares of photos, `squares` uint8 (slots, size, size, 3), as the rows of `table` say.

    `most_reduced` are the most pixels of a reduced photo, 0 without any, and `most_rows` the most rows of a view.
    """
    size, count = squares.shape[1], len(table)
    with torch.cuda.device_of(squares):  # type: ignore[no-untyped-call]
        if most_reduced:
            _reduce[(triton.cdiv(most_reduced, PIXELS), count)](table, PIXELS)
        across = triton.cdiv(size, PLACES)
        _resize_across[(triton.cdiv(most_rows, ROWS) * across, count)](table, size, ROWS, PLACES, across)
        chunks = triton.cdiv(size * 3, VALUES)
        grid = triton.cdiv(size, LINES) * chunks, count
        _resize_down[grid](table, squares, size, *pad_colour, LINES, VALUES, chunks)


@triton.jit  # type: ignore[untyped-decorator]
def _reduce(table: tl.tensor, pixels: tl.constexpr) -> None:
    """Average squares of the photo, as libjpeg does if it decodes at reduced size, and then rectangles of these.

    The averages are rounded and turned upright; those of rectangles are rounded again, as Pillow's reduce does.
    """
    row = table + tl.program_id(1) * COLUMNS
    factor_down = tl.load(row + FACTOR_DOWN).to(tl.int32)
    factor_right = tl.load(row + FACTOR_RIGHT).to(tl.int32)
    shift = tl.load(row + SHIFT).to(tl.int32)
    reduced_height = tl.load(row + REDUCED_HEIGHT).to(tl.int32)
    reduced_width = tl.load(row + REDUCED_WIDTH).to(tl.int32)
    first = tl.program_id(0) * pixels
    is_reduced = tl.load(row + REDUCED) != 0
    if is_reduced & (first < reduced_height * reduced_width):
        source = tl.load(row + SOURCE).to(tl.pointer_type(tl.uint8))
        down, right = tl.load(row + SOURCE_DOWN), tl.load(row + SOURCE_RIGHT)
        channel = tl.load(row + SOURCE_CHANNEL)
        last_row = tl.load(row + SOURCE_HEIGHT).to(tl.int32) - 1
        last_column = tl.load(row + SOURCE_WIDTH).to(tl.int32) - 1
        stored_height = tl.load(row + STORED_HEIGHT).to(tl.int32)
        stored_width = tl.load(row + STORED_WIDTH).to(tl.int32)
        flips_rows, flips_columns = tl.load(row + FLIPS_ROWS), tl.load(row + FLIPS_COLUMNS)
        is_turned = tl.load(row + IS_TURNED)
        height = tl.load(row + UPRIGHT_HEIGHT).to(tl.int32)
        width = tl.load(row + UPRIGHT_WIDTH).to(tl.int32)
        place = first + tl.arange(0, pixels)
        is_pixel = place < reduced_height * reduced_width
        top, left = place // reduced_width * factor_down, place % reduced_width * factor_right
        red, green, blue, count = top * 0, top * 0, top * 0, top * 0
        area = (shift * 0 + 1) << (2 * shift)
        for block in range(factor_down * factor_right):
            y, x = top + block // factor_right, left + block % factor_right
            is_inside = is_pixel & (y < height) & (x < width)
            stored_y = tl.where(is_turned != 0, x, y)
            stored_x = tl.where(is_turned != 0, y, x)
            stored_y = tl.where(flips_rows != 0, stored_height - 1 - stored_y, stored_y) << shift
            stored_x = tl.where(flips_columns != 0, stored_width - 1 - stored_x, stored_x) << shift
            r, g, b = top * 0, top * 0, top * 0
            for step in range(area):
                source_y = tl.minimum(stored_y + (step >> shift), last_row)
                source_x = tl.minimum(stored_x + (step - (step >> shift << shift)), last_column)
                pixel = source + source_y * down + source_x * right
                r += tl.load(pixel, mask=is_inside, other=0).to(tl.int32)
                g += tl.load(pixel + channel, mask=is_inside, other=0).to(tl.int32)
                b += tl.load(pixel + 2 * channel, mask=is_inside, other=0).to(tl.int32)
            red += (r + area // 2) >> (2 * shift)
            green += (g + area // 2) >> (2 * shift)
            blue += (b + area // 2) >> (2 * shift)
            count += is_inside.to(tl.int32)
        part = (1 << 24) // tl.maximum(count, 1)  # truncated, as in Pillow
        reduced = tl.load(row + REDUCED).to(tl.pointer_type(tl.uint8)) + place * 3
        tl.store(reduced, _average(red, count, part), mask=is_pixel)
        tl.store(reduced + 1, _average(green, count, part), mask=is_pixel)
        tl.store(reduced + 2, _average(blue, count, part), mask=is_pixel)


@triton.jit  # type: ignore[untyped-decorator]
def _average(total: tl.tensor, count: tl.tensor, part: tl.tensor) -> tl.tensor:
    return ((total + count // 2).to(tl.int64) * part >> 24).to(tl.uint8)


@triton.jit  # type: ignore[untyped-decorator]
def _cubic(x: tl.tensor) -> tl.tensor:
    """Keys' cubic convolution kernel with a = -0.5, as Pillow's bicubic filter."""
    x = tl.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))


@triton.jit  # type: ignore[untyped-decorator]
def _rounded(value: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(tl.floor(value + 0.5), 0.0), 255.0).to(tl.uint8)


@triton.jit  # type: ignore[untyped-decorator]
def _resize_across(table: tl.tensor, size: int, lines: tl.constexpr, places: tl.constexpr, across: int) -> None:
    """Resize the rows of the view to the width within the square, rounded, as Pillow's first pass does."""
    row = table + tl.program_id(1) * COLUMNS
    view_height = tl.load(row + VIEW_HEIGHT).to(tl.int32)
    view_width = tl.load(row + VIEW_WIDTH).to(tl.int32)
    new_width = tl.load(row + WIDTH).to(tl.int32)
    first = tl.program_id(0) // across * lines
    if first < view_height:
        view = tl.load(row + VIEW).to(tl.pointer_type(tl.uint8))
        down, right, channel = tl.load(row + VIEW_DOWN), tl.load(row + VIEW_RIGHT), tl.load(row + VIEW_CHANNEL)
        divisor = 2.0 * tl.load(row + DIVISOR_RIGHT).to(tl.float32)
        scale = tl.load(row + BOX_WIDTH).to(tl.float32) / (divisor * tl.maximum(new_width, 1).to(tl.float32))
        stretch = tl.maximum(scale, 1.0)
        column = tl.program_id(0) % across * places + tl.arange(0, places)
        centre = tl.load(row + LEFT).to(tl.float32) / divisor + (column.to(tl.float32) + 0.5) * scale
        begin = tl.maximum((centre - 2.0 * stretch + 0.5).to(tl.int32), 0)
        end = tl.minimum((centre + 2.0 * stretch + 0.5).to(tl.int32), view_width)
        y = first + tl.arange(0, lines)
        rows = view + y[:, None] * down
        is_pixel = (y < view_height)[:, None] & (column < new_width)[None, :]
        red = tl.full((lines, places), 0.0, tl.float32)
        green, blue = red, red
        total = tl.full((places,), 0.0, tl.float32)
        for tap in range((4.0 * stretch).to(tl.int32) + 2):
            x = begin + tap
            weight = tl.where(x < end, _cubic((x.to(tl.float32) - centre + 0.5) / stretch), 0.0)
            total += weight
            pixel = rows + (x * right)[None, :]
            is_tap = is_pixel & (x < end)[None, :]
            red += weight[None, :] * tl.load(pixel, mask=is_tap, other=0).to(tl.float32)
            green += weight[None, :] * tl.load(pixel + channel, mask=is_tap, other=0).to(tl.float32)
            blue += weight[None, :] * tl.load(pixel + 2 * channel, mask=is_tap, other=0).to(tl.float32)
        total = tl.where(total == 0.0, 1.0, total)[None, :]
        middle = tl.load(row + MIDDLE).to(tl.pointer_type(tl.uint8)) + (y[:, None] * size + column[None, :]) * 3
        tl.store(middle, _rounded(red / total), mask=is_pixel)
        tl.store(middle + 1, _rounded(green / total), mask=is_pixel)
        tl.store(middle + 2, _rounded(blue / total), mask=is_pixel)


@triton.jit  # type: ignore[untyped-decorator]
def _resize_down(
    table: tl.tensor,
    squares: tl.tensor,
    size: int,
    pad_red: int,
    pad_green: int,
    pad_blue: int,
    lines: tl.constexpr,
    values: tl.constexpr,
    chunks: int,
) -> None:
    """Resize the columns, as Pillow's second pass does, and write a part of the square with what pads it."""
    row = table + tl.program_id(1) * COLUMNS
    view_height = tl.load(row + VIEW_HEIGHT).to(tl.int32)
    new_height, new_width = tl.load(row + HEIGHT).to(tl.int32), tl.load(row + WIDTH).to(tl.int32)
    divisor = 2.0 * tl.load(row + DIVISOR_DOWN).to(tl.float32)
    scale = tl.load(row + BOX_HEIGHT).to(tl.float32) / (divisor * tl.maximum(new_height, 1).to(tl.float32))
    stretch = tl.maximum(scale, 1.0)
    line = tl.program_id(0) // chunks * lines + tl.arange(0, lines)
    y = line - tl.load(row + OFFSET_DOWN).to(tl.int32)
    centre = tl.load(row + TOP).to(tl.float32) / divisor + (y.to(tl.float32) + 0.5) * scale
    begin = tl.maximum((centre - 2.0 * stretch + 0.5).to(tl.int32), 0)
    end = tl.minimum((centre + 2.0 * stretch + 0.5).to(tl.int32), view_height)
    value = tl.program_id(0) % chunks * values + tl.arange(0, values)  # of a line, three for each pixel
    column = value // 3 - tl.load(row + OFFSET_RIGHT).to(tl.int32)
    is_pixel = ((y >= 0) & (y < new_height))[:, None] & ((column >= 0) & (column < new_width))[None, :]
    middle = tl.load(row + MIDDLE).to(tl.pointer_type(tl.uint8)) + (column * 3 + value % 3)[None, :]
    pixels = tl.full((lines, values), 0.0, tl.float32)
    total = tl.full((lines,), 0.0, tl.float32)
    for tap in range((4.0 * stretch).to(tl.int32) + 2):
        at = begin + tap
        weight = tl.where(at < end, _cubic((at.to(tl.float32) - centre + 0.5) / stretch), 0.0)
        total += weight
        tapped = tl.load(middle + at[:, None] * size * 3, mask=is_pixel & (at < end)[:, None], other=0)
        pixels += weight[:, None] * tapped.to(tl.float32)
    total = tl.where(total == 0.0, 1.0, total)[:, None]
    colour = tl.where(value % 3 == 0, pad_red, tl.where(value % 3 == 1, pad_green, pad_blue)).to(tl.uint8)[None, :]
    is_transposed = tl.load(row + IS_TRANSPOSED)
    down, right = tl.where(is_transposed != 0, 3, size * 3), tl.where(is_transposed != 0, size * 3, 3)
    square = squares + tl.load(row + SLOT) * size * size * 3
    place = line[:, None] * down + (value // 3 * right + value % 3)[None, :]
    is_inside = (line < size)[:, None] & (value < size * 3)[None, :]
    tl.store(square + place, tl.where(is_pixel, _rounded(pixels / total), colour), mask=is_inside)
