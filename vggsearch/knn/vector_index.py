"""Search over rows of vectors with any recipe: FAISS returns candidates, similarities are computed exactly."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged
from vggsearch.knn import brute_force
from vggsearch.knn.faiss_import import FaissIndex, faiss, restore_thread_count
from vggsearch.knn.files import (
    INDEX_FILE,
    VECTORS_FILE,
    has_index,
    read_index,
    read_slots,
    read_vectors,
    segment_count,
    segment_file,
    without_whitening,
)
from vggsearch.knn.gpu import GpuIndex, GpuVectors, copy_to_gpus
from vggsearch.knn.recipes import ivf_of, list_count
from vggsearch.knn.segments import Segment
from vggsearch.knn.vectors import StoredVectors, Vectors, blocks_of, unit_rows
from vggsearch.knn.whitening import Whitening

FLOAT16_TOLERANCE = 2**-10  # between a float16 vector and the same one computed on another machine
CANDIDATES_AT_ONCE = 2**20  # of all queries together, to bound memory


@dataclass(frozen=True)
class Tuning:
    """The search effort of an index, and its measured recall and query time.

    `effort` is the number of inverted lists probed (nprobe) or HNSW's efSearch; 0 for recipes with neither.
    `candidates` times as many rows as requested are scored exactly. `recall` is the share of the ten nearest rows
    that were found, `milliseconds` the median time of one query; None if not measured.
    """

    effort: int = 0
    candidates: int = 1
    recall: float | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Selection:
    """The rows that a search may return: those that are True in `mask`, bool (rows,)."""

    mask: NDArray[np.bool_]

    @cached_property
    def count(self) -> int:
        """The number of selected rows."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The selected rows, int64, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def _bits(self) -> dict[tuple[int, int], NDArray[np.uint8]]:
        return {}

    def bits(self, slots: NDArray[np.int64] | None, size: int, part: slice) -> NDArray[np.uint8]:
        """Return the bitmap for FAISS of a part of `size` slots: one bit each. `slots` are those of all rows."""
        key = size, part.start
        if key not in self._bits:
            self._bits[key] = np.packbits(self.slot_mask(slots, size)[part], bitorder="little")
        return self._bits[key]

    def slot_mask(self, slots: NDArray[np.int64] | None, size: int) -> NDArray[np.bool_]:
        """Return the mask by slot, bool (size,). `slots` are those of all rows, None if they are the rows."""
        if slots is None:
            return self.mask
        mask = np.zeros(size, bool)
        mask[slots[self.rows]] = True
        return mask


