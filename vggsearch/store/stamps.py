"""stamps.parquet: change time and inode of each file as it was last read, to notice edits that keep size and time.

A program may change a file in place and set its modification time back, as exiftool -P does; the system then still
records when the file was changed. The file is derived: without it, only reading all photos finds such an edit.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vggsearch.errors import IndexDamaged, option, spelled
from vggsearch.photos.walk import Stamp
from vggsearch.store.arrow import numbers, positions, texts
from vggsearch.store.contents import STAMPS
from vggsearch.store.files import write_atomically
from vggsearch.store.manifest import CHECKSUM
from vggsearch.store.parts import METADATA
from vggsearch.store.paths import Paths, arrow_paths
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


AT_ONCE = 1 << 16  # stamps that are read at once


def table_of(stamps: Mapping[str, Stamp]) -> pa.Table:
    """Return stamps of files by path as a table of STAMP_SCHEMA."""
    columns = [list(stamps), *([stamp[place] for stamp in stamps.values()] for place in (0, 1))]
    return pa.table(columns, STAMP_SCHEMA)


def write_stamps(directory: Path, table: pa.Table) -> None:
    """Write the stamps of files into the index. Raises IndexNotWritable."""
    facts = json.dumps({CHECKSUM: _checksum(table)}).encode("ascii")
    write_atomically(
        directory / STAMPS,
        lambda path: pq.write_table(
            table.replace_schema_metadata({METADATA: facts}),
            path,
            compression="zstd",
            use_dictionary=False,
            write_page_checksum=True,
            row_group_size=AT_ONCE,
        ),
    )


def renew_stamps(directory: Path, new: Mapping[str, Stamp], live: Paths, skipped: Iterable[str]) -> None:
    """Record `new` stamps, and forget those of files that are neither `live` photos nor `skipped`.

    Those of photos come first, mostly in row order, so that they are soon found again.
    """
    recorded, others = read_stamps(directory), arrow_paths(skipped)
    is_old = pc.is_in(recorded.column("path"), value_set=arrow_paths(new))
    table = pa.concat_tables([recorded.filter(pc.invert(is_old)), table_of(new)])
    known = pa.chunked_array([*live.to_arrow().chunks, others], pa.string())
    table = table.filter(pc.is_in(table.column("path"), value_set=known))
    is_other = pc.is_in(table.column("path"), value_set=others)
    table = pa.concat_tables([table.filter(pc.invert(is_other)), table.filter(is_other)])
    if not table.equals(recorded):
        write_stamps(directory, table)


def forget_stamps(directory: Path, paths: Iterable[str]) -> None:
    """Forget the stamps of some files. Raises IndexNotWritable."""
    recorded = read_stamps(directory)
    kept = recorded.filter(pc.invert(pc.is_in(recorded.column("path"), value_set=arrow_paths(paths))))
    if len(kept) < len(recorded):
        write_stamps(directory, kept)


def read_stamps(*directories: Path) -> pa.Table:
    """Return the stamps in indexes, as they were when the files were read; none from a damaged file."""
    return pa.Table.from_batches(chain.from_iterable(map(stamp_batches, directories)), STAMP_SCHEMA)


def stamp_batches(directory: Path) -> Iterator[pa.RecordBatch]:
    """Yield the stamps of files in batches, so that they are not all in memory; none if the file is damaged."""
    path = directory / STAMPS
    if not path.exists():
        return
    try:
        check_stamps(path)
    except IndexDamaged as error:
        log.warning("%s", error)
        return
    with reading_from(path, READ_ALL), _opened(path) as file:
        yield from (batch.replace_schema_metadata() for batch in file.iter_batches(AT_ONCE, use_threads=False))


def check_stamps(path: Path) -> None:
    """Raise IndexDamaged if even a single bit of a file has changed, and IndexNotReadable."""
    try:
        with reading_from(path, READ_ALL), _opened(path) as file:
            schema = file.schema_arrow
            facts = json.loads((schema.metadata or {})[METADATA])
            if not schema.equals(STAMP_SCHEMA) or facts[CHECKSUM] != _checksum(file):
                raise ValueError("wrong checksum")
    except (pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", READ_ALL) from error


def _opened(path: Path) -> pq.ParquetFile:
    """Open a file to be read in batches; a buffer for whole columns would take more memory than what is kept."""
    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def _checksum(stamps: "pa.Table | pq.ParquetFile") -> str:
    """Return a hash of all values; the checksums of Parquet do not cover its footer."""
    digest, between = hashlib.sha256(), texts(["\0"])[0]
    for number, paths in enumerate(_chunks(stamps, "path")):
        paths.validate(full=True)
        digest.update(b"\0" * (number > 0))
        whole = pa.LargeListArray.from_arrays(positions(np.array([0, len(paths)])), paths)
        digest.update(pc.binary_join(whole, between)[0].as_buffer())
    for name in ("ctime_ns", "inode"):
        for values in _chunks(stamps, name):
            digest.update(numbers(values).data)
    return digest.hexdigest()


def _chunks(stamps: "pa.Table | pq.ParquetFile", name: str) -> Iterator[pa.Array]:
    """Yield one column, in pieces that are not empty."""
    columns = [name]
    batches = (
        stamps.select(columns).to_batches(AT_ONCE)
        if isinstance(stamps, pa.Table)
        else stamps.iter_batches(AT_ONCE, columns=columns, use_threads=False)
    )
    return (batch.column(0) for batch in batches if len(batch))
