"""edges.parquet: pairs of similar photos, stored so that another threshold needs no new search."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.store.contents import EDGES
from vggsearch.store.files import reading_from, write_atomically
from vggsearch.store.manifest import CHECKSUM, StoredVectorIndex
from vggsearch.store.parts import METADATA

EDGE_SCHEMA = pa.schema(
    [
        pa.field("first", pa.int32(), nullable=False),
        pa.field("second", pa.int32(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)
ENCODINGS = {"first": "DELTA_BINARY_PACKED", "second": "DELTA_BINARY_PACKED", "similarity": "BYTE_STREAM_SPLIT"}
SEARCH_AGAIN = "Delete this file: the pairs are then searched again."


@dataclass(frozen=True)
class EdgeFacts:
    """What stored pairs were computed from.

    `made_of` identifies the `rows` vectors, see `vectors_id`. `count` and `floor` are those of knn.edges.Edges: the
    pairs of each row with its `count` nearest (None: all) that have a similarity of at least `floor`.
    """

    made_of: str
    rows: int
    count: int | None
    floor: float


@dataclass(frozen=True)
class StoredEdges:
    """Pairs of rows, `first` < `second`, int32 (m,), with their `similarity`, float32 (m,)."""

    facts: EdgeFacts
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    similarity: NDArray[np.float32]


def vectors_id(stored: StoredVectorIndex) -> str:
    """Return an identifier of the vectors of a vector index: it changes with their values, order and photos.

    Compaction, and rebuilding only the FAISS file, do not change it.
    """
    return " ".join(file.sha256 for file in stored.files if file.name.endswith(".npy"))


def write_edges(directory: Path, edges: StoredEdges) -> None:
    """Write pairs into the folder of their vector index, to be deleted with it. Raises IndexNotWritable."""
    facts = json.dumps({**asdict(edges.facts), CHECKSUM: _checksum(edges)})
    columns = [edges.first, edges.second, edges.similarity]
    table = pa.table(columns, EDGE_SCHEMA.with_metadata({METADATA: facts.encode("ascii")}))

    def write_table(path: Path) -> None:
        pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=ENCODINGS)

    write_atomically(directory / EDGES, write_table)


def read_edges(directory: Path, vectors: str) -> StoredEdges | None:
    """Return the stored pairs of the vectors identified by `vectors`, see `vectors_id`.

    Returns None if there are no pairs, or only those of other vectors. Raises IndexDamaged if even a single bit has
    changed, and IndexNotReadable.
    """
    path = directory / EDGES
    if not path.exists():
        return None
    edges, checksum = _read(path)
    if checksum != _checksum(edges):
        raise IndexDamaged(path, "is damaged (wrong checksum)", SEARCH_AGAIN)
    return edges if edges.facts.made_of == vectors else None


def _read(path: Path) -> tuple[StoredEdges, str]:
    """Return the pairs in a file, and their checksum as stored."""
    try:
        with reading_from(path):
            table = pq.ParquetFile(path).read()
        first, second, similarity = (table.column(field.name).cast(field.type).to_numpy() for field in EDGE_SCHEMA)
        facts = json.loads((table.schema.metadata or {})[METADATA])
        checksum = str(facts.pop(CHECKSUM))
        return StoredEdges(EdgeFacts(**facts), first, second, similarity), checksum
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", SEARCH_AGAIN) from error


def _checksum(edges: StoredEdges) -> str:
    """Return the hash of the facts and the pairs; the checksums of Parquet do not cover its footer."""
    digest = hashlib.sha256(json.dumps(asdict(edges.facts), sort_keys=True).encode("ascii"))
    for column in (edges.first, edges.second, edges.similarity):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
