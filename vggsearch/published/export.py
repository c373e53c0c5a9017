"""Write the vectors of an index to one flat Parquet file, which other programs import."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.knn.vectors import BLOCK_ROWS, unit_rows
from vggsearch.progress import Monitor
from vggsearch.query.snapshot import Snapshot
from vggsearch.store.files import write_atomically

METADATA = b"vggsearch_export"  # key of the file's metadata
GROUP_ROWS = 16 * BLOCK_ROWS  # of a row group: readers that divide a file among machines do so by row groups


def export(state: Snapshot, file: Path, monitor: Monitor, *, raw: bool) -> int:
    """Write id, path and vector of each photo to a Parquet file, in row order; return the number of dimensions.

    The vectors are float32 of unit length: those that queries compare or, if `raw`, the embeddings. Raises
    OptionError for a file that vggsearch has not written, IndexNotWritable and Stopped; the file is then as before.
    """
    _check_replaceable(file)
    whitening = None if raw else state.query_searcher.index.whitening
    dim = whitening.dim if whitening is not None else state.store.spec.dim
    facts = {"embedding": asdict(state.store.spec), "is_raw": raw, "dimensions": dim}
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
        ],
        metadata={METADATA: json.dumps(facts)},
    )
    place = file.parent.resolve() / file.name  # the folder may be a link
    write_atomically(place, lambda path: _write(path, state, schema, monitor, raw=raw))
    return dim


def _write(path: Path, state: Snapshot, schema: pa.Schema, monitor: Monitor, *, raw: bool) -> None:
    start, total = 0, len(state.store)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for part in state.store.manifest.parts:
            paths = state.store.column(part, "path")
            embeddings = state.store.part_embeddings(part) if raw else None
            for at in range(0, len(paths), GROUP_ROWS):
                monitor.step("exporting", start + at, total)
                here = slice(at, min(at + GROUP_ROWS, len(paths)))
                rows = slice(start + here.start, start + here.stop)
                vectors = (
                    unit_rows(embeddings[here])
                    if embeddings is not None
                    else state.query_searcher.index.unit_vectors(rows)
                )
                columns = [pa.array(np.arange(rows.start, rows.stop)), pa.array(paths[here]), _lists(vectors)]
                writer.write_table(pa.table(columns, schema=schema))
            start += len(paths)
    monitor.show("exporting", total, total)


def _lists(vectors: NDArray[np.float32]) -> pa.ListArray:
    """Return vectors (n, dim) as lists of any length, which more readers know than lists of a fixed size."""
    ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False))
    return pa.ListArray.from_arrays(pa.array(ends), values, type=kind)


def _check_replaceable(file: Path) -> None:
    """Raise OptionError for what is there and is no export, such as a Parquet file of the user's own."""
    if not file.exists():
        return
    try:
        is_export = file.is_file() and METADATA in (pq.read_schema(file).metadata or {})
    except (pa.ArrowException, OSError):
        is_export = False
    if not is_export:
        raise OptionError(f"{file} exists and was not exported by vggsearch. Choose another file name.")
