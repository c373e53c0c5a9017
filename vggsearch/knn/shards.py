"""Merge inverted lists on disk, list by list, from memory-mapped indexes into one file.

FAISS itself merges lists only into a separate file beside the index, and prints the path of that file whenever it
is opened. The file written here is identical to the one FAISS writes from memory, so it is read and mapped as
usual.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.knn.faiss_import import FaissIndex, faiss
from vggsearch.knn.files import INDEX_FILE, segment_file, write_index
from vggsearch.knn.recipes import ivf_of

ARRAY_LISTS, ALL_SIZES, NONZERO_SIZES = b"ilar", b"full", b"sprs"  # magic numbers in the files of FAISS
Entries = tuple[NDArray[np.uint8], NDArray[np.int64]]  # codes (n, bytes) and slots (n,)


def clear_lists(core: FaissIndex) -> None:
    """Remove all entries from the lists of a FAISS index, but keep what it learned in training."""
    ivf = ivf_of(core)
    if isinstance(ivf, faiss().IndexIVFFastScan):  # its lists are blocks of vectors, in memory
        core.reset()
        return
    lists = faiss().ArrayInvertedLists(ivf.nlist, ivf.code_size)
    ivf.replace_invlists(lists, True)
    lists.this.disown()
    core.ntotal = ivf.ntotal = 0


def write_merged(
    index: FaissIndex,
    core: FaissIndex,
    sources: Sequence[tuple[FaissIndex, int]],
    directory: Path,
    segment: int = 0,
    removed: NDArray[np.bool_] | None = None,
) -> None:
    """Write `index` into `directory`, each of its lists filled with that list of every source, in order.

    `core`, the part of `index` with the lists, is empty; `sources`, each with the slot of its id 0, share its
    training. Slots that are True in `removed`, bool by slot, are left out. One list at a time is in memory. Raises
    OSError, for example if the disk is full, and OptionError for a kind of index whose lists cannot be merged.
    """
    ivf = ivf_of(core)
    lists = [(ivf_of(source).invlists, first) for source, first in sources]
    sizes = np.array([sum(len(ids) for _, ids in _entries(lists, ivf, at, removed)) for at in range(ivf.nlist)])
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
            entries = list(_entries(lists, ivf, at, removed))
            file.writelines(codes.data for codes, _ in entries)
            file.writelines(ids.data for _, ids in entries)


def _entries(
    lists: Sequence[tuple[FaissIndex, int]], ivf: FaissIndex, at: int, removed: NDArray[np.bool_] | None
) -> Iterator[Entries]:
    """Yield the entries of list `at` of each source."""
    for source, first in lists:
        size = source.list_size(at)
        if not size:
            continue
        ids = faiss().rev_swig_ptr(source.get_ids(at), size) + first
        codes = faiss().rev_swig_ptr(source.get_codes(at), size * ivf.code_size).reshape(size, ivf.code_size)
        if removed is not None:
            codes, ids = codes[~removed[ids]], ids[~removed[ids]]
        yield codes, ids


def shard_ranges(first: int, last: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each shard of at most `rows` rows between `first` and `last`."""
    yield from pairwise([*range(first, last, rows), last])
