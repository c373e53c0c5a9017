"""stamps.parquet: change time and inode of each file as it was last read, to notice edits that keep size and time.

A program may change a file in place and set its modification time back, as exiftool -P does; the system then still
records when the file was changed. The file is derived: without it, only reading all photos finds such an edit.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vggsearch.errors import IndexDamaged, option, spelled
from vggsearch.photos.walk import Stamp
from vggsearch.store.contents import STAMPS
from vggsearch.store.files import write_atomically
from vggsearch.store.manifest import CHECKSUM
from vggsearch.store.parts import METADATA
from vggsearch.system.reading import reading_from

log = logging.getLogger(__name__)

STAMP_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("ctime_ns", pa.int64(), nullable=False),
        pa.field("inode", pa.int64(), nullable=False),
    ]
)
READ_ALL = spelled("Delete it, and update with ", option("rehash"), " once, which reads all photos.")


def write_stamps(directory: Path, stamps: Mapping[str, Stamp]) -> None:
    """Write the stamps of files by path into the index. Raises IndexNotWritable."""
    columns = [list(stamps), *([stamp[place] for stamp in stamps.values()] for place in (0, 1))]
    table = pa.table(columns, STAMP_SCHEMA)
    facts = json.dumps({CHECKSUM: _checksum(table)}).encode("ascii")
    write_atomically(
        directory / STAMPS,
        lambda path: pq.write_table(
            table.replace_schema_metadata({METADATA: facts}), path, compression="zstd", write_page_checksum=True
        ),
    )


def read_stamps(directory: Path) -> dict[str, Stamp]:
    """Return the stamps of files by path, as they were when the files were read; none if the file is damaged."""
    path = directory / STAMPS
    if not path.exists():
        return {}
    try:
        paths, *columns = (column.to_pylist() for column in check_stamps(path).columns)
    except IndexDamaged as error:
        log.warning("%s", error)
        return {}
    return dict(zip(paths, map(Stamp, *columns), strict=True))


def check_stamps(path: Path) -> pa.Table:
    """Return the table in a file. Raises IndexDamaged if even a single bit has changed, and IndexNotReadable."""
    try:
        with reading_from(path, READ_ALL):
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
        facts = json.loads((table.schema.metadata or {})[METADATA])
        if not table.schema.equals(STAMP_SCHEMA) or facts[CHECKSUM] != _checksum(table):
            raise ValueError("wrong checksum")
    except (pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", READ_ALL) from error
    return table


def _checksum(table: pa.Table) -> str:
    """Return a hash of all values; the checksums of Parquet do not cover its footer."""
    digest = hashlib.sha256("\0".join(table.column("path").to_pylist()).encode("utf-8", "surrogatepass"))
    for column in table.select(("ctime_ns", "inode")).columns:
        digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()
