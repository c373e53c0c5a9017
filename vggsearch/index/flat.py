"""Exact search: FAISS flat inner product over unit rows, and the float16 vectors that give exact similarities."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.index.library import faiss
from vggsearch.index.vectors import unit_rows
from vggsearch.index.whitening import Whitening

RECIPE = "flat"
INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
STEP = 4096  # rows that are compared at once, to bound memory
ROUNDING = 2**-10  # between a float16 vector and the same one computed on another machine


class FlatIndex:
    """Vectors by row: the embeddings, whitened where the collection has a whitening.

    `similarity` is the cosine of two such vectors: 1.0 the same direction, larger is nearer. Queries are plain
    embeddings. The FAISS file takes them too, since it holds the whitening as its pre-transform.
    """

    def __init__(self, index: Any, vectors: NDArray[np.float16], whitening: Whitening | None) -> None:
        self._index = index
        self._vectors = vectors
        self._whitening = whitening

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._vectors)

    @property
    def whitening(self) -> Whitening | None:
        """How embeddings become its vectors, None where they are their own."""
        return self._whitening

    @classmethod
    def build(
        cls, blocks: Iterable[NDArray[np.float16]], dim: int, whitening: Whitening | None = None
    ) -> "FlatIndex":
        """Build in memory from blocks of float16 embeddings (rows, dim), in row order."""
        size = whitening.dim if whitening is not None else dim
        flat = faiss().IndexFlatIP(size)
        kept = [np.empty((0, size), np.float16)]
        for some in _steps(blocks):
            vectors = _vectors(some, whitening)
            flat.add(unit_rows(vectors))
            kept.append(vectors)
        return cls(_with_whitening(flat, whitening), np.concatenate(kept), whitening)

    @classmethod
    def open(cls, directory: Path, rows: int, dim: int) -> "FlatIndex":
        """Open what `save` wrote, memory-mapped. Raises IndexDamaged where it is not of `rows` x `dim`."""
        index = _read_index(directory)
        try:
            vectors = np.load(directory / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise IndexDamaged(directory, f"cannot be opened ({error})") from error
        whitening = _read_whitening(index)
        size = whitening.dim if whitening is not None else dim
        if (index.ntotal, index.d) != (rows, dim) or vectors.shape != (rows, size) or vectors.dtype != np.float16:
            raise IndexDamaged(
                directory,
                f"holds {index.ntotal} x {index.d} in {INDEX_FILE} and {vectors.shape} {vectors.dtype} "
                f"in {VECTORS_FILE}; the manifest says {rows} x {dim}",
            )
        return cls(index, vectors, whitening)

    @staticmethod
    def whitening_in(directory: Path) -> Whitening | None:
        """Return the whitening of what `save` wrote, whatever its rows. Raises IndexDamaged."""
        return _read_whitening(_read_index(directory))

    def save(self, directory: Path) -> None:
        """Write the two files into the empty folder `directory`. Raises OSError, as for a full disk."""
        try:
            faiss().write_index(self._index, str(directory / INDEX_FILE))
        except RuntimeError as error:  # FAISS knows no other
            raise OSError(str(error).splitlines()[0]) from error
        np.save(directory / VECTORS_FILE, self._vectors, allow_pickle=False)

    def first_difference(self, blocks: Iterable[NDArray[np.float16]]) -> int | None:
        """Return the first row that is not that of the embeddings, float16 (rows, dim) blocks in row order."""
        row = 0
        for some in _steps(blocks):
            found = self._flat.reconstruct_n(row, len(some))
            kept, wanted = self._vectors[row : row + len(some)], _vectors(some, self._whitening)
            same = _is_near(kept, wanted) & _is_near(found, unit_rows(wanted))
            if not same.all():
                return row + int(np.argmin(same))
            row += len(some)
        return None

    def nearest(self, query: NDArray[np.float32], count: int, without: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows most like one unit embedding, float32 (dim,), nearest first: `count`, or all if fewer.

        The rows in `without`, int64, are passed over.
        """
        count = min(count, len(self) - len(without))
        if count == 0:
            return np.empty(0, np.int64)
        parameters = None
        if len(without):
            selected = faiss().IDSelectorNot(faiss().IDSelectorBatch(without))
            parameters = faiss().SearchParameters(sel=selected)
        _, rows = self._flat.search(self.searched(query[None]), count, params=parameters)
        nearest: NDArray[np.int64] = rows[0]
        return nearest

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of one unit embedding, float32 (dim,), with each of the rows."""
        exact: NDArray[np.float32] = self.unit_vectors(rows) @ self.searched(query[None])[0]
        return exact

    def unit_vectors(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return the vectors of some rows, float32, of unit length: their products are similarities."""
        return unit_rows(self._vectors[rows])

    def searched(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return embeddings (n, dim) as the vectors of this index: float32, rows of unit length."""
        return embeddings if self._whitening is None else self._whitening.apply(embeddings)

    @property
    def _flat(self) -> Any:
        return self._index if self._whitening is None else faiss().downcast_index(self._index.index)


def _steps(blocks: Iterable[NDArray[np.float16]]) -> Iterator[NDArray[np.float16]]:
    for block in blocks:
        yield from np.split(block, range(STEP, len(block), STEP))


def _vectors(embeddings: NDArray[np.float16], whitening: Whitening | None) -> NDArray[np.float16]:
    return embeddings if whitening is None else whitening.apply(embeddings).astype(np.float16)


def _is_near(some: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Say of each row whether all its numbers are the same but for rounding; NaN is not."""
    near = np.abs(some.astype(np.float32) - others) <= ROUNDING
    return np.asarray(near.all(axis=1))


def _with_whitening(flat: Any, whitening: Whitening | None) -> Any:
    """Return the FAISS index that whitens first; it keeps what it is made of alive."""
    if whitening is None:
        return flat
    index = faiss().IndexPreTransform(flat)
    for transform in reversed(whitening.chain()):
        index.prepend_transform(transform)
    return index


def _read_index(directory: Path) -> Any:
    """Return the FAISS index, memory-mapped. Raises IndexDamaged."""
    library = faiss()
    try:
        return library.read_index(str(directory / INDEX_FILE), library.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:  # FAISS knows no other
        raise IndexDamaged(directory, f"cannot be opened ({str(error).splitlines()[0]})") from error


def _read_whitening(index: Any) -> Whitening | None:
    """Return the whitening that an opened FAISS file holds, if it holds one."""
    library = faiss()
    if not isinstance(index, library.IndexPreTransform):
        return None
    linear = library.downcast_VectorTransform(index.chain.at(0))
    matrix = library.vector_to_array(linear.A).reshape(linear.d_out, linear.d_in)
    return Whitening(matrix, library.vector_to_array(linear.b))
