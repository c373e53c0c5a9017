"""A list of files, such as the inventory of a bucket, in place of a walk: Parquet with path, bytes, mtime, etag."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vggsearch.errors import OptionError, option
from vggsearch.photos.addresses import escaped_name, is_address, name_problem
from vggsearch.photos.walk import PhotoFile, Skipped, Stamp

COLUMNS = ("path", "bytes", "mtime")
ETAG = "etag"  # a column that may be missing


def listed_files(inventory: Path, root: Path) -> Iterator[PhotoFile | Skipped]:
    """Yield the files that an inventory lists, in its order. Paths are relative to the photo folder `root`.

    Of a folder on disk, only the paths are taken from it, and what is no longer there is left out. The stamp of an
    object is that of its ETag, None without one. Raises OptionError for a file that is no inventory, or lists a
    path twice.
    """
    for path, size, mtime_ns, *etag in _rows(inventory):
        problem = name_problem(path)
        if problem is not None:
            yield Skipped(escaped_name(path), problem, "bad name")
        elif is_address(root):
            yield PhotoFile(path, size, mtime_ns, *map(Stamp.of_etag, etag))
        else:
            yield from _on_disk(root, path)


def _on_disk(root: Path, path: str) -> Iterator[PhotoFile | Skipped]:
    try:
        status = os.lstat(root / path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Skipped(path, error.strerror or str(error), "unreadable")
        return
    yield PhotoFile(path, status.st_size, status.st_mtime_ns, Stamp.of(status))


def _rows(inventory: Path) -> Iterator[tuple[Any, ...]]:
    """Yield path, bytes, mtime_ns and, if it is there, ETag of each file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    # Times without a time zone are taken for UTC.
    types = {"path": pa.string(), "bytes": pa.int64(), "mtime": pa.timestamp("ns", "UTC"), ETAG: pa.string()}
    try:
        names = [*COLUMNS, *({ETAG} & set(pq.read_schema(inventory).names))]
        table = pq.read_table(inventory, columns=names)
        columns = [table.column(name).cast(types[name]) for name in names]
    except FileNotFoundError as error:
        raise OptionError(option("files", inventory), " does not exist.") from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _refused(inventory, f"is not a list of files: {str(error).splitlines()[0].rstrip('.')}") from error
    if any(column.null_count for column in columns):
        raise _refused(inventory, "has rows without a value")
    if pc.count_distinct(columns[0]).as_py() != len(table):
        raise _refused(inventory, "lists a path twice")
    if len(table) and pc.min(columns[1]).as_py() < 0:
        raise _refused(inventory, "has a negative number of bytes")
    columns[2] = columns[2].cast(pa.int64())
    for batch in pa.table(columns, names).to_batches(max_chunksize=65_536):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _refused(inventory: Path, problem: str) -> OptionError:
    return OptionError(
        option("files", inventory),
        f" {problem}. It needs the columns path (text), bytes (whole numbers) and mtime (times), each path once, "
        "and may have etag (text).",
    )
