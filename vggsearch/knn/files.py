"""The files of a vector index: the FAISS index, the float16 vectors, and the slot of each row."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.knn.faiss_import import FaissIndex, faiss
from vggsearch.knn.whitening import Whitening
from vggsearch.system.arrays import map_array
from vggsearch.system.reading import reading_from

INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
SLOTS_FILE = "slots.npy"


def write_index(index: FaissIndex, directory: Path) -> None:
    """Write a FAISS index into `directory`. Raises OSError, for example if the disk is full.

    An existing file is unlinked first, since FAISS would overwrite it while other processes have it mapped.
    """
    (directory / INDEX_FILE).unlink(missing_ok=True)
    try:
        faiss().write_index(index, str(directory / INDEX_FILE))
    except RuntimeError as error:  # the only exception that FAISS raises
        raise OSError(str(error).splitlines()[0]) from error


def read_index(directory: Path, *, mapped: bool = True) -> FaissIndex:
    """Return the FAISS index in `directory`: memory-mapped, or in memory to change it.

    Raises IndexDamaged, and IndexNotReadable where the file may be intact.
    """
    library = faiss()
    with reading_from(directory / INDEX_FILE):
        (directory / INDEX_FILE).open("rb").close()  # FAISS does not tell why it cannot open a file
    try:
        return library.read_index(str(directory / INDEX_FILE), library.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:  # the only exception that FAISS raises
        raise IndexDamaged(directory, f"cannot be opened ({str(error).splitlines()[0]})") from error


def write_vectors(directory: Path, blocks: Iterable[NDArray[np.float16]], rows: int, dim: int) -> None:
    """Write blocks of float16 (n, dim), `rows` in total, with no more than one block in memory.

    A memory map is not used: if the disk fills up, a process that writes to one is killed.
    """
    with (directory / VECTORS_FILE).open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": (rows, dim)}
        )
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float16).data)


def read_vectors(directory: Path) -> NDArray[np.float16]:
    """Return the float16 vectors in `directory`, memory-mapped. Raises IndexDamaged."""
    return map_array(directory / VECTORS_FILE)


def write_slots(directory: Path, slots: NDArray[np.int64]) -> None:
    """Write the slot of each row, its position among the vectors: int64 (rows,)."""
    np.save(directory / SLOTS_FILE, slots, allow_pickle=False)


def read_slots(directory: Path) -> NDArray[np.int64] | None:
    """Return the slot of each row, None if row and slot are the same everywhere. Raises IndexDamaged."""
    if not (directory / SLOTS_FILE).exists():
        return None
    return map_array(directory / SLOTS_FILE)


def with_whitening(core: FaissIndex, whitening: Whitening | None) -> FaissIndex:
    """Return a FAISS index that whitens first, so that it accepts embeddings as queries."""
    if whitening is None:
        return core
    index = faiss().IndexPreTransform(core)  # keeps `core` alive
    for transform in reversed(whitening.chain()):
        index.prepend_transform(transform)
    return index


def without_whitening(index: FaissIndex) -> tuple[FaissIndex, Whitening | None]:
    """Return the index of whitened vectors inside a FAISS index, and the whitening, None if it has none.

    A recipe may start with a transform of its own, such as OPQ; only a whitening ends in a normalisation.
    """
    library = faiss()
    if not isinstance(index, library.IndexPreTransform) or index.chain.size() != 2:
        return index, None
    linear, last = (library.downcast_VectorTransform(index.chain.at(at)) for at in range(2))
    if not isinstance(last, library.NormalizationTransform):
        return index, None
    matrix = library.vector_to_array(linear.A).reshape(linear.d_out, linear.d_in)
    core = library.downcast_index(index.index)
    return core, Whitening(matrix, library.vector_to_array(linear.b))
