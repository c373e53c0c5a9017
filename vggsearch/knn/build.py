"""Write the files of a vector index in bounded memory, from scratch or from an earlier version of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.knn.faiss_import import FaissIndex, faiss, restore_thread_count
from vggsearch.knn.files import (
    WHITENING_FILE,
    read_index,
    read_vectors,
    with_whitening,
    without_whitening,
    write_index,
    write_live,
    write_vectors,
    write_whitening,
)
from vggsearch.knn.recipes import BuildPlan, ivf_of, make_index
from vggsearch.knn.shards import (
    Encode,
    EncodedLists,
    FaissLists,
    Source,
    clear_lists,
    fill_blocks,
    is_fast_scan,
    shard_ranges,
    write_merged,
)
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.knn.vector_index import VectorIndex, whitened
from vggsearch.knn.vectors import BLOCK_ROWS, Vectors, blocks_of, unit_rows
from vggsearch.knn.whitening import Whitening
from vggsearch.progress import SILENT, Monitor


def build(
    directory: Path,
    vectors: Iterable[NDArray[np.float16]],
    plan: BuildPlan,
    whitening: Whitening | None,
    monitor: Monitor,
    tasks: Tasks = HERE,
) -> None:
    """Build the vector index described by `plan` in the empty folder `directory`.

    `vectors` are blocks of float16 (n, plan.dim). In memory are first the training sample, then the FAISS index, or
    plan.shard_rows rows of it, and one block. `tasks` encode these shards; the files are the same for any. Raises
    OSError, for example if the disk is full.
    """
    blocks = _counted(blocks_of(vectors), "reading embeddings", plan.rows, monitor)
    write_vectors(directory, blocks, plan.rows, plan.dim)
    if whitening is not None and plan.rows > BUILD.whole_rows:
        write_whitening(directory, whitening)
    build_faiss_index(directory, plan, whitening, monitor, tasks)


def build_faiss_index(
    directory: Path, plan: BuildPlan, whitening: Whitening | None, monitor: Monitor, tasks: Tasks = HERE
) -> None:
    """Build the FAISS index of the vectors in `directory`, replacing an existing one."""
    stored = read_vectors(directory)
    core = make_index(plan.dim, plan.factory, plan.metric)
    restore_thread_count()
    if not core.is_trained and plan.rows:
        stage = f"learning {plan.lists:,} lists"
        monitor.step(stage, 0, plan.training_rows, "vectors")
        core.train(sample_of(stored, plan.training_rows))
        monitor.step(stage, plan.training_rows, plan.training_rows, "vectors")
    filling = _Filling(plan.shard_rows, tasks, monitor)
    filling.fill(with_whitening(core, whitening), core, stored, directory, 0)


@dataclass(frozen=True)
class _Filling:
    """How vectors get into a FAISS index: those of lists at most `shard_rows` at a time, encoded by `tasks`."""

    shard_rows: int
    tasks: Tasks
    monitor: Monitor

    def fill(
        self, index: FaissIndex, core: FaissIndex, stored: NDArray[np.float16], directory: Path, segment: int
    ) -> None:
        """Write the FAISS index of a segment, its empty `core` filled with all its vectors."""
        if self.shard_rows >= len(stored):
            add_vectors(core, stored, 0, self.monitor)
        else:
            with TemporaryDirectory(dir=directory) as scratch:
                shards = list(self.shards(core, stored, 0, Path(scratch)))
                if not is_fast_scan(core):
                    write_merged(index, core, shards, directory, segment)
                    return
                fill_blocks(core, shards)
        index.ntotal = core.ntotal
        write_index(index, directory, segment)

    def shards(
        self, core: FaissIndex, stored: NDArray[np.float16], first: int, scratch: Path
    ) -> Iterator[EncodedLists]:
        """Yield the vectors from slot `first` on, encoded by the empty `core`, each from a folder in `scratch`."""
        total = len(stored) - first
        ranges = list(shard_ranges(first, len(stored), self.shard_rows))
        items = [(start, np.asarray(stored[start:stop])) for start, stop in ranges]  # read when they are encoded
        done = self.tasks.run(Encode(self.tasks.put(core), first, total), items, self.monitor)
        for start, stop in ranges:
            yield next(done).saved(scratch / f"{start}")  # not in a variable: the next ones need the memory
            self.monitor.step("adding vectors", stop - first, total, "vectors")


def build_in_memory(
    blocks: Iterable[NDArray[np.float16]], rows: int, dim: int, whitening: Whitening | None = None
) -> VectorIndex:
    """Return a flat index in memory of blocks of float16 embeddings (n, dim), `rows` in total, in row order."""
    size = whitening.dim if whitening is not None else dim
    vectors = np.empty((rows, size), np.float16)
    start = 0
    for block in whitened_blocks(blocks, whitening):
        vectors[start : start + len(block)] = block
        start += len(block)
    core = faiss().IndexFlatIP(size)
    add_vectors(core, vectors, 0, SILENT)
    return VectorIndex(with_whitening(core, whitening), vectors)


def whitened_blocks(
    blocks: Iterable[NDArray[np.float16]], whitening: Whitening | None
) -> Iterator[NDArray[np.float16]]:
    """Yield blocks of embeddings as blocks of vectors, whitened if there is a whitening."""
    return (whitened(block, whitening) for block in blocks_of(blocks))


@dataclass(frozen=True)
class Extended:
    """What a vector index is extended to: the rows `kept` of `old`, and `count` new rows, the vectors `added`.

    `old` is in the folder `directory`, whose files do not change while they are read. `added` are blocks of float16
    (n, dim), to be taken once.
    """

    directory: Path
    old: VectorIndex
    kept: NDArray[np.int64]
    added: Iterable[NDArray[np.float16]]
    count: int

    @property
    def slots(self) -> int:
        """The number of slots, of removed rows, too: every vector keeps its slot."""
        return len(self.old.stored) + self.count

    @property
    def of_rows(self) -> NDArray[np.int64]:
        """The slot of each row, int64 (n,)."""
        return np.concatenate([self.old.slots[self.kept], np.arange(len(self.old.stored), self.slots)])

    def core(self, *, mapped: bool) -> tuple[FaissIndex, FaissIndex]:
        """Return the FAISS index, and the one in it without the whitening, which lives as long as the first."""
        index = read_index(self.directory, mapped=mapped)
        core, _ = without_whitening(index)
        restore_thread_count()
        return index, core


def build_from_previous(
    directory: Path, extended: Extended, shard_rows: int, monitor: Monitor, tasks: Tasks = HERE
) -> None:
    """Build an extended index in the empty folder `directory`, without training it again.

    Removed rows are deleted from inverted lists; other kinds of index keep them, and searches skip them. With
    inverted lists, at most `shard_rows` new rows are in memory at a time, otherwise the whole index is.
    """
    old, of_rows, total = extended.old, extended.of_rows, extended.slots
    dim = old.stored.shape[1]
    blocks = chain(blocks_of([old.stored]), extended.added)
    write_vectors(directory, _counted(blocks, "copying vectors", total, monitor), total, dim)
    if old.whitening is not None and total > BUILD.whole_rows:
        write_whitening(directory, old.whitening)
    is_merged = supports_removal(old.core)
    index, core = extended.core(mapped=is_merged)
    stored = read_vectors(directory)
    if is_merged:
        clear_lists(core)
        removed = np.ones(total, bool)
        removed[of_rows] = False
        listed = [segment for segment in old.segments if segment.built is not None]  # they come first
        with TemporaryDirectory(dir=directory) as scratch:
            filling = _Filling(shard_rows, tasks, monitor)
            shards = filling.shards(core, stored, listed[-1].slots.stop, Path(scratch))
            sources: list[Source] = [*(FaissLists(each.core, each.first) for each in listed), *shards]
            write_merged(index, core, sources, directory, removed=removed)
    else:
        add_vectors(core, stored, len(old.segments[0]), monitor)
        index.ntotal = core.ntotal
        write_index(index, directory)
    if len(of_rows) < total:
        write_live(directory, of_rows, total)


def add_segment(
    directory: Path, extended: Extended, shared: int, shard_rows: int, monitor: Monitor, tasks: Tasks = HERE
) -> None:
    """Build an extended index in `directory`, which has the files of the first `shared` segments of the old one.

    It holds the same rows as after `build_from_previous`, in the same slots: what follows the shared segments, and
    the new rows, are written as one segment. If that has many vectors, it gets lists like those of the base. In
    memory is a block, and at most `shard_rows` rows of its FAISS index.
    """
    old, of_rows, total = extended.old, extended.of_rows, extended.slots
    before, dim = old.stored.shape
    first = old.segments[shared].first if shared < len(old.segments) else before
    rows = total - first
    if rows:
        moved = (old.stored[at : at + BLOCK_ROWS] for at in range(first, before, BLOCK_ROWS))
        blocks = chain(moved, extended.added)
        write_vectors(directory, _counted(blocks, "copying vectors", rows, monitor), rows, dim, shared)
    if rows > BUILD.plain_rows and old.lists:
        _index, core = extended.core(mapped=supports_removal(old.core))
        clear_lists(core)
        filling = _Filling(shard_rows, tasks, monitor)
        filling.fill(core, core, read_vectors(directory, shared), directory, shared)
    if old.whitening is not None and not (directory / WHITENING_FILE).exists():
        write_whitening(directory, old.whitening)
    if len(of_rows) < total:
        write_live(directory, of_rows, total)


def supports_removal(core: FaissIndex) -> bool:
    """Return whether vectors can be removed from a FAISS index.

    FastScan offers removal, too, but its recall drops afterwards.
    """
    ivf = ivf_of(core)
    return ivf is not None and not isinstance(ivf, faiss().IndexIVFFastScan)


def add_vectors(core: FaissIndex, stored: NDArray[np.float16], first: int, monitor: Monitor) -> None:
    """Add the vectors from slot `first` on to a FAISS index, with their slots as ids."""
    has_ids = ivf_of(core) is not None
    for start in range(first, len(stored), BUILD.block_rows):
        block = unit_rows(stored[start : start + BUILD.block_rows])
        if has_ids:
            core.add_with_ids(block, np.arange(start, start + len(block)))
        else:
            core.add(block)
        monitor.step("adding vectors", start + len(block) - first, len(stored) - first, "vectors")


def sample_of(stored: Vectors, count: int) -> NDArray[np.float32]:
    """Return a random but repeatable sample of the vectors as unit vectors; only the sample is in memory."""
    rows = np.arange(len(stored))
    if count < len(stored):
        rows = np.sort(np.random.default_rng(BUILD.seed).choice(len(stored), count, replace=False))
    vectors = np.empty((len(rows), stored.shape[1]), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        vectors[start : start + BLOCK_ROWS] = unit_rows(stored[rows[start : start + BLOCK_ROWS]])
    return vectors


def _counted(
    blocks: Iterable[NDArray[np.float16]], stage: str, total: int, monitor: Monitor
) -> Iterator[NDArray[np.float16]]:
    done = 0
    for block in blocks:
        yield block
        done += len(block)
        monitor.step(stage, done, total, "vectors")
