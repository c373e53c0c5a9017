"""What a place to publish to has to do: PostgreSQL (`postgres`) and LanceDB (`lance`) do it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vggsearch.errors import InstallationError, OptionError
from vggsearch.published.state import Record, Stamp, State
from vggsearch.query.filters import Filter
from vggsearch.system.installation import distribution

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
EXAMPLES = "postgresql://SERVER/DATABASE, lance+s3://BUCKET/NAME or lance+file:///FOLDER/NAME"
EXACT_ROWS = 10_000  # up to as many photos are compared one by one, which takes milliseconds


@dataclass(frozen=True)
class Wanted:
    """Which photos may be found: those that pass the filters and are not directly in a folder of `without`."""

    filters: tuple[Filter, ...] = ()
    without: frozenset[str] = frozenset()

    @property
    def is_all(self) -> bool:
        """Whether all may."""
        return not (self.filters or self.without)


@dataclass(frozen=True)
class Found:
    """Photos that were found: paths, perceptual hashes, None if unknown, and vectors, float16 (n, dim)."""

    paths: Sequence[str]
    hashes: Sequence[bytes | None]
    vectors: NDArray[np.float16]


class Writer(Protocol):
    """One publish, of which readers see nothing until `commit`; without it, everything stays as it was."""

    record: Record | None

    def begin(self, dim: int) -> None:
        """Begin a new table for vectors of `dim` dimensions."""

    def add(self, photos: Iterable[pa.Table]) -> int:
        """Add photos, or replace those that differ from what is there; return how many."""

    def remove(self, paths: Sequence[str]) -> int:
        """Remove photos; return how many were there."""

    def keep_only(self, paths: Iterable[Sequence[str]]) -> int:
        """Remove all photos but these, which are named in blocks; return how many."""

    def count(self) -> int:
        """Return the number of photos."""

    def lost(self) -> int:
        """Return how many photos of the last table are not in the new one."""

    def commit(self, state: State) -> None:
        """Make the state and the photos visible to readers, at once."""


class Table(Protocol):
    """A place where an index is published. Threads share it. All calls raise PublishError."""

    shown: str
    """The URL without what is secret in it."""

    def writing(self) -> AbstractContextManager[Writer]:
        """Start to publish. Raises PublishError while another process does."""

    def stamp(self) -> Stamp | None:
        """Return which photos are published now, None if none are."""

    def record(self) -> Record | None:
        """Return the state, None if nothing is published."""

    def counts(self, stamp: Stamp, wanted: Wanted) -> tuple[int, int]:
        """Return how many photos are wanted, and how many of them are not blank."""

    def nearest(
        self, stamp: Stamp, vector: NDArray[np.float32], count: int, wanted: Wanted, *, exactly: bool
    ) -> Found:
        """Return the `count` wanted photos nearest to a vector, by an index or `exactly`, but for blank ones."""

    def above(self, stamp: Stamp, vector: NDArray[np.float32], floor: float, wanted: Wanted) -> Found:
        """Return all wanted photos whose similarity to a vector is `floor` or more, but for blank ones."""

    def at(self, stamp: Stamp, path: str, wanted: Wanted) -> Found:
        """Return the photo of this path if it is wanted."""

    def facts(self, stamp: Stamp, paths: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield rows.FACTS of the photos of these paths, or of all, in blocks and in any order."""

    def close(self) -> None:
        """Close the connection."""


def open_table(url: str) -> Table:
    """Return the place that a URL names, not yet connected. Raises OptionError and InstallationError."""
    try:
        if url.startswith(("postgresql://", "postgres://")):
            from vggsearch.published.postgres import PostgresTable

            return PostgresTable(url)
        if url.startswith("lance+"):
            from vggsearch.published.lance import LanceTable

            return LanceTable(url)
    except ImportError as error:
        extra = "postgres" if url.startswith("postgres") else "lance"
        raise InstallationError(
            f"Publishing to this place needs more packages. Install them: pip install '{distribution()}[{extra}]'"
        ) from error
    # Without the URL, which may hold a password.
    raise OptionError(f"This is no address of published photos. One is {EXAMPLES}.")


def check_name(name: str) -> str:
    """Return the name of a table. Raises OptionError, without the text, which may be a part of a password."""
    if not NAME.fullmatch(name):
        raise OptionError(
            "The name at the end of the URL is that of a table: up to 40 small letters, digits and _, the first a "
            "letter. A # in a password is written %23."
        )
    return name
