"""Exact search: FAISS flat inner product over unit rows, and the float16 vectors that give exact similarities."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.index.library import faiss

RECIPE = "flat"
INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
SMALLEST_NORM = 1e-12
STEP = 4096  # rows that are compared at once, to bound memory


class FlatIndex:
    """Vectors by row. `similarity` is the cosine: 1.0 the same direction, larger is nearer."""

    def __init__(self, index: Any, vectors: NDArray[np.float16]) -> None:
        self._index = index
        self._vectors = vectors

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._vectors)

    @classmethod
    def build(cls, blocks: Iterable[NDArray[np.float16]], dim: int) -> "FlatIndex":
        """Build in memory from blocks of float16 (rows, dim), in row order."""
        index = faiss().IndexFlatIP(dim)
        kept = [np.empty((0, dim), np.float16)]
        for block in blocks:
            index.add(unit_rows(block))
            kept.append(block)
        return cls(index, np.concatenate(kept))

    @classmethod
    def open(cls, directory: Path, rows: int, dim: int) -> "FlatIndex":
        """Open what `save` wrote, memory-mapped. Raises IndexDamaged where it is not `rows` x `dim`."""
        library = faiss()
        try:
            index = library.read_index(str(directory / INDEX_FILE), library.IO_FLAG_MMAP_IFC)
            vectors = np.load(directory / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, RuntimeError) as error:
            first_line = str(error).splitlines()[0]
            raise IndexDamaged(directory, f"cannot be opened ({first_line})") from error
        if (index.ntotal, index.d) != (rows, dim) or vectors.shape != (rows, dim) or vectors.dtype != np.float16:
            raise IndexDamaged(
                directory,
                f"holds {index.ntotal} x {index.d} in {INDEX_FILE} and {vectors.shape} {vectors.dtype} "
                f"in {VECTORS_FILE}; the manifest says {rows} x {dim}",
            )
        return cls(index, vectors)

    def save(self, directory: Path) -> None:
        """Write the two files into the empty folder `directory`. Raises OSError, as for a full disk."""
        try:
            faiss().write_index(self._index, str(directory / INDEX_FILE))
        except RuntimeError as error:  # FAISS knows no other
            raise OSError(str(error).splitlines()[0]) from error
        np.save(directory / VECTORS_FILE, self._vectors, allow_pickle=False)

    def first_difference(self, blocks: Iterable[NDArray[np.float16]]) -> int | None:
        """Return the first row that is not that of the blocks, float16 (rows, dim) together in row order."""
        row = 0
        for block in blocks:
            for some in np.split(block, range(STEP, len(block), STEP)):
                found = self._index.reconstruct_n(row, len(some))
                same = (self._vectors[row : row + len(some)] == some) & (found == unit_rows(some))
                if not same.all():
                    return row + int(np.argmin(same.all(axis=1)))
                row += len(some)
        return None

    def nearest(self, query: NDArray[np.float32], count: int, without: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows most like one unit query, float32 (dim,), nearest first: `count`, or all if fewer.

        The rows in `without`, int64, are passed over.
        """
        count = min(count, len(self) - len(without))
        if count == 0:
            return np.empty(0, np.int64)
        parameters = None
        if len(without):
            selected = faiss().IDSelectorNot(faiss().IDSelectorBatch(without))
            parameters = faiss().SearchParameters(sel=selected)
        _, rows = self._index.search(np.ascontiguousarray(query[None]), count, params=parameters)
        nearest: NDArray[np.int64] = rows[0]
        return nearest

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of one unit query, float32 (dim,), with each of the rows."""
        exact: NDArray[np.float32] = unit_rows(self._vectors[rows]) @ query
        return exact


def unit_rows(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the rows scaled to unit length, float32; float16 rounding had left them a little off it."""
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, SMALLEST_NORM)
    return unit
