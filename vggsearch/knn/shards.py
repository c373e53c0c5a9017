"""Inverted lists that are changed or made without holding them: entry by entry, from mapped indexes into one file.

FAISS joins lists only into a file of its own beside the index, and prints that file's place whenever it is opened.
What is written here is what FAISS would have written from memory, so that it is read and mapped like any other.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.files import INDEX_FILE, write_index
from vggsearch.knn.recipes import lists_of

KIND, ALL_SIZES, FEW_SIZES = b"ilar", b"full", b"sprs"  # FAISS's marks: these lists, how their sizes are written
Entries = tuple[NDArray[np.uint8], NDArray[np.int64]]  # codes (n, bytes) and slots (n,)


def emptied(core: Any) -> None:
    """Let a FAISS index with lists forget its entries, and keep what it learned."""
    ivf = lists_of(core)
    lists = faiss().ArrayInvertedLists(ivf.nlist, ivf.code_size)
    ivf.replace_invlists(lists, True)
    lists.this.disown()
    core.ntotal = ivf.ntotal = 0


def write_joined(
    index: Any, core: Any, sources: Sequence[Any], directory: Path, gone: NDArray[np.bool_] | None = None
) -> None:
    """Write `index` into `directory`, with the entries of the lists of `sources`, one source after the other.

    `core`, the part of `index` with the lists, is empty. `sources` learned what it did. Slots that are `gone`, bool
    by slot, are left out. Memory is that of one list. Raises OSError, as for a full disk.
    """
    ivf = lists_of(core)
    held = [lists_of(source).invlists for source in sources]
    sizes = np.array([sum(len(ids) for _, ids in _entries(held, ivf, number, gone)) for number in range(ivf.nlist)])
    index.ntotal = core.ntotal = ivf.ntotal = int(sizes.sum())
    write_index(index, directory)
    with (directory / INDEX_FILE).open("r+b") as file:
        head = KIND + struct.pack("<QQ", ivf.nlist, ivf.code_size)
        tail = head + FEW_SIZES + struct.pack("<Q", 0)
        start = file.seek(-len(tail), os.SEEK_END)
        if file.read() != tail:
            raise OptionError(f"The lists of {type(ivf).__name__} cannot be joined. Use another recipe.")
        file.seek(start)
        file.write(head + ALL_SIZES + struct.pack("<Q", ivf.nlist))
        file.write(sizes.astype("<u8").data)
        for number in range(ivf.nlist):
            entries = list(_entries(held, ivf, number, gone))
            file.writelines(codes.data for codes, _ in entries)
            file.writelines(ids.data for _, ids in entries)


def _entries(held: Sequence[Any], ivf: Any, number: int, gone: NDArray[np.bool_] | None) -> Iterator[Entries]:
    """Yield the entries of one list, of each source."""
    for lists in held:
        size = lists.list_size(number)
        if not size:
            continue
        ids = faiss().rev_swig_ptr(lists.get_ids(number), size)
        codes = faiss().rev_swig_ptr(lists.get_codes(number), size * ivf.code_size).reshape(size, ivf.code_size)
        if gone is not None:
            codes, ids = codes[~gone[ids]], ids[~gone[ids]]
        yield codes, ids


def shards(first: int, last: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield where each shard of so many rows begins and ends."""
    yield from pairwise([*range(first, last, rows), last])
