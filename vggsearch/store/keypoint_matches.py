"""checks.parquet: what geometry said of pairs of photos, kept since each takes a network and a look at the photos.

Keyed by content: `first` and `second` are the sha256 of two photos. Derived: losing it costs time alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vggsearch.errors import IndexDamaged
from vggsearch.store.contents import KEYPOINT_MATCHES
from vggsearch.store.files import reading_from, write_atomically

MADE_BY = b"vggsearch.made_by"
WAY_OUT = "Delete it: the pairs are checked anew."
SCHEMA = pa.schema(
    [
        pa.field("first", pa.string(), nullable=False),
        pa.field("second", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("inliers", pa.int32(), nullable=False),
        pa.field("mirrored", pa.bool_(), nullable=False),
        pa.field("turned", pa.float64(), nullable=False),
        pa.field("scale", pa.float64(), nullable=False),
        pa.field("corners", pa.list_(pa.float64(), 8), nullable=False),
        pa.field("same_pixels", pa.bool_()),
    ]
)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KeypointMatch:
    """Where in the second photo the first lies, as geometry.Alignment has it; a score of 0 where nowhere.

    `same_pixels` says whether they are one picture, None where nobody has looked.
    """

    score: float = 0.0
    inliers: int = 0
    mirrored: bool = False
    turned: float = 0.0
    scale: float = 0.0
    corners: tuple[float, ...] = (0.0,) * 8
    same_pixels: bool | None = None


def write_keypoint_matches(directory: Path, matches: Mapping[Key, KeypointMatch], made_by: str) -> None:
    """Write the checks into the index. `made_by` names what made them. Raises IndexNotWritable."""
    columns = [
        [first for first, _ in matches],
        [second for _, second in matches],
        *([getattr(match, field.name) for match in matches.values()] for field in list(SCHEMA)[2:]),
    ]
    table = pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)],
        SCHEMA.with_metadata({MADE_BY: made_by.encode("utf-8")}),
    )
    write_atomically(
        directory / KEYPOINT_MATCHES,
        lambda path: pq.write_table(table, path, compression="zstd", write_page_checksum=True),
    )


def read_keypoint_matches(directory: Path, made_by: str) -> dict[Key, KeypointMatch]:
    """Return the checks that `made_by` made, none where there are none. Raises IndexDamaged, IndexNotReadable."""
    path = directory / KEYPOINT_MATCHES
    if not path.exists():
        return {}
    try:
        with reading_from(path):
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
        if (table.schema.metadata or {}).get(MADE_BY) != made_by.encode("utf-8"):
            return {}
        firsts, seconds, *columns = (table.column(field.name).to_pylist() for field in SCHEMA)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", WAY_OUT) from error
    matches = (
        KeypointMatch(*values, tuple(corners), same)  # type: ignore[call-arg]
        for *values, corners, same in zip(*columns, strict=True)
    )
    return dict(zip(zip(firsts, seconds, strict=True), matches, strict=True))
