"""Inverted lists in pieces: encode vectors for them, and merge them on disk, list by list, into one file.

FAISS itself merges lists only into a separate file beside the index, and prints the path of that file whenever it
is opened. The file written here is identical to the one FAISS writes from memory, so it is read and mapped as
usual.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import OptionError
from vggsearch.knn.faiss_import import FaissIndex, faiss, restore_thread_count
from vggsearch.knn.files import INDEX_FILE, segment_file, write_index
from vggsearch.knn.recipes import ivf_of
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import Monitor
from vggsearch.system.arrays import map_array

ARRAY_LISTS, ALL_SIZES, NONZERO_SIZES = b"ilar", b"full", b"sprs"  # magic numbers in the files of FAISS
Entries = tuple[NDArray[np.uint8], NDArray[np.int64]]  # codes (n, bytes) and slots (n,)


class Source(Protocol):
    """Lists with the codes of some vectors."""

    def entries(self, at: int) -> Entries:
        """Return the entries of list `at`."""


@dataclass(frozen=True)
class FaissLists:
    """The lists of a FAISS index; `first` is the slot of its id 0."""

    index: FaissIndex
    first: int

    def entries(self, at: int) -> Entries:
        """Return the entries of list `at`."""
        ivf = ivf_of(self.index)
        size, bytes_each = ivf.invlists.list_size(at), ivf.code_size
        if not size:
            return np.empty((0, bytes_each), np.uint8), np.empty(0, np.int64)
        ids = faiss().rev_swig_ptr(ivf.invlists.get_ids(at), size) + self.first
        return faiss().rev_swig_ptr(ivf.invlists.get_codes(at), size * bytes_each).reshape(size, bytes_each), ids


@dataclass(frozen=True)
class EncodedLists:
    """The codes, uint8 (n, bytes), and slots, int64 (n,), of vectors by list.

    Those of list i are at starts[i] : starts[i + 1], in the order of their slots.
    """

    starts: NDArray[np.int64]
    slots: NDArray[np.int64]
    codes: NDArray[np.uint8]

    def entries(self, at: int) -> Entries:
        """Return the entries of list `at`."""
        place = slice(self.starts[at], self.starts[at + 1])
        return self.codes[place], self.slots[place]

    def saved(self, directory: Path) -> "EncodedLists":
        """Return the same in files of the new folder `directory`, memory-mapped. Raises OSError."""
        directory.mkdir()
        columns: dict[str, NDArray[Any]] = {"starts": self.starts, "slots": self.slots, "codes": self.codes}
        for name, column in columns.items():
            np.save(directory / f"{name}.npy", column, allow_pickle=False)
        return EncodedLists(*(map_array(directory / f"{name}.npy") for name in columns))


@dataclass(frozen=True)
class Encode:
    """Encodes some of the `total` vectors from slot `first` on, as FAISS does when they are added to its lists.

    `core` returns the trained FAISS index, which stays empty. An item is the first slot and float16 vectors
    (n, dim). In memory are one block of these and their codes, twice.
    """

    core: Callable[[], FaissIndex]
    first: int
    total: int

    def __call__(self, item: tuple[int, NDArray[np.float16]], monitor: Monitor) -> EncodedLists:
        """Return the codes of the vectors by list."""
        start, stored = item
        core = self.core()
        ivf = ivf_of(core)
        restore_thread_count()
        numbers, codes = np.empty(len(stored), np.int32), np.empty((len(stored), ivf.code_size), np.uint8)
        for at in range(0, len(stored), BUILD.block_rows):  # as vectors are added, so that rounding is the same
            block = _transformed(core, unit_rows(stored[at : at + BUILD.block_rows]))
            lists = ivf.quantizer.search(block, 1)[1][:, 0]
            ivf.encode_vectors(len(block), *map(faiss().swig_ptr, (block, lists, codes[at : at + len(block)])))
            numbers[at : at + len(block)] = lists
            monitor.step("adding vectors", start - self.first + at + len(block), self.total, "vectors")
        order = np.argsort(numbers, kind="stable")
        starts = np.searchsorted(numbers[order], np.arange(ivf.nlist + 1))
        codes = codes[order]
        order += start
        return EncodedLists(starts, order, codes)


def _transformed(core: FaissIndex, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors as the lists of a FAISS index take them: after a transform, such as OPQ, if it has one."""
    library = faiss()
    if isinstance(core, library.IndexPreTransform):
        for at in range(core.chain.size()):
            vectors = library.downcast_VectorTransform(core.chain.at(at)).apply(vectors)
    return np.ascontiguousarray(vectors)


