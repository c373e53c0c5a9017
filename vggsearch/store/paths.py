"""The paths of all photos, by row, as Arrow holds them: opening a million makes no million strings."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import pyarrow as pa


class Paths(Sequence[str]):
    """Paths in row order. A string is made when it is asked for; one path is looked for among all without any."""

    def __init__(self, columns: Iterable[pa.ChunkedArray]) -> None:
        chunks = [chunk for column in columns for chunk in column.chunks]
        self._paths = pa.chunked_array(chunks, pa.string())

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self._paths)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Return the path of a row, or those of some rows. Raises IndexError."""
        found = self._paths[row]
        text: str | list[str] = found.to_pylist() if isinstance(row, slice) else found.as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        """Yield all paths."""
        for chunk in self._paths.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        """Say whether these are the same paths in the same order, in whatever kind of sequence."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, path: object) -> bool:
        """Say whether a path is one of these."""
        return isinstance(path, str) and self._paths.index(path).as_py() >= 0

    def index(self, path: str, start: int = 0, stop: int | None = None) -> int:
        """Return the row of a path. Raises ValueError where it is none of these."""
        row: int = self._paths.index(path, start=start, end=len(self) if stop is None else stop).as_py()
        if row < 0:
            raise ValueError(f"{path!r} is not the path of a photo")
        return row
