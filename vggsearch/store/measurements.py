"""originals.parquet: numbers that were measured of photos and of pairs, stored because that means decoding them.

Keyed by content: a key has the SHA-256 of a photo or of two, see duplicates.measured. The file is derived: losing
it only costs time.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vggsearch.errors import IndexDamaged
from vggsearch.store.contents import ORIGINALS
from vggsearch.store.files import write_atomically
from vggsearch.store.keypoint_matches import MADE_BY, read_table
from vggsearch.store.manifest import CHECKSUM
from vggsearch.store.parts import METADATA

MEASURE_AGAIN = "Delete this file: the photos are then looked at again."
MEASUREMENT_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("numbers", pa.list_(pa.float64()), nullable=False),
    ]
)

Numbers = tuple[float, ...]


def write_measurements(directory: Path, measured: Mapping[str, Numbers], made_by: str) -> None:
    """Write numbers by key into the index. `made_by` identifies the method. Raises IndexNotWritable."""
    facts = json.dumps({MADE_BY: made_by, CHECKSUM: _checksum(made_by, measured, measured.values())})
    columns = [pa.array(list(measured), pa.string()), pa.array(list(measured.values()), pa.list_(pa.float64()))]
    table = pa.table(columns, MEASUREMENT_SCHEMA.with_metadata({METADATA: facts.encode("ascii")}))
    write_atomically(
        directory / ORIGINALS,
        lambda path: pq.write_table(table, path, compression="zstd", write_page_checksum=True),
    )


def read_measurements(directory: Path, made_by: str) -> dict[str, Numbers]:
    """Return the numbers that `made_by` measured, possibly none. Raises IndexDamaged and IndexNotReadable."""
    path = directory / ORIGINALS
    if not path.exists():
        return {}
    measured, facts = _read(path)
    return measured if facts[MADE_BY] == made_by else {}


def check_measurements(path: Path) -> None:
    """Raise IndexDamaged if even a single bit of the file has changed, IndexNotReadable if it cannot be read."""
    _read(path)


def _read(path: Path) -> tuple[dict[str, Numbers], dict[str, str]]:
    """Return all numbers and what measured them. Raises IndexDamaged and IndexNotReadable."""
    table, facts = read_table(path, MEASURE_AGAIN)
    try:
        if not table.schema.equals(MEASUREMENT_SCHEMA):
            raise ValueError("other columns")
        keys, values = (table.column(field.name).to_pylist() for field in MEASUREMENT_SCHEMA)
        if facts[CHECKSUM] != _checksum(facts[MADE_BY], keys, values):
            raise ValueError("wrong checksum")
        return dict(zip(keys, map(tuple, values), strict=True)), facts
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", MEASURE_AGAIN) from error


def _checksum(made_by: str, keys: Iterable[str], values: Iterable[Iterable[float]]) -> str:
    """Return a hash of all values and of what measured them."""
    digest = hashlib.sha256(made_by.encode("utf-8"))
    for key, numbers in zip(keys, values, strict=True):
        digest.update(json.dumps([key, list(numbers)]).encode("ascii"))
    return digest.hexdigest()
