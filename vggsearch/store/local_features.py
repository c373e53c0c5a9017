"""Local features on disk: cells and region vectors, keyed by the content of a photo. Derived, and optional.

Each commit writes one folder, which never changes: `keys.npy`, the SHA-256 of each photo, sorted, so that ten are
found among a million without reading all; `cells.npy`, the cells; `regions.npy`, the region vectors. Earlier
versions stored cells of the photo at half its size behind these, which are not read.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged
from vggsearch.store.contents import LOCAL_FEATURE_FILES
from vggsearch.store.files import FileHash, check_name
from vggsearch.system.arrays import map_array

KEYS, CELLS, REGIONS = LOCAL_FEATURE_FILES
DTYPES = {KEYS: np.dtype("S64"), CELLS: np.dtype(np.int8), REGIONS: np.dtype(np.int8)}
ROWS = 4096  # photos per folder; 46 MB with the packaged weights


@dataclass(frozen=True)
class LocalPart:
    """One folder of local features: its name, its files, and the number of photos in it."""

    name: str
    files: tuple[FileHash, ...]
    rows: int

    def __post_init__(self) -> None:
        """Raise ValueError for a name that points to another folder, and for no rows."""
        check_name(self.name)
        if self.rows < 1:
            raise ValueError(f"the local features {self.name} are of no photo")


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """The stored features of one photo, int8: cells (cells * dimensions,) and region vectors (30, dimensions)."""

    cells: NDArray[np.int8]
    regions: NDArray[np.int8]


class LocalStore:
    """The local features of one state of an index, memory-mapped from the parts in `folder`.

    The hash of a file is checked before its first use, unless it is large. `intact` holds those that were checked,
    and is shared with later states. A photo has so many `cells`.
    """

    def __init__(self, folder: Path, parts: Sequence[LocalPart], cells: int, intact: set[FileHash]) -> None:
        self._folder, self._parts, self._cells, self._intact = folder, parts, cells, intact

    def find(self, sha256s: Sequence[str]) -> list[StoredFeatures | None]:
        """Return the features of photos, in order; None for photos without stored features. Raises IndexDamaged."""
        found: list[StoredFeatures | None] = [None] * len(sha256s)
        wanted = _as_keys(sha256s)
        for part in self._parts:
            keys = self.keys(part)
            rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            held = np.flatnonzero(keys[rows] == wanted).tolist()
            if held:  # else the other files of the part need not be checked
                features = self._features(part)
                for index in held:
                    found[index] = features(rows[index])
        return found

    def all_keys(self) -> set[str]:
        """Return the SHA-256 of all photos with stored features."""
        return {key for part in self._parts for key in _as_text(self.keys(part))}

    def regions(self) -> Iterator[tuple[list[str], NDArray[np.int8]]]:
        """Yield the keys and the region vectors (n, regions, d) of each part."""
        for part in self._parts:
            yield _as_text(self.keys(part)), self._map(part, REGIONS)

    def features(self, keys: Collection[str]) -> Iterator[tuple[str, StoredFeatures]]:
        """Yield the stored features of these photos. Raises IndexDamaged for a file with a wrong hash."""
        for part in self._parts:
            for file in part.files:
                file.check(self._folder / part.name)
            features = self._features(part)
            for row, key in enumerate(_as_text(self.keys(part))):
                if key in keys:
                    yield key, features(row)

    def keys(self, part: LocalPart) -> NDArray[np.bytes_]:
        """Return the keys of a part, sorted. Raises IndexDamaged."""
        return self._map(part, KEYS)

    def _features(self, part: LocalPart) -> Callable[[int], StoredFeatures]:
        """Return a function from a row of a part to its features. Raises IndexDamaged."""
        cells, regions = self._map(part, CELLS), self._map(part, REGIONS)
        numbers = self._cells * regions.shape[-1]
        if cells.ndim != 2 or regions.ndim != 3 or cells.shape[1] < numbers:
            raise IndexDamaged(
                self._folder / part.name / CELLS,
                f"has the shape {cells.shape}: a photo has {self._cells} cells of {regions.shape[-1]} numbers",
            )
        return lambda row: StoredFeatures(cells[row, :numbers], regions[row])

    def _map(self, part: LocalPart, name: str) -> NDArray[Any]:
        folder = self._folder / part.name
        for file in part.files:
            if file.name == name:
                self._check(file, folder)
        array = map_array(folder / name)
        if array.dtype != DTYPES[name] or array.ndim < 1:
            raise IndexDamaged(folder / name, f"holds {array.dtype}, not {DTYPES[name]}")
        if len(array) != part.rows:
            raise IndexDamaged(folder / name, f"has {len(array):,} rows, but the manifest says {part.rows:,}")
        return array

    def _check(self, file: FileHash, folder: Path) -> None:
        if file.bytes > BUILD.hashed_bytes or file in self._intact:
            file.check_size(folder)
        else:
            file.check(folder)
            self._intact.add(file)


def write_local(folder: Path, features: Mapping[str, StoredFeatures]) -> None:
    """Write the features of photos, by SHA-256, into an empty folder."""
    keys = sorted(features)
    np.save(folder / KEYS, _as_keys(keys), allow_pickle=False)
    np.save(folder / CELLS, np.stack([features[key].cells for key in keys]), allow_pickle=False)
    np.save(folder / REGIONS, np.stack([features[key].regions for key in keys]), allow_pickle=False)


def _as_keys(sha256s: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([sha256.encode("ascii") for sha256 in sha256s], dtype="S64")


def _as_text(keys: NDArray[np.bytes_]) -> list[str]:
    return [key.decode("ascii", "replace") for key in keys.tolist()]  # a damaged one is that of no photo
