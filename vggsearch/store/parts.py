"""The Parquet files of an index: one row per photo, the embedding as a fixed-size list of float16."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged, OptionError, PathOutside
from vggsearch.model.spec import EmbeddingSpec, spec_from_json
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import Skipped, printable
from vggsearch.store.arrow import positions
from vggsearch.store.files import write_atomically
from vggsearch.store.records import Embedded
from vggsearch.system.reading import reading_from

METADATA = b"vggsearch"  # key of a Parquet file's metadata
BYTES_PER_DIMENSION = 2  # embeddings are float16
PATH, SHA256 = "path", "sha256"
PERCEPTUAL_HASH = "perceptual_hash"
CAPTURE = ("taken", "taken_kind", "camera", "camera_serial")  # the fields of photos.capture.Capture
EXACT_PATH = "exact_path"
NULLABLE = (*CAPTURE, PERCEPTUAL_HASH, EXACT_PATH)
REPEATING = ("format", "reason", "kind", *CAPTURE[1:])  # columns of few values
LEAST = {"bytes": 0, "width": 1, "height": 1}
BLANK = "is_blank"
# An empty part, "." or "..": the path is absolute, leads up or has two spellings. On Windows, a drive or \\ too.
NOT_BELOW = r"(^|/)\.{0,2}(/|$)|\x00" + (r"|\\|^[A-Za-z]:" if os.name == "nt" else "")
# Columns that older parts lack: the hash up to format 5, the others up to format 6.
ADDED_LATER = {
    PERCEPTUAL_HASH: pa.binary(BYTES),
    EXACT_PATH: pa.binary(),
    **dict.fromkeys(CAPTURE[1:], pa.string()),
}
Table: TypeAlias = pa.Table
SKIPPED_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field(EXACT_PATH, pa.binary()),
    ]
)


def part_schema(dim: int) -> pa.Schema:
    """Return the columns of a part with embeddings of `dim` dimensions."""
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("taken", pa.timestamp("ms")),
            *(pa.field(name, pa.string()) for name in CAPTURE[1:]),
            pa.field(BLANK, pa.bool_(), nullable=False),
            pa.field(PERCEPTUAL_HASH, pa.binary(BYTES)),
            pa.field("embedding", pa.list_(pa.field("item", pa.float16(), nullable=False), dim), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Origin:
    """What computed the embeddings of a part. Each part stores it, so that a lost manifest can be rebuilt."""

    embedding: EmbeddingSpec
    engine: str
    precision: str


def write_part(path: Path, photos: Sequence[Embedded], origin: Origin) -> None:
    """Write photos as one part. Embeddings are rounded to float16."""
    embeddings = np.stack([photo.embedding for photo in photos]).astype(np.float16)
    schema = part_schema(origin.embedding.dim)
    item = schema.field("embedding").type.value_field
    columns = [
        [photo.file.path for photo in photos],
        [photo.file.bytes for photo in photos],
        [photo.file.mtime_ns for photo in photos],
        [photo.sha256 for photo in photos],
        [photo.width for photo in photos],
        [photo.height for photo in photos],
        [photo.format for photo in photos],
        *([photo.capture[place] for photo in photos] for place in range(len(CAPTURE))),
        [photo.is_blank for photo in photos],
        [photo.perceptual_hash for photo in photos],
        pa.FixedSizeListArray.from_arrays(
            pa.array(embeddings.reshape(-1), item.type), type=schema.field("embedding").type
        ),
    ]
    _write(path, pa.table(columns, schema=schema), origin)


def merge_parts(path: Path, sources: Iterable[tuple[Path, NDArray[np.int64]]], origin: Origin) -> None:
    """Write the given rows of each source part, in this order, as one part."""
    tables = [read_part(source, origin.embedding.dim).take(rows) for source, rows in sources]
    _write(path, pa.concat_tables(tables), origin)


def read_part(path: Path, dim: int) -> pa.Table:
    """Return a complete part and verify its page checksums. Raises IndexDamaged also for other columns."""
    schema = part_schema(dim)
    table = read_columns(path, schema.names)
    if not table.schema.equals(schema, check_metadata=False):
        raise IndexDamaged(path, f"has other columns than a part with embeddings of {dim} dimensions")
    return table


def read_columns(path: Path, columns: Sequence[str], data: bytes | None = None) -> pa.Table:
    """Return columns of a Parquet file, or of its content `data`. Raises IndexDamaged if it cannot be read."""
    # Not memory-mapped: a failing disk then raises an error instead of killing the process.
    with reading_from(path):
        try:
            with pq.ParquetFile(
                path if data is None else pa.BufferReader(data), page_checksum_verification=True
            ) as file:
                known = [name for name in columns if name in file.schema_arrow.names]
                # A thread of Arrow may hold `data` longer than the interpreter lives, and aborts the process then.
                table = file.read(known, use_threads=data is None)
        except (pa.ArrowException, ValueError) as error:  # a column name that is not UTF-8
            raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})") from error
    if BLANK in columns and BLANK not in table.column_names:  # a part of format 1
        flags = pa.repeat(False, len(table))
        table = table.append_column(pa.field(BLANK, pa.bool_(), nullable=False), flags)
    for name, type in ADDED_LATER.items():
        if name in columns and name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), type))
    if set(table.column_names) != set(columns):
        raise IndexDamaged(path, f"has the columns {table.column_names}, not {list(columns)}")
    _check_values(path, table)
    return table.select(columns)


def _check_values(file: Path, table: pa.Table) -> None:
    """Raise IndexDamaged for values that no photo has: an index may be made by somebody else."""
    for name in table.column_names:
        if name not in NULLABLE and table.column(name).null_count:
            raise IndexDamaged(file, f"has no {name} in a row")
    for name in set(CAPTURE[1:]).intersection(table.column_names):
        if not pa.types.is_string(table.column(name).type):
            raise IndexDamaged(file, f"has {name} of type {table.column(name).type}")
    if PATH in table.column_names:
        _check_paths(file, table.column(PATH))
    if SHA256 in table.column_names:
        _check_each(file, table, SHA256, lambda column: pc.match_substring_regex(column, "^[0-9a-f]{64}$"))
    for name, least in LEAST.items():
        if name in table.column_names:
            lowest = positions(np.array([least]))[0]
            _check_each(file, table, name, partial(pc.less_equal, lowest))


def _check_each(file: Path, table: pa.Table, name: str, is_right: Callable[[pa.ChunkedArray], pa.Array]) -> None:
    """Raise IndexDamaged, naming the row, for a value of a column that is not right."""
    column = table.column(name)
    try:
        are_right = is_right(column)
    except pa.ArrowException as error:
        raise IndexDamaged(file, f"has {name} of type {column.type}") from error
    row = _first(pc.invert(are_right))
    if row is not None:
        raise IndexDamaged(file, f"has in row {row:,} as {name} {column[row].as_py()!r}")


def _first(are: pa.ChunkedArray) -> int | None:
    """Return the first place that is true, None if none is."""
    places = pc.indices_nonzero(are)
    return places[0].as_py() if len(places) else None


def _check_paths(file: Path, paths: pa.ChunkedArray) -> None:
    """Raise PathOutside, with the row, for a path that is none below the photo folder: an index may be crafted."""
    if not pa.types.is_string(paths.type):
        raise IndexDamaged(file, f"has paths of type {paths.type}")
    row = _first(pc.match_substring_regex(paths, NOT_BELOW))
    if row is not None:
        raise PathOutside(file, f"has in row {row:,} a path outside the photo folder, {paths[row].as_py()!r}")


def read_origin(path: Path) -> Origin | None:
    """Return what computed a part, None for a part of format 1, which has no such entry. Raises IndexDamaged."""
    try:
        with reading_from(path):
            metadata = pq.read_schema(path).metadata or {}
        if METADATA not in metadata:
            return None
        values = json.loads(metadata[METADATA])
        spec = spec_from_json(current_embedding(values["embedding"]))
        return Origin(spec, str(values["engine"]), str(values["precision"]))
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError, OptionError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})") from error


def current_embedding(values: dict[str, Any]) -> dict[str, Any]:
    """Convert the spec in a part or manifest to the current fields: up to format 2 there was one input size."""
    if "size" not in values:
        return values
    others = {name: value for name, value in values.items() if name != "size"}
    return {**others, "sizes": [values["size"]], "mirror": False}


def embeddings_in(table: pa.Table) -> NDArray[np.float16]:
    """Return the embeddings of a part in row order: float16 (rows, dim)."""
    column = table.column("embedding").combine_chunks()
    values: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(column), column.type.list_size)


def bytes_of(values: pa.ChunkedArray, size: int) -> NDArray[np.uint8]:
    """Return values of `size` bytes each, none of them null, as an array: uint8 (n, size)."""
    column = values.cast(pa.binary(size)).combine_chunks()
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return data[column.offset * size :][: len(column) * size].reshape(-1, size)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write the list of skipped files, sorted by path."""
    rows = sorted(skipped, key=lambda row: row.path)
    columns = [
        [printable(row.path) for row in rows],
        *([getattr(row, name) for row in rows] for name in ("reason", "kind", "bytes", "mtime_ns")),
        [None if printable(row.path) == row.path else os.fsencode(row.path) for row in rows],
    ]
    _write(path, pa.table(columns, schema=SKIPPED_SCHEMA))


