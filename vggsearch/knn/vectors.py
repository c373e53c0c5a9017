"""Unit vectors, whose dot product is the cosine similarity."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

SMALLEST_NORM = 1e-12
BLOCK_ROWS = 4096  # rows processed at once, to bound memory


def unit_rows(vectors: NDArray[np.floating[Any]] | NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the vectors along the last axis as float32 scaled to unit length; a zero vector stays zero.

    Stored vectors need it, too: rounding to float16 or int8 changes their length.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, SMALLEST_NORM)
    return unit


class StoredVectors:
    """Float16 vectors of several arrays (n, dim), read as if they were one array, one after the other.

    With `chosen`, int64, only these of them, in this order.
    """

    def __init__(self, arrays: Sequence[NDArray[np.float16]], chosen: NDArray[np.int64] | None = None) -> None:
        self._arrays, self._chosen = tuple(arrays), chosen
        self._starts = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        """Return the number of vectors."""
        return int(self._starts[-1]) if self._chosen is None else len(self._chosen)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of vectors and their dimensions."""
        return len(self), self._arrays[0].shape[1]

    @property
    def dtype(self) -> np.dtype[np.float16]:
        """The type of a value."""
        return self._arrays[0].dtype

    @property
    def itemsize(self) -> int:
        """The bytes of a value."""
        return self.dtype.itemsize

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the vectors of a range, or of an array of rows of any shape: float16 (*shape, dim)."""
        if self._chosen is not None:
            return self._at(self._chosen[rows])
        return self._within(rows) if isinstance(rows, slice) else self._at(rows)

    def _within(self, rows: slice) -> NDArray[np.float16]:
        start, stop, _ = rows.indices(len(self))
        pieces = [
            array[max(start - first, 0) : max(stop - first, 0)]
            for array, first in zip(self._arrays, self._starts.tolist(), strict=False)
        ]
        filled = [piece for piece in pieces if len(piece)] or pieces[:1]
        return filled[0] if len(filled) == 1 else np.concatenate(filled)

    def _at(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        rows = np.where(rows < 0, rows + self._starts[-1], rows)
        found = np.empty((*rows.shape, self.shape[1]), np.float16)
        owners = np.searchsorted(self._starts, rows, "right") - 1
        for owner in np.unique(owners).tolist():
            here = owners == owner
            found[here] = self._arrays[owner][rows[here] - self._starts[owner]]
        return found


Vectors: TypeAlias = NDArray[np.float16] | StoredVectors


def blocks_of(blocks: Iterable[Vectors], step: int = BLOCK_ROWS) -> Iterator[NDArray[np.float16]]:
    """Split blocks of rows into blocks of at most `step` rows."""
    for block in blocks:
        yield from (block[start : start + step] for start in range(0, len(block), step))
