"""compared.parquet: which photos the stored pairs are of, so that after an update only new photos are compared."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged, IndexNotWritable
from vggsearch.store.contents import COMPARED
from vggsearch.store.files import write_atomically
from vggsearch.store.keypoint_matches import read_table
from vggsearch.store.manifest import CHECKSUM
from vggsearch.store.parts import METADATA

log = logging.getLogger(__name__)

MADE_OF = "made_of"
COMPARE_ALL = "Delete this file: all photos are then compared."
COMPARED_SCHEMA = pa.schema([pa.field("number", pa.uint64(), nullable=False)])


def write_compared(directory: Path, made_of: str, numbers: NDArray[np.uint64]) -> None:
    """Write the number of each row, uint64 (n,), for the pairs `made_of` the same, see edges.EdgeFacts.

    A number identifies photo and vector; it is 0 for a row that was not compared. If the file cannot be written,
    that is logged.
    """
    table = pa.table([numbers], COMPARED_SCHEMA)
    facts = json.dumps({MADE_OF: made_of, CHECKSUM: _checksum(made_of, table)})
    table = table.replace_schema_metadata({METADATA: facts.encode("ascii")})

    def write_table(path: Path) -> None:
        pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)

    try:
        write_atomically(directory / COMPARED, write_table)
    except IndexNotWritable as error:
        log.warning("%s After an update, all photos are compared again.", error)


def read_compared(directory: Path, made_of: str) -> NDArray[np.uint64] | None:
    """Return the numbers of the rows of pairs; None if there are none, or only those of other pairs.

    If the file is damaged, that is logged.
    """
    path = directory / COMPARED
    if not path.exists():
        return None
    try:
        found, numbers = check_compared(path)
    except IndexDamaged as error:
        log.warning("%s", error)
        return None
    return numbers if found == made_of else None


def check_compared(path: Path) -> tuple[str, NDArray[np.uint64]]:
    """Return what a file holds. Raises IndexDamaged if even a single bit has changed, and IndexNotReadable."""
    table, facts = read_table(path, COMPARE_ALL)
    try:
        if not table.schema.equals(COMPARED_SCHEMA) or facts[CHECKSUM] != _checksum(facts[MADE_OF], table):
            raise IndexDamaged(path, "is damaged (wrong checksum)", COMPARE_ALL)
    except (KeyError, TypeError) as error:
        raise IndexDamaged(path, f"is damaged ({error})", COMPARE_ALL) from error
    return facts[MADE_OF], table.column("number").to_numpy()


def _checksum(made_of: str, table: pa.Table) -> str:
    """Return a hash of all values and of what they belong to."""
    digest = hashlib.sha256(made_of.encode("utf-8"))
    digest.update(np.ascontiguousarray(table.column("number").to_numpy()).data)
    return digest.hexdigest()
