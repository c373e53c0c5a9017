"""Errors of reading a file of an index: damage, or a file that may be intact."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vggsearch.errors import IndexDamaged, IndexNotReadable, Spelled

SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # of the process or the system: no fault of the file


@contextmanager
def reading_from(path: Path, *way_out: str | Spelled) -> Iterator[None]:
    """Raise IndexDamaged for a missing file or an I/O error, IndexNotReadable if the file itself may be intact.

    `way_out` is what to do about damage; by default, repair the index. An OSError for lack of memory or file
    descriptors is raised as it is.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise IndexDamaged(path, "is missing, but the manifest lists it", *way_out) from error
    except OSError as error:
        if error.errno in SCARCE:
            raise
        # The Parquet reader raises an OSError without errno for an invalid file.
        if error.errno not in (None, errno.EIO):
            raise IndexNotReadable(
                f"{path} cannot be read ({error.strerror}). Check that its disk is mounted and readable for you."
            ) from error
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", *way_out) from error
