"""The rows of a part that are no longer valid: few are listed in the manifest, more are a bitmap in a file."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.store.checked import checked
from vggsearch.store.files import FileHash, write_atomically
from vggsearch.system.reading import reading_from

MOST_ROWS = 100_000_000  # of a part: a crafted number must not exhaust the memory
LISTED = 64  # dead rows of a part that the manifest lists, at most; the fingerprint of rows depends on it
ROWS, FILE = "dead", "dead_file"  # in the manifest


@dataclass(frozen=True)
class DeadRows:
    """A set of rows: bit 0 of the first byte is row 0, and the last byte is not 0. It is empty without bytes."""

    bits: bytes = b""

    @classmethod
    def of(cls, rows: "Iterable[int] | NDArray[np.int64]") -> "DeadRows":
        """Return a set of rows, each below MOST_ROWS."""
        numbers = np.fromiter(rows, np.int64)
        if not len(numbers):
            return cls()
        are = np.zeros(numbers.max() + 1, bool)
        are[numbers] = True
        return cls(np.packbits(are, bitorder="little").tobytes())

    @cached_property
    def _count(self) -> int:
        return int(np.unpackbits(np.frombuffer(self.bits, np.uint8)).sum(dtype=np.int64))

    def __len__(self) -> int:
        """Return the number of dead rows."""
        return self._count

    def __or__(self, other: "DeadRows") -> "DeadRows":
        """Return the rows of both sets."""
        longer, shorter = sorted((self.bits, other.bits), key=len, reverse=True)
        both = np.frombuffer(longer, np.uint8).copy()
        both[: len(shorter)] |= np.frombuffer(shorter, np.uint8)
        return DeadRows(both.tobytes())

    @property
    def rows(self) -> NDArray[np.int64]:
        """The dead rows, ascending: int64 (n,)."""
        return np.flatnonzero(np.unpackbits(np.frombuffer(self.bits, np.uint8), bitorder="little"))

    @property
    def last(self) -> int:
        """The last dead row, -1 if there is none."""
        return 8 * len(self.bits) - 9 + self.bits[-1].bit_length() if self.bits else -1

    def live(self, rows: int) -> NDArray[np.bool_]:
        """Return which of the rows of a part are not dead: bool (rows,)."""
        is_live, dead = np.ones(rows, bool), self.rows
        is_live[dead[dead < rows]] = False
        return is_live

    @cached_property
    def as_file(self) -> FileHash:
        """The file that holds the rows, or would: named by its content."""
        sha256 = hashlib.sha256(self.bits).hexdigest()
        return FileHash(f"dead-{sha256}.bits", len(self.bits), sha256)

    @property
    def file(self) -> FileHash | None:
        """The file that holds the rows, None if they are few: the manifest then lists them."""
        return self.as_file if len(self) > LISTED else None

    @property
    def key(self) -> str | list[int]:
        """What identifies the rows: the hash of their file, or the rows that the manifest lists."""
        file = self.file
        return self.rows.tolist() if file is None else file.sha256

    def to_json(self) -> dict[str, Any]:
        """Return the rows as the manifest records them."""
        file = self.file
        return {ROWS: [] if file else self.rows.tolist(), FILE: asdict(file) if file else None}

    def write(self, folder: Path) -> None:
        """Write the file that holds the rows, if there is one and it is not there. Raises IndexNotWritable."""
        file = self.file
        if file is not None and not (folder / file.name).exists():
            write_atomically(folder / file.name, partial(_write, bits=self.bits))


ALL_LIVE = DeadRows()


def read_dead(values: dict[str, Any], folder: Path) -> DeadRows:
    """Return the dead rows that a manifest records, from their file in `folder` if need be.

    Raises IndexDamaged for a file that is missing or damaged; ValueError, TypeError or KeyError for the record.
    """
    if values[FILE] is None:
        return listed(values[ROWS])
    file = checked(FileHash, values[FILE])
    if values[ROWS] or not 0 < file.bytes <= MOST_ROWS // 8:
        raise ValueError(f"{file.name} cannot hold the dead rows")
    path = file.check(folder)
    with reading_from(path):
        dead = DeadRows(path.read_bytes())
    if dead.as_file != file or not dead.bits[-1]:
        raise IndexDamaged(path, "does not hold the dead rows of a part")
    return dead


def listed(rows: object) -> DeadRows:
    """Return the dead rows that a manifest lists. Raises TypeError or ValueError for what is no list of rows."""
    if type(rows) is not list or not all(type(row) is int for row in rows):
        raise TypeError("the dead rows are no list of numbers")
    if not all(0 <= row < MOST_ROWS for row in rows):
        raise ValueError(f"no part has {MOST_ROWS:,} rows or more")
    return DeadRows.of(rows)


def fingerprint_of(embedding: dict[str, Any], parts: Iterable[tuple[str, str, DeadRows]]) -> str:
    """Return the hash that identifies rows, by the embedding, and name, SHA-256 and dead rows of each part."""
    state = [embedding, [(name, sha256, dead.key) for name, sha256, dead in parts]]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def is_dead_file(path: Path) -> bool:
    """Return whether a file is one that holds dead rows."""
    return path.suffix == ".bits" and path.name.startswith("dead-")


def _write(path: Path, bits: bytes) -> None:
    path.write_bytes(bits)
