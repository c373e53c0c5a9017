"""edges.parquet and others: pairs of photos, stored so that another threshold needs no new search."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged, IndexNotWritable
from vggsearch.store.contents import EDGES
from vggsearch.store.files import write_atomically
from vggsearch.store.manifest import CHECKSUM, StoredVectorIndex
from vggsearch.store.parts import METADATA
from vggsearch.store.store import Store
from vggsearch.system.reading import reading_from

log = logging.getLogger(__name__)

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

    @property
    def checksum(self) -> str:
        """The hash of the facts and the pairs; the checksums of Parquet do not cover its footer."""
        digest = hashlib.sha256(json.dumps(asdict(self.facts), sort_keys=True).encode("ascii"))
        for column in (self.first, self.second, self.similarity):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


class EdgeCache:
    """Keeps the pairs of one search in the file `name` of an index.

    Keeps nothing if the vectors of the index are not stored. The search is described by `count` and `floor`, see
    EdgeFacts, and by `inputs`, which identifies what else it depends on. Losing its pairs only costs time, so a
    file that is damaged or cannot be written is logged, not an error.
    """

    def __init__(self, store: Store, name: str, inputs: str, count: int, floor: float) -> None:
        stored = store.manifest.fresh_vector_index
        self._directory, self._name = store.directory if stored is not None else None, name
        vectors = vectors_id(stored) if stored is not None else ""
        self._facts = EdgeFacts(f"{vectors} {inputs}", len(store), count, floor)

    def read(self) -> StoredEdges | None:
        """Return the pairs of this search, None if they are not there."""
        last = self.last
        return last if last is not None and last.facts == self._facts else None

    @cached_property
    def last(self) -> StoredEdges | None:
        """The pairs written last with this count and floor, maybe of an earlier state; None without any."""
        if self._directory is None or not (self._directory / self._name).exists():
            return None
        try:
            edges = check_edges(self._directory / self._name)
        except IndexDamaged as error:
            log.warning("%s", error)
            return None
        is_alike = (edges.facts.count, edges.facts.floor) == (self._facts.count, self._facts.floor)
        return edges if is_alike else None

    @property
    def made_of(self) -> str:
        """What identifies the vectors and the rows of this search, see EdgeFacts."""
        return self._facts.made_of

    def write(self, first: NDArray[np.int32], second: NDArray[np.int32], similarity: NDArray[np.float32]) -> bool:
        """Keep the pairs of this search instead of any others; return whether that succeeded."""
        if self._directory is None:
            return False
        try:
            write_edges(self._directory, StoredEdges(self._facts, first, second, similarity), self._name)
        except IndexNotWritable as error:
            log.warning("%s The similar pairs were not stored.", error)
            return False
        return True


def vectors_id(stored: StoredVectorIndex) -> str:
    """Return an identifier of the vectors of a vector index: it changes with their values, order and photos.

    Compaction, and rebuilding only the FAISS file, do not change it.
    """
    return " ".join(file.sha256 for file in stored.files if file.name.endswith(".npy"))


def write_edges(directory: Path, edges: StoredEdges, name: str = EDGES) -> None:
    """Write pairs into an index. Raises IndexNotWritable."""
    facts = json.dumps({**asdict(edges.facts), CHECKSUM: edges.checksum})
    columns = [edges.first, edges.second, edges.similarity]
    table = pa.table(columns, EDGE_SCHEMA.with_metadata({METADATA: facts.encode("ascii")}))

    def write_table(path: Path) -> None:
        pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=ENCODINGS)

    write_atomically(directory / name, write_table)


def read_edges(directory: Path, vectors: str, name: str = EDGES) -> StoredEdges | None:
    """Return the stored pairs of the vectors identified by `vectors`, see `vectors_id`.

    Returns None if there are no pairs, or only those of other vectors. Raises IndexDamaged if even a single bit has
    changed, and IndexNotReadable.
    """
    path = directory / name
    if not path.exists():
        return None
    edges = check_edges(path)
    return edges if edges.facts.made_of == vectors else None


def check_edges(path: Path) -> StoredEdges:
    """Return the pairs in a file. Raises IndexDamaged if even a single bit has changed, and IndexNotReadable."""
    try:
        with reading_from(path, SEARCH_AGAIN):
            table = pq.ParquetFile(path).read()
        first, second, similarity = (table.column(field.name).cast(field.type).to_numpy() for field in EDGE_SCHEMA)
        facts = json.loads((table.schema.metadata or {})[METADATA])
        checksum = facts.pop(CHECKSUM)
        edges = StoredEdges(EdgeFacts(**facts), first, second, similarity)
        if checksum != edges.checksum:
            raise ValueError("wrong checksum")
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", SEARCH_AGAIN) from error
    return edges
