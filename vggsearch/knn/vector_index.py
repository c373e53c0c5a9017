"""The search over vectors by row, with any recipe: candidates from FAISS, similarities from the vectors."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged
from vggsearch.knn import brute_force
from vggsearch.knn.faiss_import import faiss, use_threads
from vggsearch.knn.files import INDEX_FILE, VECTORS_FILE, read_index, read_slots, read_vectors, without_whitening
from vggsearch.knn.gpu import Gpus, copied_to_gpus
from vggsearch.knn.recipes import graph_of, list_count, lists_of, search_parameters
from vggsearch.knn.vectors import blocks_of, unit_rows
from vggsearch.knn.whitening import Whitening

ROUNDING = 2**-10  # between a float16 vector and the same one computed on another machine
MOST_COPIES = 2**20  # candidates that are asked for at once, of all queries together


@dataclass(frozen=True)
class Tuning:
    """How hard an index is to look, and what that gave when it was measured.

    `effort` is how many inverted lists are looked into, or how long HNSW's queue is (efSearch); 0 where a recipe
    has neither. `candidates` times as many rows as are asked for are scored exactly. `recall` is the share of the
    ten nearest that were found, `milliseconds` what one query took; None where that was not measured.
    """

    effort: int = 0
    candidates: int = 1
    recall: float | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Selection:
    """The rows that may be found: `mask`, bool (rows,)."""

    mask: NDArray[np.bool_]

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Their numbers, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def _bits(self) -> dict[int, NDArray[np.uint8]]:
        return {}

    def bits(self, slots: NDArray[np.int64] | None, size: int) -> NDArray[np.uint8]:
        """Return them as FAISS wants them: one bit for each of `size` slots."""
        if size not in self._bits:
            mask = self.mask
            if slots is not None:
                mask = np.zeros(size, bool)
                mask[slots[self.rows]] = True
            self._bits[size] = np.packbits(mask, bitorder="little")
        return self._bits[size]


class VectorIndex:
    """Vectors by row: the embeddings, whitened where the collection has a whitening.

    `similarity` is the cosine of two such vectors: 1.0 the same direction, larger is nearer. It is always computed
    from the float16 vectors, so that it is exact whichever recipe found the row. Queries are plain embeddings.
    The FAISS file takes them too, since it holds the whitening as its pre-transform.

    A *slot* is the position of a vector in the file, and what FAISS knows it by; rows are the slots that are alive,
    in order. They differ once rows have been removed from an index that was changed rather than made anew.
    """

    def __init__(
        self,
        index: Any,
        vectors: NDArray[np.float16],
        slots: NDArray[np.int64] | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.faiss_index = index
        self.tuning = tuning or Tuning()
        self._core, self._whitening = without_whitening(index)
        self._vectors = vectors
        self._slots = slots
        self._without: tuple[bytes, Selection] | None = None
        self._asked: int | None = None  # queries so far, where GPUs may be used
        self._gpus: Gpus | None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._vectors) if self._slots is None else len(self._slots)

    @property
    def whitening(self) -> Whitening | None:
        """How embeddings become its vectors, None where they are their own."""
        return self._whitening

    @property
    def lists(self) -> int:
        """How many inverted lists FAISS divides the vectors into, 0 where it does not."""
        return list_count(self._core)

    @property
    def is_exact(self) -> bool:
        """Whether FAISS itself looks at every vector."""
        return isinstance(self._core, faiss().IndexFlat)

    @property
    def core(self) -> Any:
        """The FAISS index of the vectors, without the whitening before it."""
        return self._core

    @property
    def slots(self) -> NDArray[np.int64]:
        """The slot of each row, ascending."""
        return np.arange(len(self._vectors)) if self._slots is None else self._slots

    @property
    def stored(self) -> NDArray[np.float16]:
        """All vectors by slot, dead ones too: float16 (slots, dim)."""
        return self._vectors

    @classmethod
    def open(cls, directory: Path, rows: int, dim: int, tuning: Tuning | None = None) -> "VectorIndex":
        """Open what was built, memory-mapped. Raises IndexDamaged where it is not of `rows` x `dim`."""
        index, vectors, slots = read_index(directory), read_vectors(directory), read_slots(directory)
        opened = cls(index, vectors, slots, tuning)
        size = opened.whitening.dim if opened.whitening is not None else dim
        is_sound = vectors.ndim == 2 and vectors.shape[1] == size and vectors.dtype == np.float16
        if slots is not None:
            is_sound = is_sound and slots.ndim == 1 and slots.dtype == np.int64 and len(slots) <= len(vectors)
        if not is_sound or (len(opened), index.d) != (rows, dim) or index.ntotal not in (rows, len(vectors)):
            raise IndexDamaged(
                directory,
                f"holds {index.ntotal} x {index.d} in {INDEX_FILE} and {vectors.shape} {vectors.dtype} "
                f"in {VECTORS_FILE}; the manifest says {rows} x {dim}",
            )
        return opened

    def use_gpus(self) -> None:
        """Let GPUs look for candidates from now on, if there are any, once BUILD.card_queries were asked.

        It takes that many queries to make up for copying the index there.
        """
        self._asked = 0

    @property
    def is_on_gpus(self) -> bool:
        """Whether GPUs hold a copy of it."""
        return self._gpus is not None

    def first_difference(self, blocks: Iterable[NDArray[np.float16]]) -> int | None:
        """Return the first row that is not that of the embeddings, float16 (rows, dim) blocks in row order."""
        lost = self._first_lost()
        row = 0
        for some in blocks_of(blocks):
            kept, wanted = self._stored(slice(row, row + len(some))), whitened(some, self._whitening)
            same = _is_near(kept, wanted)
            if self.is_exact:
                same &= _is_near(self._core.reconstruct_n(row, len(some)), unit_rows(wanted))
            if not same.all():
                first = row + int(np.argmin(same))
                return first if lost is None else min(first, lost)
            row += len(some)
        return lost

    def _first_lost(self) -> int | None:
        """Return the first row that is in none of the inverted lists, or in two."""
        ivf = lists_of(self._core)
        if ivf is None:
            return None
        held = np.concatenate([np.empty(0, np.int64), *(_ids(ivf, number) for number in range(ivf.nlist))])
        times = np.bincount(held, minlength=len(self._vectors))[self.slots]
        wrong = np.flatnonzero(times != 1)
        return int(wrong[0]) if len(wrong) else None

    def nearest(
        self, queries: NDArray[np.float32], count: int, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows most like each of some unit embeddings, float32 (m, dim), and their exact similarities.

        Two arrays (m, n), int64 and float32, most similar first: n is `count`, or all rows if they are fewer; with
        `among`, all rows that it selects. No line is shorter: where FAISS finds too few, every row is looked at.
        """
        return self.nearest_vectors(self.searched(queries), count, among)

    def nearest_vectors(
        self, vectors: NDArray[np.float32], count: int, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Do what `nearest` does, for vectors of this index itself, as `unit_vectors` gives them."""
        there_are = len(self) if among is None else among.count
        count = min(count, there_are)
        if count == 0:
            return np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float32)
        if among is not None and there_are <= max(BUILD.few_rows, count):
            return brute_force.nearest(vectors, count, self.unit_vectors, among.rows)
        wanted = min(max(count, BUILD.count) * self._candidates(among), there_are)
        step = max(1, MOST_COPIES // wanted)
        found = [
            self._nearest_few(vectors[start : start + step], count, wanted, among)
            for start in range(0, max(1, len(vectors)), step)
        ]
        rows, similarities = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(similarities)

    def _nearest_few(
        self, vectors: NDArray[np.float32], count: int, wanted: int, among: Selection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        candidates = self._from_gpus(vectors, wanted, among)
        if candidates is None:
            candidates = self.candidates(vectors, wanted, self._effort(among), among)
        rows, similarities = brute_force.ranked(candidates, self.similarities_of(vectors, candidates))
        rows, similarities = rows[:, :count], similarities[:, :count]
        short = np.flatnonzero(similarities[:, -1] == brute_force.NOWHERE)
        if len(short):
            allowed = among.rows if among is not None else len(self)
            rows[short], similarities[short] = brute_force.nearest(
                vectors[short], count, self.unit_vectors, allowed
            )
        return rows, similarities

    def above(
        self, query: NDArray[np.float32], floor: float, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all rows at least `floor` similar to one unit embedding (dim,), and their exact similarities.

        More and more is asked for, and looked at harder, until no more than half of it reaches the floor; where
        that is a large part of all rows, every row is looked at.
        """
        return self.above_vector(self.searched(query[None])[0], floor, among)

    def above_vector(
        self, vector: NDArray[np.float32], floor: float, among: Selection | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Do what `above` does, for a vector of this index itself, as `unit_vectors` gives them."""
        there_are = len(self) if among is None else among.count
        count, effort = BUILD.few_rows // 64, self._effort(among)
        while count * 8 < there_are and there_are > BUILD.few_rows:
            found = self.candidates(vector[None], count * self.tuning.candidates, effort, among)
            rows, similarities = brute_force.ranked(found, self.similarities_of(vector[None], found))
            reached = int(np.count_nonzero(similarities[0] >= floor))
            if reached <= count // 2 and similarities[0, count - 1] != brute_force.NOWHERE:
                return rows[0, :reached], similarities[0, :reached]
            count, effort = count * 2, effort * 2
        allowed = among.rows if among is not None else len(self)
        return brute_force.above(vector, floor, self.unit_vectors, allowed)

    def candidates(
        self, vectors: NDArray[np.float32], count: int, effort: int, among: Selection | None = None
    ) -> NDArray[np.int64]:
        """Return the rows that FAISS thinks nearest to some vectors (m, k): int64 (m, count), -1 where none."""
        use_threads()
        alive = self._alive if among is None else among
        selector = None
        if alive is not None:
            bits = alive.bits(self._slots, len(self._vectors))
            selector = faiss().IDSelectorBitmap(bits)
        parameters = search_parameters(self._core, max(effort, count if graph_of(self._core) else 1), selector)
        _, slots = self._core.search(vectors, min(count, len(self._vectors)), params=parameters)
        return self._rows(slots)

    def _from_gpus(
        self, vectors: NDArray[np.float32], wanted: int, among: Selection | None
    ) -> NDArray[np.int64] | None:
        """Return what `candidates` does, if GPUs can tell: twice as many, without those that may not be found."""
        if self._asked is None:
            return None
        before, self._asked = self._asked, self._asked + len(vectors)
        if before < BUILD.gpu_queries <= self._asked:
            self._gpus = copied_to_gpus(self._core)
        if self._gpus is None or (among is not None and 2 * among.count < len(self)):
            return None
        slots = self._gpus.candidates(vectors, 2 * wanted, self._effort(among))
        if slots is None:
            return None
        rows = self._rows(slots)
        return rows if among is None else np.where(among.mask[rows], rows, -1)

    def _rows(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each slot, -1 for one that is dead, or none."""
        if self._slots is None:
            return slots
        rows = np.minimum(np.searchsorted(self._slots, slots), len(self._slots) - 1)
        return np.where(self._slots[rows] == slots, rows, -1)

    def similarities(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of one unit embedding, float32 (dim,), with each of the rows."""
        exact: NDArray[np.float32] = self.unit_vectors(rows) @ self.searched(query[None])[0]
        return exact

    def similarities_of(self, vectors: NDArray[np.float32], candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of each vector (m, k) with its candidates (m, n); -inf for a candidate of -1."""
        found = np.empty(candidates.shape, np.float32)
        step = max(1, BUILD.scan_bytes // (4 * max(1, candidates[:1].size) * vectors.shape[1]))
        for start in range(0, len(candidates), step):
            some = candidates[start : start + step]
            kept = self._stored(some.ravel()).astype(np.float32).reshape(*some.shape, -1)
            norms = np.sqrt(np.einsum("mnk,mnk->mn", kept, kept))
            products = np.matmul(kept, vectors[start : start + step, :, None])[:, :, 0]
            found[start : start + step] = products / np.maximum(norms, np.float32(1e-12))
        found[candidates < 0] = brute_force.NOWHERE
        return found

    def unit_vectors(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return the vectors of some rows, float32, of unit length: their products are similarities."""
        return unit_rows(self._stored(rows))

    def searched(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return embeddings (n, dim) as the vectors of this index: float32, rows of unit length."""
        return embeddings if self._whitening is None else self._whitening.apply(embeddings)

    def without(self, rows: NDArray[np.int64]) -> Selection | None:
        """Return the selection of all rows but these, None for all rows; it is remembered."""
        if len(rows) == 0:
            return None
        key = rows.tobytes()
        if self._without is None or self._without[0] != key:
            mask = np.ones(len(self), bool)
            mask[rows] = False
            self._without = key, Selection(mask)
        return self._without[1]

    def _stored(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float16]:
        return self._vectors[rows if self._slots is None else self._slots[rows]]

    @cached_property
    def _alive(self) -> Selection | None:
        """The selection of all rows where FAISS still holds dead slots, else None."""
        return None if self._core.ntotal == len(self) else Selection(np.ones(len(self), bool))

    def _candidates(self, among: Selection | None) -> int:
        """Return how many times as many rows to score exactly: more behind a filter, where the nearest are farther,
        and codes tell less well which is nearer.
        """
        is_filtered = among is not None and 2 * among.count <= len(self)
        return self.tuning.candidates * (2 if is_filtered else 1)

    def _effort(self, among: Selection | None) -> int:
        """Return how hard to look: harder the fewer rows may be found, as those are spread over more lists."""
        effort = self.tuning.effort
        if among is None or not effort:
            return effort
        raised = effort * len(self) // max(1, among.count)
        return min(raised, self.lists) if self.lists else raised


def whitened(embeddings: NDArray[np.float16], whitening: Whitening | None) -> NDArray[np.float16]:
    """Return embeddings as the float16 vectors that are kept."""
    return embeddings if whitening is None else whitening.apply(embeddings).astype(np.float16)


def _ids(ivf: Any, number: int) -> NDArray[np.int64]:
    """Return the slots in one inverted list."""
    size = ivf.invlists.list_size(number)
    found: NDArray[np.int64] = faiss().rev_swig_ptr(ivf.invlists.get_ids(number), size).copy()
    return found


def _is_near(some: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Say of each row whether all its numbers are the same but for rounding; NaN is not."""
    near = np.abs(some.astype(np.float32) - others) <= ROUNDING
    return np.asarray(near.all(axis=1))
