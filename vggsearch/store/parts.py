"""Parquet: one row a photo, the embedding as a fixed-size list of float16."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.extract import Embedded
from vggsearch.photos import Skipped
from vggsearch.store.files import write_atomically

SKIPPED_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


def part_schema(dim: int) -> pa.Schema:
    """Return the columns of a part whose embeddings have `dim` numbers."""
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("taken", pa.timestamp("s")),
            pa.field("embedding", pa.list_(pa.field("item", pa.float16(), nullable=False), dim), nullable=False),
        ]
    )


def write_part(path: Path, photos: Sequence[Embedded], dim: int) -> str:
    """Write the photos as one part; return the sha256 of its bytes. Embeddings are rounded to float16."""
    numbers = np.stack([photo.embedding for photo in photos]).astype(np.float16)
    schema = part_schema(dim)
    item = schema.field("embedding").type.value_field
    columns = [
        [photo.file.path for photo in photos],
        [photo.file.bytes for photo in photos],
        [photo.file.mtime_ns for photo in photos],
        [photo.sha256 for photo in photos],
        [photo.width for photo in photos],
        [photo.height for photo in photos],
        [photo.format for photo in photos],
        [photo.taken for photo in photos],
        pa.FixedSizeListArray.from_arrays(
            pa.array(numbers.reshape(-1), item.type), type=schema.field("embedding").type
        ),
    ]
    return _write(path, pa.table(columns, schema=schema))


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a part or of the skipped file. Raises IndexDamaged where it cannot be read."""
    try:
        return pq.read_table(path, columns=list(columns), page_checksum_verification=True, memory_map=True)
    except FileNotFoundError as error:
        raise IndexDamaged(
            f"{path} is missing, though the manifest lists it. Delete the index and index again."
        ) from error
    except (OSError, pa.ArrowException) as error:
        first_line = str(error).splitlines()[0]
        raise IndexDamaged(f"{path} is damaged ({first_line}). Delete the index and index again.") from error


def read_embeddings(path: Path, dim: int) -> NDArray[np.float16]:
    """Return the embeddings of a part, float16 (rows, dim), in row order."""
    column = read_columns(path, ["embedding"]).column("embedding").combine_chunks()
    numbers: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=True)
    if len(column) * dim != numbers.size:
        raise IndexDamaged(
            f"{path} has {numbers.size} numbers in {len(column)} rows; the manifest says {dim} each."
        )
    return numbers.reshape(-1, dim)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write the files that could not be used, in path order."""
    rows = sorted(skipped, key=lambda row: row.path)
    columns = [[getattr(row, field.name) for row in rows] for field in SKIPPED_SCHEMA]
    _write(path, pa.table(columns, schema=SKIPPED_SCHEMA))


def read_skipped(path: Path) -> Iterator[Skipped]:
    """Yield the files that could not be used, in path order; none where nothing was ever skipped."""
    if path.exists():
        for row in read_columns(path, SKIPPED_SCHEMA.names).to_pylist():
            yield Skipped(**row)


def _write(path: Path, table: pa.Table) -> str:
    """Write one row group with a checksum on every page, atomically; return the file's sha256."""
    digest = ""

    def write(temporary: Path) -> None:
        nonlocal digest
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=[name for name in ("format", "reason", "kind") if name in table.column_names],
            write_page_checksum=True,
            row_group_size=max(1, table.num_rows),
        )
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()

    write_atomically(path, write)
    return digest