def clear_lists(core: FaissIndex) -> None:
    """Remove all entries from the lists of a FAISS index, but keep what it learned in training."""
    ivf = ivf_of(core)
    if is_fast_scan(core):
        core.reset()
        return
    lists = faiss().ArrayInvertedLists(ivf.nlist, ivf.code_size)
    ivf.replace_invlists(lists, True)
    lists.this.disown()
    core.ntotal = ivf.ntotal = 0


def write_merged(
    index: FaissIndex,
    core: FaissIndex,
    sources: Sequence[Source],
    directory: Path,
    segment: int = 0,
    removed: NDArray[np.bool_] | None = None,
) -> None:
    """Write `index` into `directory`, each of its lists filled with that list of every source, in order.

    `core`, the part of `index` with the lists, is empty; `sources` share its training. Slots that are True in
    `removed`, bool by slot, are left out. One list at a time is in memory. Raises
    OSError, for example if the disk is full, and OptionError for a kind of index whose lists cannot be merged.
    """
    ivf = ivf_of(core)
    sizes = np.array([sum(len(ids) for _, ids in _entries(sources, at, removed)) for at in range(ivf.nlist)])
    index.ntotal = core.ntotal = ivf.ntotal = int(sizes.sum())
    write_index(index, directory, segment)
    with (directory / segment_file(INDEX_FILE, segment)).open("r+b") as file:
        head = ARRAY_LISTS + struct.pack("<QQ", ivf.nlist, ivf.code_size)
        tail = head + NONZERO_SIZES + struct.pack("<Q", 0)
        start = file.seek(-len(tail), os.SEEK_END)
        if file.read() != tail:
            raise OptionError(f"The lists of {type(ivf).__name__} cannot be merged on disk. Use another recipe.")
        file.seek(start)
        file.write(head + ALL_SIZES + struct.pack("<Q", ivf.nlist))
        file.write(sizes.astype("<u8").data)
        for at in range(ivf.nlist):
            entries = list(_entries(sources, at, removed))
            file.writelines(codes.data for codes, _ in entries)
            file.writelines(ids.data for _, ids in entries)


def fill_blocks(core: FaissIndex, sources: Sequence[Source]) -> None:
    """Fill the empty lists of a FastScan index, which are blocks of interleaved codes in memory."""
    ivf = ivf_of(core)
    packer, swig_ptr = ivf.get_CodePacker(), faiss().swig_ptr
    for at in range(ivf.nlist):
        codes, slots = (np.concatenate(column) for column in zip(*_entries(sources, at, None), strict=True))
        if not len(slots):
            continue
        rows = -(-len(slots) // packer.nvec) * packer.nvec
        plain = np.zeros((rows, ivf.code_size), np.uint8)
        plain[: len(codes)] = codes
        packed = np.zeros((rows // packer.nvec, packer.block_size), np.uint8)
        for number, block in enumerate(packed):
            packer.pack_all(swig_ptr(plain[number * packer.nvec :]), swig_ptr(block))
        ivf.invlists.add_entries(at, len(slots), swig_ptr(slots), swig_ptr(packed))
        ivf.ntotal += len(slots)
    core.ntotal = ivf.ntotal


def is_fast_scan(core: FaissIndex) -> bool:
    """Return whether the lists of a FAISS index are those of FastScan."""
    return isinstance(ivf_of(core), faiss().IndexIVFFastScan)


def _entries(sources: Sequence[Source], at: int, removed: NDArray[np.bool_] | None) -> Iterator[Entries]:
    """Yield the entries of list `at` of each source."""
    for source in sources:
        codes, slots = source.entries(at)
        if removed is not None:
            codes, slots = codes[~removed[slots]], slots[~removed[slots]]
        yield codes, slots


def shard_ranges(first: int, last: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each shard of at most `rows` rows between `first` and `last`."""
    yield from pairwise([*range(first, last, rows), last])