class VectorIndex:
    """Vectors by row: the embeddings, whitened if the collection has a whitening.

    Similarity is the cosine of two vectors, 1.0 for the same direction. It is always computed from the float16
    vectors, so it is exact whichever recipe found the row. Queries are embeddings without whitening; the FAISS
    index accepts them as well, since it contains the whitening as a pre-transform.

    A *slot* is the position of a vector in the files, those of all segments one after the other. Rows are the live
    slots, in order. They differ once rows have been removed from an index that was updated rather than rebuilt.
    """

    def __init__(
        self,
        index: FaissIndex,
        vectors: NDArray[np.float16],
        slots: NDArray[np.int64] | None = None,
        tuning: Tuning | None = None,
        tail: Sequence[Segment] = (),
    ) -> None:
        self.tuning = tuning or Tuning()
        self._index = index  # keeps its core alive
        self._core, self._whitening = without_whitening(index)
        self.segments = (Segment(vectors, 0, self._core), *tail)
        self._arrays = [vectors, *(segment.vectors for segment in tail)]
        self._vectors = StoredVectors(self._arrays) if tail else vectors
        self._slots = slots
        self._all_but: tuple[bytes, Selection] | None = None
        self._query_count: int | None = None  # so far; None if GPUs are not to be used
        self._counting = Lock()
        self._gpu_index: GpuIndex | None = None
        self._gpu_vectors = GpuVectors(self._vectors)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._vectors) if self._slots is None else len(self._slots)

    @property
    def whitening(self) -> Whitening | None:
        """The whitening that turns embeddings into its vectors, None if none exists."""
        return self._whitening

    @property
    def lists(self) -> int:
        """The number of inverted lists, 0 if the FAISS index has none."""
        return list_count(self._core)

    @property
    def is_exact(self) -> bool:
        """Whether the FAISS index itself searches exactly."""
        return isinstance(self._core, faiss().IndexFlat)

    @property
    def core(self) -> FaissIndex:
        """The FAISS index without the whitening in front of it."""
        return self._core

    @property
    def slots(self) -> NDArray[np.int64]:
        """The slot of each row, ascending."""
        return np.arange(len(self._vectors)) if self._slots is None else self._slots

    @property
    def stored(self) -> Vectors:
        """All vectors by slot, including dead ones: float16 (slots, dim)."""
        return self._vectors

    @property
    def by_row(self) -> Vectors:
        """The vectors by row, without dead ones: float16 (n, dim)."""
        return self._vectors if len(self) == len(self._vectors) else StoredVectors(self._arrays, self.slots)

    @classmethod
    def open(cls, directory: Path, rows: int, dim: int, tuning: Tuning | None = None) -> "VectorIndex":
        """Open a vector index memory-mapped. Raises IndexDamaged if it does not hold `rows` vectors of `dim`."""
        index = read_index(directory)
        base, *tail = _read_segments(directory, index)
        total = len(base) + sum(map(len, tail))
        slots = read_slots(directory, total)
        opened = cls(index, base.vectors, slots, tuning, tail)
        size = opened.whitening.dim if opened.whitening is not None else dim
        is_sound = index.d == dim and len(opened) == rows and all(each.dim == size for each in opened.segments)
        if slots is not None:
            is_sound = is_sound and slots.ndim == 1 and slots.dtype == np.int64 and len(slots) <= total
            is_sound = is_sound and bool(((slots >= 0) & (slots < total)).all())
        if not is_sound or not all(map(opened._holds_its_rows, opened.segments)):
            raise IndexDamaged(
                directory,
                f"holds {index.ntotal} x {index.d} in {INDEX_FILE} and {opened.stored.shape} in {VECTORS_FILE}, "
                f"but the manifest says {rows} x {dim}",
            )
        return opened

    def _holds_its_rows(self, segment: Segment) -> bool:
        """Return whether a FAISS index has as many vectors as the segment, or as there are live ones in it."""
        if segment.built is None:
            return True
        is_of_dim: bool = segment.built.d == segment.dim
        return is_of_dim and self._live(segment) <= segment.built.ntotal <= len(segment)

    def _live(self, segment: Segment) -> int:
        """Return the number of rows in a segment."""
        if self._slots is None:
            return len(segment)
        first, last = np.searchsorted(self._slots, [segment.slots.start, segment.slots.stop])
        return int(last - first)

    def use_gpus(self) -> None:
        """Use GPUs, if available, to find candidates once many queries have been searched.

        FAISS uses them after BUILD.gpu_queries queries, torch when a number of products in GPU_SEARCH is reached.
        With fewer, copying to the GPUs takes longer than it saves.
        """
        self._query_count = 0

    def first_difference(self, blocks: Iterable[NDArray[np.float16]]) -> int | None:
        """Return the first row whose vector does not match its embedding, None if all match.

        `blocks` are the embeddings of all rows in order, float16 (n, dim).
        """
        unlisted = self._first_unlisted()
        row = 0
        for block in blocks_of(blocks):
            stored, expected = self._stored(slice(row, row + len(block))), whitened(block, self._whitening)
            is_same = _is_close(stored, expected)
            if self.is_exact:
                slots = self.slots[row : row + len(block)]
                in_base = slots < len(self.segments[0])
                held = self._core.reconstruct_batch(slots[in_base])
                is_same[in_base] &= _is_close(held, unit_rows(expected[in_base]))
            if not is_same.all():
                first = row + int(np.argmin(is_same))
                return first if unlisted is None else min(first, unlisted)
            row += len(block)
        return unlisted

    def _first_unlisted(self) -> int | None:
        """Return the first row that is not in exactly one inverted list, None if all are."""
        times = np.concatenate([_times_listed(segment) for segment in self.segments])[self.slots]
        wrong = np.flatnonzero(times != 1)
        return int(wrong[0]) if len(wrong) else None

    def nearest(
        self, queries: NDArray[np.float32], count: int, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows nearest to each query and their exact similarities: int64 and float32, both (m, n).

        `queries` are unit embeddings, float32 (m, dim). n is `count`, or the number of rows that may be found if
        that is less. The most similar rows come first. If FAISS finds too few, all rows are searched.
        """
        return self.nearest_vectors(self.to_vectors(queries), count, among)

    def nearest_vectors(
        self, vectors: NDArray[np.float32], count: int, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search as `nearest` does, for queries that are vectors of this index, see `unit_vectors`."""
        available = len(self) if among is None else among.count
        count = min(count, available)
        if count == 0:
            return np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float32)
        if among is not None and available <= max(BUILD.few_rows, count):
            return brute_force.nearest(vectors, count, self.unit_vectors, among.rows)
        wanted = min(max(count, BUILD.count) * self._candidate_factor(among), available)
        step = max(1, CANDIDATES_AT_ONCE // wanted)
        found = [
            self._nearest_in_batch(vectors[start : start + step], count, wanted, among)
            for start in range(0, max(1, len(vectors)), step)
        ]
        rows, similarities = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(similarities)

    def _nearest_in_batch(
        self, vectors: NDArray[np.float32], count: int, wanted: int, among: Selection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        candidates = self._gpu_candidates(vectors, count, wanted, among)
        if candidates is None:
            candidates = self.candidates(vectors, wanted, self._effort(among), among)
        rows, similarities = brute_force.ranked(candidates, self.candidate_similarities(vectors, candidates))
        rows, similarities = rows[:, :count], similarities[:, :count]
        incomplete = np.flatnonzero(similarities[:, -1] == brute_force.NOT_FOUND)
        if len(incomplete):
            allowed = among.rows if among is not None else len(self)
            rows[incomplete], similarities[incomplete] = brute_force.nearest(
                vectors[incomplete], count, self.unit_vectors, allowed
            )
        return rows, similarities

    def above_vector(
        self, vector: NDArray[np.float32], floor: float, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all rows with a similarity of at least `floor` to one vector of this index, (k,), and it.

        The count and the effort are doubled until at most half of the rows found reach the floor. If that would be
        a large share of all rows, all rows are searched exactly.
        """
        available = len(self) if among is None else among.count
        count, effort = BUILD.few_rows // 64, self._effort(among)
        while count * 8 < available and available > BUILD.few_rows:
            found = self.candidates(vector[None], count * self.tuning.candidates, effort, among)
            rows, similarities = brute_force.ranked(found, self.candidate_similarities(vector[None], found))
            reached = int(np.count_nonzero(similarities[0] >= floor))
            if reached <= count // 2 and similarities[0, count - 1] != brute_force.NOT_FOUND:
                return rows[0, :reached], similarities[0, :reached]
            count, effort = count * 2, effort * 2
        allowed = among.rows if among is not None else len(self)
        return brute_force.above(vector, floor, self.unit_vectors, allowed)

    def candidates(
        self, vectors: NDArray[np.float32], count: int, effort: int, among: Selection | None = None
    ) -> NDArray[np.int64]:
        """Return the rows that FAISS finds nearest to each of the vectors (m, k): int64 (m, count), -1 for none."""
        restore_thread_count()
        return self._rows(self._found(self.segments, vectors, count, effort, among))

    def _found(
        self,
        segments: Sequence[Segment],
        vectors: NDArray[np.float32],
        count: int,
        effort: int,
        among: Selection | None,
    ) -> NDArray[np.int64]:
        """Return the slots found in some segments, one after the other: int64 (m, n), -1 for none."""
        allowed = self._alive if among is None else among
        found = [np.empty((len(vectors), 0), np.int64)]
        for segment in segments:
            bits = None if allowed is None else allowed.bits(self._slots, len(self._vectors), segment.slots)
            found.append(segment.candidates(vectors, count, effort, bits))
        return np.concatenate(found, axis=1)

    def nearest_exactly(
        self, vectors: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what `nearest_vectors` does, from comparing all rows; `count` is at most their number.

        A GPU compares them if there is one and it is worth starting.
        """
        slots = self._scanned(vectors, count, None, len(vectors) * len(self))
        if slots is None:
            return brute_force.nearest(vectors, count, self.unit_vectors, len(self))
        candidates = self._rows(slots)
        rows, similarities = brute_force.ranked(candidates, self.candidate_similarities(vectors, candidates))
        return rows[:, :count], similarities[:, :count]

    def _gpu_candidates(
        self, vectors: NDArray[np.float32], count: int, wanted: int, among: Selection | None
    ) -> NDArray[np.int64] | None:
        """Return candidates from GPUs, -1 for excluded rows: `count` exact ones and a few more, or twice `wanted`.

        None if GPUs are not used.
        """
        if self._query_count is None:
            return None
        with self._counting:
            before, self._query_count = self._query_count, self._query_count + len(vectors)
            so_far = self._query_count
            if before < BUILD.gpu_queries <= so_far:
                self._gpu_index = copy_to_gpus(self._core)
        if self._gpu_index is None:
            slots = self._scanned(vectors, count, among, so_far * len(self))
            return None if slots is None else self._rows(slots)
        if among is not None and 2 * among.count < len(self):
            return None
        slots = self._gpu_index.candidates(vectors, 2 * wanted, self._effort(among))
        if slots is None:
            return None
        added = self._found(self.segments[1:], vectors, wanted, self._effort(among), among)
        rows = self._rows(np.concatenate([slots, added], axis=1))
        return rows if among is None else np.where(among.mask[rows], rows, -1)

    def _scanned(
        self, vectors: NDArray[np.float32], count: int, among: Selection | None, products: float
    ) -> NDArray[np.int64] | None:
        """Return the slots nearest to each vector among all, from torch on a GPU; None if it is not used."""
        if among is None and self._slots is not None:
            among = self._all
        allowed = None if among is None else among.slot_mask(self._slots, len(self._vectors))
        return self._gpu_vectors.candidates(vectors, count, allowed, products)

    def _rows(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each slot, -1 for a dead slot, for -1 and for numbers of no vector."""
        slots = np.where((slots >= 0) & (slots < len(self._vectors)), slots, -1)
        if self._slots is None:
            return slots
        rows = np.minimum(np.searchsorted(self._slots, slots), len(self._slots) - 1)
        return np.where(self._slots[rows] == slots, rows, -1)

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine similarity of one unit embedding, float32 (dim,), to each of the rows."""
        exact: NDArray[np.float32] = self.unit_vectors(rows) @ self.to_vectors(query[None])[0]
        return exact

    def candidate_similarities(
        self, vectors: NDArray[np.float32], candidates: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the exact cosine similarity of each vector (m, k) to its candidates (m, n); -inf for -1."""
        similarities = np.empty(candidates.shape, np.float32)
        step = max(1, BUILD.scan_bytes // (4 * max(1, candidates[:1].size) * vectors.shape[1]))
        for start in range(0, len(candidates), step):
            block = candidates[start : start + step]
            stored = self._stored(block.ravel()).astype(np.float32).reshape(*block.shape, -1)
            norms = np.sqrt(np.einsum("mnk,mnk->mn", stored, stored))
            products = np.matmul(stored, vectors[start : start + step, :, None])[:, :, 0]
            similarities[start : start + step] = products / np.maximum(norms, np.float32(1e-12))
        similarities[candidates < 0] = brute_force.NOT_FOUND
        return similarities

    def unit_vectors(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return the vectors of rows, float32, of unit length: their dot products are similarities."""
        return unit_rows(self._stored(rows))

    def to_vectors(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return unit embeddings (n, dim) as vectors of this index, whitened if it whitens: float32, unit rows."""
        return embeddings if self._whitening is None else self._whitening.apply(embeddings)

    def all_but(self, rows: NDArray[np.int64]) -> Selection | None:
        """Return the selection of all rows except these, None if `rows` is empty. The last one is cached."""
        if len(rows) == 0:
            return None
        key, last = rows.tobytes(), self._all_but
        if last is None or last[0] != key:
            mask = np.ones(len(self), bool)
            mask[rows] = False
            last = self._all_but = key, Selection(mask)
        return last[1]

    def _stored(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float16]:
        return self._vectors[rows if self._slots is None else self._slots[rows]]

    @cached_property
    def _all(self) -> Selection:
        return Selection(np.ones(len(self), bool))

    @property
    def _alive(self) -> Selection | None:
        """The selection of all rows if FAISS still holds dead slots, else None."""
        held = sum(len(each) if each.built is None else each.built.ntotal for each in self.segments)
        return None if held == len(self) else self._all

    def _candidate_factor(self, among: Selection | None) -> int:
        """Return how many times as many rows as requested to score exactly.

        More with a filter: the nearest rows that pass it are farther away, where codes rank less accurately.
        """
        is_filtered = among is not None and 2 * among.count <= len(self)
        return self.tuning.candidates * (2 if is_filtered else 1)

    def _effort(self, among: Selection | None) -> int:
        """Return the effort: the fewer rows may be found, the more lists they are spread over."""
        effort = self.tuning.effort
        if among is None or not effort:
            return effort
        raised = effort * len(self) // max(1, among.count)
        return min(raised, self.lists) if self.lists else raised


def whitened(embeddings: NDArray[np.float16], whitening: Whitening | None) -> NDArray[np.float16]:
    """Return embeddings as float16 vectors of an index, whitened if there is a whitening."""
    return embeddings if whitening is None else whitening.apply(embeddings).astype(np.float16)


def _read_segments(directory: Path, index: FaissIndex) -> list[Segment]:
    """Return the segments in `directory`, the base first, with its FAISS index `index`. Raises IndexDamaged."""
    segments: list[Segment] = []
    for number in range(segment_count(directory)):
        vectors = read_vectors(directory, number)
        built = index if number == 0 else read_index(directory, number) if has_index(directory, number) else None
        if vectors.ndim != 2 or vectors.dtype != np.float16:
            file = directory / segment_file(VECTORS_FILE, number)
            raise IndexDamaged(file, f"holds {vectors.shape} {vectors.dtype}, not vectors in float16")
        segments.append(Segment(vectors, sum(map(len, segments)), built))
    return segments


def _times_listed(segment: Segment) -> NDArray[np.int64]:
    """Return in how many inverted lists each slot of a segment is; 1 if it has none."""
    ivf = ivf_of(segment.built) if segment.built is not None else None
    if ivf is None:
        return np.ones(len(segment), np.int64)
    listed = np.concatenate([np.empty(0, np.int64), *(_list_ids(ivf, at) for at in range(ivf.nlist))])
    return np.bincount(listed, minlength=len(segment))[: len(segment)]


def _list_ids(ivf: FaissIndex, at: int) -> NDArray[np.int64]:
    """Return the slots in inverted list `at`."""
    size = ivf.invlists.list_size(at)
    if not size:
        return np.empty(0, np.int64)
    ids: NDArray[np.int64] = faiss().rev_swig_ptr(ivf.invlists.get_ids(at), size).copy()
    return ids


def _is_close(ones: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return for each row whether all its values are equal up to rounding; NaN never is."""
    is_close = np.abs(ones.astype(np.float32) - others) <= FLOAT16_TOLERANCE
    return np.asarray(is_close.all(axis=1))
