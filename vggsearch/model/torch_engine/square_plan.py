"""What the kernels of square_kernels.py are to do with each photo of a batch, as one array.

The CPU decodes a JPEG at reduced size (decode.decode), turns it upright and resizes it (photos/resize.py): `squash`
averages rectangles first (Pillow's reduce), `crop` and `pad` do not. The plan follows these steps, which all round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray

from vggsearch.defaults import IMAGE, RESIZES

Ints = NDArray[np.int64]

# One row per photo. Addresses and strides are in bytes.
FIELDS = (
    # The pixels as decoded.
    "source",
    "source_down",
    "source_right",
    "source_channel",
    "source_height",
    "source_width",
    # Averages of 2 ** shift x 2 ** shift of them, and how these are turned upright.
    "shift",
    "stored_height",
    "stored_width",
    "flips_rows",
    "flips_columns",
    "is_turned",
    "upright_height",
    "upright_width",
    # Averages of rectangles of these, and where to write them, 0 if there is nothing to average.
    "reduced",
    "reduced_height",
    "reduced_width",
    "factor_down",
    "factor_right",
    # What is resized: upright, but transposed where Pillow resizes the columns first.
    "view",
    "view_down",
    "view_right",
    "view_channel",
    "view_height",
    "view_width",
    # The box that is resized, in half pixels before the division; where to write it once it is as wide as in the
    # square; its size and place there, and which square.
    "top",
    "left",
    "divisor_down",
    "divisor_right",
    "box_height",
    "box_width",
    "middle",
    "height",
    "width",
    "offset_down",
    "offset_right",
    "is_transposed",
    "slot",
)

RESIZES_COLUMNS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
TRANSPOSED = (
    ("view_height", "view_width"),
    ("view_down", "view_right"),
    ("divisor_down", "divisor_right"),
    ("top", "left"),
    ("box_height", "box_width"),
    ("height", "width"),
    ("offset_down", "offset_right"),
)


@dataclass(frozen=True)
class Plan:
    """`columns` has one array for each of FIELDS; "reduced", "view" of these photos, and "middle" are offsets.

    `scratch_bytes` is the size of the memory that they are offsets into.
    """

    columns: dict[str, Ints]
    scratch_bytes: int

    @property
    def is_reduced(self) -> NDArray[np.bool_]:
        """Which photos are averaged before they are resized."""
        return _is_reduced(self.columns)

    @property
    def most_reduced(self) -> int:
        """The most pixels of a photo that is averaged, 0 without any."""
        pixels = self.columns["reduced_height"] * self.columns["reduced_width"]
        return int(pixels[self.is_reduced].max(initial=0))

    @property
    def most_rows(self) -> int:
        """The most rows of what is resized."""
        return int(self.columns["view_height"].max())

    def table(self, scratch: int) -> Ints:
        """Return int64 (photos, fields) for scratch memory at this address."""
        columns, is_reduced = dict(self.columns), self.is_reduced
        columns["reduced"] = np.where(is_reduced, columns["reduced"] + scratch, 0)
        columns["view"] = np.where(is_reduced, columns["reduced"], columns["view"])
        columns["middle"] = columns["middle"] + scratch
        return np.stack([columns[name] for name in FIELDS], axis=1)


def plan(sources: Ints, orientations: Sequence[int], slots: Sequence[int], size: int, resize: str) -> Plan:
    """Return the plan for photos: each a row of its address, height, width, 3, and the strides of these dimensions.

    `orientations` are those of EXIF, `slots` the numbers of the squares, `resize` is one of RESIZES.
    """
    source, height, width, _, down, right, channel = sources.T
    orientation = np.array(orientations, np.int64)
    columns = {
        "source": source,
        "source_down": down,
        "source_right": right,
        "source_channel": channel,
        "source_height": height,
        "source_width": width,
        "slot": np.array(slots, np.int64),
        "is_turned": orientation >= 5,
        "flips_rows": np.isin(orientation, (3, 4, 6, 7)),
        "flips_columns": np.isin(orientation, (2, 3, 7, 8)),
    }
    columns = {name: column.astype(np.int64) for name, column in columns.items()}
    _decode(columns, size)
    RESIZE_BY_NAME[resize](columns, size)
    _view(columns)
    _transpose(columns)
    return Plan(columns, _allocate(columns, size))


def shift_of(height: Ints, width: Ints, size: int) -> Ints:
    """Return how often the CPU's decoder halves images of these sizes for a square; see JpegImageFile.draft."""
    wanted = round(size * IMAGE.reducing_gap)
    scale = np.minimum(height // wanted, width // wanted)
    halvings: Ints = (scale >= 2).astype(np.int64) + (scale >= 4) + (scale >= 8)
    return halvings


def _decode(columns: dict[str, Ints], size: int) -> None:
    """Add what decoding at reduced size leaves."""
    height, width = columns["source_height"], columns["source_width"]
    shift = columns["shift"] = shift_of(height, width, size)
    stored = -(-height >> shift), -(-width >> shift)
    columns["stored_height"], columns["stored_width"] = stored
    is_turned = columns["is_turned"] == 1
    columns["upright_height"] = np.where(is_turned, stored[1], stored[0])
    columns["upright_width"] = np.where(is_turned, stored[0], stored[1])


def _squash(columns: dict[str, Ints], size: int) -> None:
    for side, direction in (("height", "down"), ("width", "right")):
        length = columns[f"upright_{side}"]
        columns[f"factor_{direction}"] = np.maximum((length / size / IMAGE.reducing_gap).astype(np.int64), 1)
        columns[f"box_{side}"] = 2 * length
        columns[side] = np.full_like(length, size)
    for name in ("top", "left", "offset_down", "offset_right"):
        columns[name] = np.zeros_like(columns["source"])


def _crop(columns: dict[str, Ints], size: int) -> None:
    _squash(columns, size)
    height, width = columns["upright_height"], columns["upright_width"]
    shorter = np.minimum(height, width)
    columns["top"], columns["left"] = height - shorter, width - shorter
    columns["box_height"] = columns["box_width"] = 2 * shorter
    columns["factor_down"] = columns["factor_right"] = np.ones_like(height)


def _pad(columns: dict[str, Ints], size: int) -> None:
    _squash(columns, size)
    height, width = columns["upright_height"], columns["upright_width"]
    columns["factor_down"] = columns["factor_right"] = np.ones_like(height)
    columns["height"] = np.where(height < width, np.rint(height / width * size).astype(np.int64), size)
    columns["width"] = np.where(width < height, np.rint(width / height * size).astype(np.int64), size)
    columns["offset_down"] = np.rint((size - columns["height"]) * 0.5).astype(np.int64)
    columns["offset_right"] = np.rint((size - columns["width"]) * 0.5).astype(np.int64)


RESIZE_BY_NAME: dict[str, Callable[[dict[str, Ints], int], None]] = dict(
    zip(RESIZES, (_squash, _crop, _pad), strict=True)
)


def _is_reduced(columns: dict[str, Ints]) -> NDArray[np.bool_]:
    return (columns["shift"] > 0) | (columns["factor_down"] > 1) | (columns["factor_right"] > 1)


def _view(columns: dict[str, Ints]) -> None:
    """Add what is resized: averages in scratch memory, or the source, turned upright by its strides."""
    for side, direction in (("height", "down"), ("width", "right")):
        columns[f"divisor_{direction}"] = columns[f"factor_{direction}"]
        columns[f"reduced_{side}"] = -(-columns[f"upright_{side}"] // columns[f"factor_{direction}"])
        columns[f"view_{side}"] = columns[f"reduced_{side}"]
    is_reduced = _is_reduced(columns)
    down, right = columns["source_down"], columns["source_right"]
    flips_rows, flips_columns = columns["flips_rows"], columns["flips_columns"]
    first = (
        flips_rows * (columns["source_height"] - 1) * down + flips_columns * (columns["source_width"] - 1) * right
    )
    down, right = np.where(flips_rows, -down, down), np.where(flips_columns, -right, right)
    is_turned = columns["is_turned"] == 1
    columns["view"] = columns["source"] + first
    columns["view_down"] = np.where(is_reduced, 3 * columns["view_width"], np.where(is_turned, right, down))
    columns["view_right"] = np.where(is_reduced, 3, np.where(is_turned, down, right))
    columns["view_channel"] = np.where(is_reduced, 1, columns["source_channel"])


def _transpose(columns: dict[str, Ints]) -> None:
    """Exchange rows and columns of the views that Pillow reduces far more in height than in width.

    It resizes their columns first, from version 13 on, and each of the two passes rounds.
    """
    down = columns["view_height"] - columns["height"]
    right = columns["view_width"] - columns["width"]
    is_transposed = (down > 0) & (down > 2 * right) & RESIZES_COLUMNS_FIRST
    columns["is_transposed"] = is_transposed.astype(np.int64)
    for vertical, horizontal in TRANSPOSED:
        first, second = columns[vertical], columns[horizontal]
        columns[vertical] = np.where(is_transposed, second, first)
        columns[horizontal] = np.where(is_transposed, first, second)


def _allocate(columns: dict[str, Ints], size: int) -> int:
    """Add the offsets of what is written to scratch memory; return their end."""
    is_reduced = _is_reduced(columns)
    reduced = np.where(is_reduced, columns["view_height"] * columns["view_width"] * 3, 0)
    ends = np.cumsum(np.concatenate([reduced, columns["view_height"] * size * 3]))
    begins = np.concatenate([[0], ends[:-1]])
    columns["reduced"], columns["middle"] = np.split(begins, 2)
    return int(ends[-1])
