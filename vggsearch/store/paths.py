"""The paths of all photos by row, held by Arrow: opening a million of them creates no Python strings."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vggsearch.photos.walk import printable
from vggsearch.store.arrow import numbers, positions, texts


def arrow_paths(paths: Iterable[str]) -> pa.Array:
    """Return paths as an Arrow array, without those that no part can hold: their bytes are not UTF-8."""
    return texts([path for path in paths if path == printable(path)])


class Paths(Sequence[str]):
    """Paths in row order. Strings are created on access; searching for a path creates none."""

    def __init__(self, columns: Iterable[pa.ChunkedArray]) -> None:
        chunks = [chunk for column in columns for chunk in column.chunks]
        self._paths = pa.chunked_array(chunks, pa.string())

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self._paths)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Return the path of a row, or the paths of a slice of rows. Raises IndexError."""
        value = self._paths[row]
        text: str | list[str] = value.to_pylist() if isinstance(row, slice) else value.as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        """Yield all paths in row order."""
        for chunk in self._paths.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence, of any type, holds the same paths in the same order."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, path: object) -> bool:
        """Return whether a path is among these."""
        return isinstance(path, str) and self._first(self._paths, path) is not None

    def index(self, path: str, start: int = 0, stop: int | None = None) -> int:
        """Return the row of a path. Raises ValueError if it is not among these."""
        first, last, _ = slice(start, stop).indices(len(self))
        row = self._first(self._paths.slice(first, max(0, last - first)), path)
        if row is None:
            raise ValueError(f"{path!r} is not the path of a photo")
        return first + row

    @staticmethod
    def _first(paths: pa.ChunkedArray, path: str | None) -> int | None:
        """Return the first place of a path among others, None if it is not there."""
        wanted = arrow_paths([path] if path is not None else [])
        found = pc.call_function("index", [paths], pc.IndexOptions(wanted[0])).as_py() if len(wanted) else -1
        return found if found >= 0 else None

    def rows_among(self, wanted: Iterable[str]) -> dict[str, int]:
        """Return the row of each wanted path that is among these, in row order."""
        names = arrow_paths(wanted)
        if not len(names):
            return {}
        rows = pc.indices_nonzero(pc.is_in(self._paths, value_set=names))
        return dict(zip(self._paths.take(rows).to_pylist(), rows.to_pylist(), strict=True))

    def are_directly_in(self, folder: str) -> NDArray[np.bool_]:
        """Return which paths are in a folder, "" for the photo folder itself, and in no folder below: bool (n,)."""
        are = np.zeros(len(self), bool)
        prefix = f"{folder}/" if folder else ""
        rows = pc.indices_nonzero(pc.starts_with(self._paths, prefix))
        depths = numbers(pc.count_substring(self._paths.take(rows), "/"))
        are[numbers(pa.chunked_array([rows]))[depths == prefix.count("/")]] = True
        return are

    def joined_by(self, separator: str) -> str:
        """Return all paths as one text."""
        chunks = (chunk for chunk in self._paths.chunks if len(chunk))
        between = texts([separator])[0]
        wholes = (
            pa.ListArray.from_arrays(positions(np.array([0, len(chunk)])).cast(pa.int32()), chunk)
            for chunk in chunks
        )
        return separator.join(pc.binary_join(whole, between)[0].as_py() for whole in wholes)

    def to_arrow(self) -> pa.ChunkedArray:
        """Return the paths as an Arrow array."""
        return self._paths

    @classmethod
    def joined(cls, several: Iterable["Paths"]) -> "Paths":
        """Return the paths of several stores, one after the other."""
        return cls(paths._paths for paths in several)

    def repeated(self) -> list[str]:
        """Return the paths that occur more than once, sorted."""
        counts = pc.value_counts(self._paths)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        return sorted(twice.field("values").to_pylist())
