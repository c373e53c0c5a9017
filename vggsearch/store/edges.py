"""edges.parquet: the pairs of photos that are alike, kept so that another threshold needs no new search."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.store.files import reading_from, write_atomically
from vggsearch.store.manifest import CHECKSUM, StoredVectorIndex

EDGES = "edges.parquet"
METADATA = b"vggsearch"
SCHEMA = pa.schema(
    [
        pa.field("first", pa.int32(), nullable=False),
        pa.field("second", pa.int32(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)
ENCODINGS = {"first": "DELTA_BINARY_PACKED", "second": "DELTA_BINARY_PACKED", "similarity": "BYTE_STREAM_SPLIT"}
WAY_OUT = "Delete it: the pairs are searched anew."


@dataclass(frozen=True)
class EdgeFacts:
    """What the pairs were searched among, and for.

    `made_of` names the vectors, `rows` of them; the `count` nearest of each row make pairs, all where it is None,
    and none is less alike than `floor`.
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


def made_of(side: StoredVectorIndex) -> str:
    """Return the name of a search side's vectors: it changes with their numbers, their order and their photos.

    A side that was only compacted, or whose FAISS file alone was made anew, keeps it.
    """
    return " ".join(file.sha256 for file in side.files if file.name.endswith(".npy"))


def write_edges(directory: Path, edges: StoredEdges) -> None:
    """Write the pairs into the folder of their search side, with which they go. Raises IndexNotWritable."""
    facts = json.dumps({**asdict(edges.facts), CHECKSUM: _checksum(edges)})
    columns = [edges.first, edges.second, edges.similarity]
    table = pa.table(columns, SCHEMA.with_metadata({METADATA: facts.encode("ascii")}))

    def write(path: Path) -> None:
        pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=ENCODINGS)

    write_atomically(directory / EDGES, write)


def read_edges(directory: Path, vectors: str) -> StoredEdges | None:
    """Return the pairs that were found among these vectors, as `made_of` names them.

    None where there are none, or only those of other vectors: they have to be searched anew. Raises IndexDamaged,
    where a single bit is not as it was written, and IndexNotReadable.
    """
    path = directory / EDGES
    if not path.exists():
        return None
    edges, checksum = _read(path)
    if checksum != _checksum(edges):
        raise IndexDamaged(path, "is damaged (its checksum is not that of its pairs)", WAY_OUT)
    return edges if edges.facts.made_of == vectors else None


def _read(path: Path) -> tuple[StoredEdges, str]:
    """Return the pairs of a file, and the checksum that they should have."""
    try:
        with reading_from(path):
            table = pq.ParquetFile(path).read()
        first, second, similarity = (table.column(field.name).cast(field.type).to_numpy() for field in SCHEMA)
        facts = json.loads((table.schema.metadata or {})[METADATA])
        checksum = str(facts.pop(CHECKSUM))
        return StoredEdges(EdgeFacts(**facts), first, second, similarity), checksum
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", WAY_OUT) from error


def _checksum(edges: StoredEdges) -> str:
    """Return the hash of the facts and the pairs; Parquet's own leave its footer out."""
    found = hashlib.sha256(json.dumps(asdict(edges.facts), sort_keys=True).encode("ascii"))
    for column in (edges.first, edges.second, edges.similarity):
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()
