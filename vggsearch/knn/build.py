"""Make the files of a search side, in bounded memory, or make the next ones from the last."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.knn.faiss_import import faiss, use_threads
from vggsearch.knn.files import (
    read_index,
    read_vectors,
    with_whitening,
    without_whitening,
    write_index,
    write_slots,
    write_vectors,
)
from vggsearch.knn.recipes import BuildPlan, lists_of, make_index
from vggsearch.knn.shards import emptied, shards, write_joined
from vggsearch.knn.vector_index import VectorIndex, whitened
from vggsearch.knn.vectors import STEP, blocks_of, unit_rows
from vggsearch.knn.whitening import Whitening

Tell = Callable[[str, int, int], None]  # what is being done, how many of how many vectors are


def build(
    directory: Path,
    vectors: Iterable[NDArray[np.float16]],
    plan: BuildPlan,
    whitening: Whitening | None,
    tell: Tell,
) -> None:
    """Fill the empty folder `directory` as `plan` says, from blocks of float16 vectors (some, plan.dim).

    In memory are a sample to learn from, then the FAISS index, or plan.shard_rows of it, and a block. Raises
    OSError, as for a full disk.
    """
    write_vectors(directory, _told(blocks_of(vectors), "reading embeddings", plan.rows, tell), plan.rows, plan.dim)
    index_vectors(directory, plan, whitening, tell)


def index_vectors(directory: Path, plan: BuildPlan, whitening: Whitening | None, tell: Tell) -> None:
    """Make the FAISS index of the vectors in `directory` as `plan` says, in place of one that is there."""
    stored = read_vectors(directory)
    core = make_index(plan.dim, plan.factory, plan.metric)
    use_threads()
    if not core.is_trained and plan.rows:
        tell(f"learning {plan.lists:,} lists", 0, plan.training_rows)
        core.train(_sample(stored, plan.training_rows))
        tell(f"learning {plan.lists:,} lists", plan.training_rows, plan.training_rows)
    if plan.shard_rows < plan.rows:
        with TemporaryDirectory(dir=directory) as scratch:
            made = list(_in_shards(core, stored, 0, plan.shard_rows, Path(scratch), tell))
            write_joined(with_whitening(core, whitening), core, made, directory)
            del made
        return
    add(core, stored, 0, tell)
    write_index(with_whitening(core, whitening), directory)


def in_memory(
    blocks: Iterable[NDArray[np.float16]], rows: int, dim: int, whitening: Whitening | None = None
) -> VectorIndex:
    """Return a flat index made of blocks of float16 embeddings (some, dim), together `rows`, in row order."""
    size = whitening.dim if whitening is not None else dim
    vectors = np.empty((rows, size), np.float16)
    start = 0
    for some in of_embeddings(blocks, whitening):
        vectors[start : start + len(some)] = some
        start += len(some)
    core = faiss().IndexFlatIP(size)
    add(core, vectors, 0, lambda *_: None)
    return VectorIndex(with_whitening(core, whitening), vectors)


def of_embeddings(
    blocks: Iterable[NDArray[np.float16]], whitening: Whitening | None
) -> Iterator[NDArray[np.float16]]:
    """Yield the vectors of blocks of embeddings."""
    return (whitened(some, whitening) for some in blocks_of(blocks))


def update_in_place(
    directory: Path,
    old_directory: Path,
    old: VectorIndex,
    kept: NDArray[np.int64],
    added: Iterable[NDArray[np.float16]],
    count: int,
    shard_rows: int,
    tell: Tell,
) -> None:
    """Fill the empty folder `directory` with the index in `old_directory`, of the rows `kept` and `count` more.

    What was learned stays. Lists let rows go; in other kinds they stay, and are passed over. Their vectors stay
    in any case, so that a vector keeps its slot. Readers of the old files notice nothing. Of lists, `shard_rows`
    of the new rows are in memory at once; of other kinds, all is.
    """
    before, dim = old.stored.shape
    slots = np.concatenate([old.slots[kept], np.arange(before, before + count)])
    blocks = chain(blocks_of([old.stored]), added)
    write_vectors(directory, _told(blocks, "copying vectors", before + count, tell), before + count, dim)
    is_joined = supports_removal(old.core)
    index = read_index(old_directory, mapped=is_joined)
    core, _ = without_whitening(index)
    use_threads()
    stored = read_vectors(directory)
    if is_joined:
        emptied(core)
        gone = np.ones(before + count, bool)
        gone[slots] = False
        with TemporaryDirectory(dir=directory) as scratch:
            made = [old.core, *_in_shards(core, stored, before, shard_rows, Path(scratch), tell)]
            write_joined(index, core, made, directory, gone)
            del made
    else:
        add(core, stored, before, tell)
        index.ntotal = core.ntotal
        write_index(index, directory)
    if len(slots) < before + count:
        write_slots(directory, slots)


def supports_removal(core: Any) -> bool:
    """Whether rows can be removed from a FAISS index. FastScan says so, but finds other rows less well after it."""
    ivf = lists_of(core)
    return ivf is not None and not isinstance(ivf, faiss().IndexIVFFastScan)


def add(core: Any, stored: NDArray[np.float16], first: int, tell: Tell) -> None:
    """Add the vectors from slot `first` on to a FAISS index, each under its slot."""
    has_ids = lists_of(core) is not None
    for start in range(first, len(stored), BUILD.block_rows):
        some = unit_rows(stored[start : start + BUILD.block_rows])
        if has_ids:
            core.add_with_ids(some, np.arange(start, start + len(some)))
        else:
            core.add(some)
        tell("adding vectors", start + len(some) - first, len(stored) - first)


def _in_shards(
    core: Any, stored: NDArray[np.float16], first: int, rows: int, scratch: Path, tell: Tell
) -> Iterator[Any]:
    """Yield indexes, mapped from folders in `scratch`, of the vectors from slot `first` on, each of so many rows.

    `core` is empty before and after each.
    """
    total = len(stored) - first

    def told(what: str, done: int, _total: int) -> None:
        tell(what, start - first + done, total)

    for start, stop in shards(first, len(stored), rows):
        add(core, stored[:stop], start, told)
        folder = scratch / f"{start}"
        folder.mkdir()
        write_index(core, folder)
        emptied(core)
        yield read_index(folder)


def _sample(stored: NDArray[np.float16], count: int) -> NDArray[np.float32]:
    """Return some of the vectors, of unit length, the same ones each time; no more than these are in memory."""
    rows = np.arange(len(stored))
    if count < len(stored):
        rows = np.sort(np.random.default_rng(BUILD.seed).choice(len(stored), count, replace=False))
    vectors = np.empty((len(rows), stored.shape[1]), np.float32)
    for start in range(0, len(rows), STEP):
        vectors[start : start + STEP] = unit_rows(stored[rows[start : start + STEP]])
    return vectors


def _told(
    blocks: Iterable[NDArray[np.float16]], what: str, total: int, tell: Tell
) -> Iterator[NDArray[np.float16]]:
    done = 0
    for some in blocks:
        yield some
        done += len(some)
        tell(what, done, total)
