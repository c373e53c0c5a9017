"""The photos of an index as they are published: what filters ask for, and the vectors that queries compare."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.query.filters import folded
from vggsearch.query.snapshot import Snapshot, folder_of
from vggsearch.store.manifest import Part

COLUMNS = (
    "path",
    "bytes",
    "sha256",
    "width",
    "height",
    "format",
    "taken",
    "camera",
    "is_blank",
    "perceptual_hash",
)
FACTS = ("path", "bytes", "sha256", "width", "height", "format", "taken", "is_blank")  # what a list of photos shows
BLOCK_ROWS = 16_384


def schema(dim: int) -> pa.Schema:
    """Return the columns that are published, with vectors of `dim` dimensions."""
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("folder", pa.string(), nullable=False),
            pa.field("folded", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("taken", pa.timestamp("ms")),
            pa.field("camera", pa.string()),
            pa.field("is_blank", pa.bool_(), nullable=False),
            pa.field("perceptual_hash", pa.binary(BYTES)),
            pa.field("vector", pa.list_(pa.field("item", pa.float16()), dim), nullable=False),
        ]
    )


def facts_schema() -> pa.Schema:
    """Return the columns FACTS."""
    of_all = schema(1)
    return pa.schema([of_all.field(name) for name in FACTS])


def photos_of(state: Snapshot, part: Part, start: int, dim: int) -> Iterator[pa.Table]:
    """Yield the live photos of a part, the first of which is row `start` of the index, in blocks."""
    table = state.store.columns_of(part, COLUMNS).take(state.store.live_rows(part))
    for at in range(0, len(table), BLOCK_ROWS):
        block = table.slice(at, BLOCK_ROWS)
        paths = block.column("path").to_pylist()
        vectors = vectors_of(state, slice(start + at, start + at + len(paths)))
        made = {
            **{name: block.column(name) for name in COLUMNS},
            "folder": list(map(folder_of, paths)),
            "folded": list(map(folded, paths)),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim),
        }
        yield pa.table([made[name] for name in schema(dim).names], schema=schema(dim))


def vectors_in(photos: pa.Table) -> NDArray[np.float16]:
    """Return the vectors of such a table: float16 (n, dim)."""
    column = photos.column("vector").combine_chunks()
    values: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(photos), column.type.list_size)


def vectors_of(state: Snapshot, rows: slice) -> NDArray[np.float16]:
    """Return the vectors of rows as they are stored, so that similarities are the same to the last digit."""
    return np.ascontiguousarray(state.query_searcher.index.by_row[rows])
