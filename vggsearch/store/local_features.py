"""Local features on disk: cells and region vectors, by the bytes of a photo. Derived, and kept only where asked.

One folder a commit, never written twice: `keys.npy`, the sha256 of each photo, ascending, so that ten are found
in a million without reading them all; `cells.npy`, the cells of both sizes; `regions.npy`, the region vectors.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.store.files import FileHash

KEYS, CELLS, REGIONS = "keys.npy", "cells.npy", "regions.npy"
ROWS = 4096  # of one folder; 55 MB with the packaged weights


@dataclass(frozen=True)
class LocalPart:
    """One folder of local features: its name, its files, and of how many photos they are."""

    name: str
    files: tuple[FileHash, ...]
    rows: int

    def __post_init__(self) -> None:
        """Raise ValueError for a name that leads to another folder."""
        if Path(self.name).name != self.name:
            raise ValueError(f"the folder name {self.name!r} leaves the index")


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """What is kept of one photo: the cells of both sizes, one after the other, and its region vectors, int8."""

    cells: NDArray[np.int8]
    regions: NDArray[np.int8]


class LocalStore:
    """All local features of one state, memory-mapped: the parts in `folder`."""

    def __init__(self, folder: Path, parts: Sequence[LocalPart]) -> None:
        self._folder, self._parts = folder, parts

    def find(self, sha256s: Sequence[str]) -> list[StoredFeatures | None]:
        """Return what is kept of some photos, in order; None for each of which nothing is. Raises IndexDamaged."""
        found: list[StoredFeatures | None] = [None] * len(sha256s)
        wanted = _as_keys(sha256s)
        for part in self._parts:
            keys = self.keys(part)
            places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            for number in np.flatnonzero(keys[places] == wanted).tolist():
                row = places[number]
                found[number] = StoredFeatures(self._map(part, CELLS)[row], self._map(part, REGIONS)[row])
        return found

    def held(self) -> set[str]:
        """Return the photos of which something is kept."""
        return {key for part in self._parts for key in _as_text(self.keys(part))}

    def regions(self) -> Iterator[tuple[list[str], NDArray[np.int8]]]:
        """Yield the keys and the region vectors (n, regions, d) of each part."""
        for part in self._parts:
            yield _as_text(self.keys(part)), self._map(part, REGIONS)

    def features(self, keys: Collection[str]) -> Iterator[tuple[str, StoredFeatures]]:
        """Yield what is kept of those photos. Raises IndexDamaged for a file that is not as it was written."""
        for part in self._parts:
            for file in part.files:
                file.check(self._folder / part.name)
            cells, regions = self._map(part, CELLS), self._map(part, REGIONS)
            for row, key in enumerate(_as_text(self.keys(part))):
                if key in keys:
                    yield key, StoredFeatures(cells[row], regions[row])

    def keys(self, part: LocalPart) -> NDArray[np.bytes_]:
        """Return the keys of a part, ascending. Raises IndexDamaged."""
        return self._map(part, KEYS)

    def _map(self, part: LocalPart, name: str) -> NDArray[Any]:
        folder = self._folder / part.name
        for file in part.files:
            if file.name == name:
                file.check_size(folder)
        try:
            array: NDArray[Any] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise IndexDamaged(folder / name, f"cannot be opened ({error})") from error
        if len(array) != part.rows:
            raise IndexDamaged(folder / name, f"has {len(array):,} rows, the manifest says {part.rows:,}")
        return array


def write_local(folder: Path, features: Mapping[str, StoredFeatures]) -> None:
    """Write what is to be kept of some photos, by sha256, into an empty folder."""
    keys = sorted(features)
    np.save(folder / KEYS, _as_keys(keys), allow_pickle=False)
    np.save(folder / CELLS, np.stack([features[key].cells for key in keys]), allow_pickle=False)
    np.save(folder / REGIONS, np.stack([features[key].regions for key in keys]), allow_pickle=False)


def _as_keys(sha256s: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([sha256.encode("ascii") for sha256 in sha256s], dtype="S64")


def _as_text(keys: NDArray[np.bytes_]) -> list[str]:
    return [key.decode("ascii") for key in keys.tolist()]