def read_skipped(path: Path, data: bytes) -> Iterator[Skipped]:
    """Yield the skipped files, sorted by path, from `data`, the content of the file `path`. Raises IndexDamaged."""
    for number, row in enumerate(read_columns(path, SKIPPED_SCHEMA.names, data).to_pylist()):
        exact = row.pop(EXACT_PATH)
        if exact is not None:
            row["path"] = _exact_path(path, number, row["path"], exact)
        yield Skipped(**row)


def _exact_path(file: Path, row: int, path: str, exact: object) -> str:
    """Return the path of these bytes, which `path` shows. Raises IndexDamaged if it does not."""
    try:
        found = os.fsdecode(exact) if isinstance(exact, bytes) else ""
    except UnicodeDecodeError:  # on Windows
        found = ""
    if printable(found) != path:
        raise IndexDamaged(file, f"has in row {row:,} as {EXACT_PATH} {exact!r}")
    return found


def _write(path: Path, table: pa.Table, origin: Origin | None = None) -> None:
    """Write one row group with a checksum on every page, atomically."""
    metadata = {METADATA: json.dumps(asdict(origin))} if origin is not None else None

    def write_table(temporary: Path) -> None:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            use_dictionary=[name for name in REPEATING if name in table.column_names],
            write_page_checksum=True,
            write_statistics=[name for name in table.column_names if name != "embedding"],  # a third of the time
            row_group_size=max(1, table.num_rows),
        )

    write_atomically(path, write_table)
