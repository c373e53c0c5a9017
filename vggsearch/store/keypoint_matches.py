"""checks.parquet: the keypoint matches of pairs of photos, stored because computing one means decoding two photos.

Keyed by content: `first` and `second` are the SHA-256 of two photos. The file is derived: losing it only costs
time.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vggsearch.errors import IndexDamaged
from vggsearch.store.contents import KEYPOINT_MATCHES
from vggsearch.store.files import write_atomically
from vggsearch.store.manifest import CHECKSUM
from vggsearch.store.parts import METADATA
from vggsearch.system.reading import reading_from

MADE_BY = "made_by"
COMPARE_AGAIN = "Delete this file: the pairs are then compared again."
MATCH_SCHEMA = pa.schema(
    [
        pa.field("first", pa.string(), nullable=False),
        pa.field("second", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("inliers", pa.int32(), nullable=False),
        pa.field("agreement", pa.float64(), nullable=False),
        pa.field("mirrored", pa.bool_(), nullable=False),
        pa.field("turned", pa.float64(), nullable=False),
        pa.field("scale", pa.float64(), nullable=False),
        pa.field("corners", pa.list_(pa.float64(), 8), nullable=False),
        pa.field("same_pixels", pa.bool_()),
    ]
)
NUMBERS = ("score", "inliers", "agreement", "mirrored", "turned", "scale")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KeypointMatch:
    """The position of the first photo in the second, see matching.alignment.Alignment; a score of 0 for none.

    `same_pixels` is whether all pixels of the two are equal, None if that was not compared.
    """

    score: float = 0.0
    inliers: int = 0
    agreement: float = 0.0
    mirrored: bool = False
    turned: float = 0.0
    scale: float = 0.0
    corners: tuple[float, ...] = (0.0,) * 8
    same_pixels: bool | None = None


def write_keypoint_matches(directory: Path, matches: Mapping[Key, KeypointMatch], made_by: str) -> None:
    """Write matches into the index. `made_by` identifies algorithm and settings. Raises IndexNotWritable."""
    columns = [
        [first for first, _ in matches],
        [second for _, second in matches],
        *([getattr(match, field.name) for match in matches.values()] for field in list(MATCH_SCHEMA)[2:]),
    ]
    table = pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, MATCH_SCHEMA, strict=True)],
        MATCH_SCHEMA,
    )
    facts = json.dumps({MADE_BY: made_by, CHECKSUM: _checksum(table, made_by)})
    table = table.replace_schema_metadata({METADATA: facts.encode("ascii")})
    write_atomically(
        directory / KEYPOINT_MATCHES,
        lambda path: pq.write_table(table, path, compression="zstd", write_page_checksum=True),
    )


def _checksum(table: pa.Table, made_by: str) -> str:
    """Return a hash of all values and of what computed them."""
    digest = hashlib.sha256(made_by.encode("utf-8"))
    for column in table.select(("first", "second")).columns:
        digest.update(json.dumps(column.to_pylist()).encode("ascii"))
    for column in (*table.select(NUMBERS).columns, table.column("corners").combine_chunks().flatten()):
        digest.update(column.cast(pa.float64()).to_numpy().tobytes())
    digest.update(json.dumps(table.column("same_pixels").to_pylist()).encode("ascii"))
    return digest.hexdigest()


def read_keypoint_matches(directory: Path, made_by: str) -> dict[Key, KeypointMatch]:
    """Return the stored matches computed by `made_by`, possibly none. Raises IndexDamaged and IndexNotReadable."""
    path = directory / KEYPOINT_MATCHES
    if not path.exists():
        return {}
    table, facts = read_table(path, COMPARE_AGAIN)
    if facts.get(MADE_BY) != made_by:
        return {}
    _check(path, table, facts)
    firsts, seconds, *columns = (table.column(field.name).to_pylist() for field in MATCH_SCHEMA)
    matches = (
        KeypointMatch(*values, tuple(corners), same)  # type: ignore[call-arg]
        for *values, corners, same in zip(*columns, strict=True)
    )
    return dict(zip(zip(firsts, seconds, strict=True), matches, strict=True))


def check_keypoint_matches(path: Path) -> None:
    """Raise IndexDamaged if even a single bit of the file has changed, IndexNotReadable if it cannot be read."""
    _check(path, *read_table(path, COMPARE_AGAIN))


def read_table(path: Path, remedy: str) -> tuple[pa.Table, dict[str, str]]:
    """Return the table and its facts: what computed it, and its checksum. Raises IndexDamaged with the remedy."""
    try:
        with reading_from(path, remedy):
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
        return table, dict(json.loads((table.schema.metadata or {}).get(METADATA, b"{}")))
    except (pa.ArrowException, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", remedy) from error


def _check(path: Path, table: pa.Table, facts: dict[str, str]) -> None:
    """Raise IndexDamaged for another schema or a wrong checksum."""
    try:
        if not table.schema.equals(MATCH_SCHEMA) or facts[CHECKSUM] != _checksum(table, facts[MADE_BY]):
            raise IndexDamaged(path, "is damaged (wrong checksum)", COMPARE_AGAIN)
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", COMPARE_AGAIN) from error
