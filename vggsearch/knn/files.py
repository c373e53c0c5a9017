"""The files of a vector index: FAISS indexes, float16 vectors, which slots are rows, and the whitening.

Segment 0 is the base. The others, numbered from 1, were added by updates, and have files with their number.
"""

from collections.abc import Iterable
from itertools import count
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
LIVE_FILE = "live.npy"
SLOTS_FILE = "slots.npy"  # written by earlier versions in place of LIVE_FILE
WHITENING_FILE = "whitening.npy"


def segment_file(name: str, segment: int) -> str:
    """Return the name of the file of a segment: index.faiss and index-1.faiss, vectors.npy and vectors-1.npy."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{segment}{dot}{suffix}" if segment else name


def segment_count(directory: Path) -> int:
    """Return the number of segments of the vector index in `directory`, the base included."""
    return next(each for each in count(1) if not (directory / segment_file(VECTORS_FILE, each)).exists())


def write_index(index: FaissIndex, directory: Path, segment: int = 0) -> None:
    """Write the FAISS index of a segment into `directory`. Raises OSError, for example if the disk is full.

    An existing file is unlinked first, since FAISS would overwrite it while other processes have it mapped.
    """
    path = directory / segment_file(INDEX_FILE, segment)
    path.unlink(missing_ok=True)
    try:
        faiss().write_index(index, str(path))
    except RuntimeError as error:  # the only exception that FAISS raises
        raise OSError(str(error).splitlines()[0]) from error


def read_index(directory: Path, segment: int = 0, *, mapped: bool = True) -> FaissIndex:
    """Return the FAISS index of a segment in `directory`: memory-mapped, or in memory to change it.

    Raises IndexDamaged, and IndexNotReadable where the file may be intact.
    """
    library, path = faiss(), directory / segment_file(INDEX_FILE, segment)
    with reading_from(path):
        path.open("rb").close()  # FAISS does not tell why it cannot open a file
    try:
        return library.read_index(str(path), library.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:  # the only exception that FAISS raises
        raise IndexDamaged(directory, f"cannot be opened ({str(error).splitlines()[0]})") from error


def has_index(directory: Path, segment: int) -> bool:
    """Return whether a segment has a FAISS index; one with few vectors has none."""
    return (directory / segment_file(INDEX_FILE, segment)).exists()


def write_vectors(
    directory: Path, blocks: Iterable[NDArray[np.float16]], rows: int, dim: int, segment: int = 0
) -> None:
    """Write the vectors of a segment: blocks of float16 (n, dim), `rows` in total. One block is in memory.

    A memory map is not used: if the disk fills up, a process that writes to one is killed.
    """
    with (directory / segment_file(VECTORS_FILE, segment)).open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": (rows, dim)}
        )
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float16).data)


def read_vectors(directory: Path, segment: int = 0) -> NDArray[np.float16]:
    """Return the float16 vectors of a segment in `directory`, memory-mapped. Raises IndexDamaged."""
    return map_array(directory / segment_file(VECTORS_FILE, segment))


def write_live(directory: Path, slots: NDArray[np.int64], size: int) -> None:
    """Write which of `size` slots are rows, the `slots`: a bit each."""
    is_live = np.zeros(size, bool)
    is_live[slots] = True
    np.save(directory / LIVE_FILE, np.packbits(is_live, bitorder="little"), allow_pickle=False)


def read_slots(directory: Path, size: int) -> NDArray[np.int64] | None:
    """Return the slot of each row, of `size` slots; None if row and slot are the same. Raises IndexDamaged."""
    if (directory / LIVE_FILE).exists():
        bits = map_array(directory / LIVE_FILE)
        if bits.dtype != np.uint8 or bits.shape != (-(-size // 8),):
            raise IndexDamaged(
                directory / LIVE_FILE, f"holds {bits.shape} {bits.dtype}, not bits of {size:,} slots"
            )
        return np.flatnonzero(np.unpackbits(bits, count=size, bitorder="little"))
    if not (directory / SLOTS_FILE).exists():
        return None
    return map_array(directory / SLOTS_FILE)


def write_whitening(directory: Path, whitening: Whitening) -> None:
    """Write a whitening that is in a large FAISS index, so that reading it does not require hashing that index."""
    columns = np.concatenate([whitening.matrix, whitening.bias[:, None]], axis=1)
    np.save(directory / WHITENING_FILE, columns, allow_pickle=False)


def read_whitening(directory: Path) -> Whitening:
    """Return the whitening that `write_whitening` has written. Raises IndexDamaged."""
    columns = np.array(map_array(directory / WHITENING_FILE))
    if columns.ndim != 2 or columns.dtype != np.float32:
        raise IndexDamaged(directory / WHITENING_FILE, f"holds {columns.shape} {columns.dtype}, not a whitening")
    return Whitening(np.ascontiguousarray(columns[:, :-1]), np.ascontiguousarray(columns[:, -1]))


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
