"""The nearest rows of many queries through torch: products in half precision, then exact re-scoring of a few rows.

A block of queries is multiplied with a block of rows in float16. The rows form groups, and the groups with the
largest products are selected first, since selecting from all products takes longer than computing them. The best
rows of the best groups are the candidates. Their similarities are computed in float64 from the stored vectors.

Every product that is not a candidate has an upper bound: the last one selected plus the largest error that rounding
can cause. If the last similarity requested is higher than that, no other row can be in the result. If not, for
example because a row has more exact copies than there are candidates, the query is repeated in float64. So the
result is that of exact search, whatever the vectors are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggsearch.defaults import GPU_SEARCH
from vggsearch.knn.edges import SIMILARITY_STEPS
from vggsearch.knn.keys import NO_KEY, ROW_MASK
from vggsearch.knn.vectors import SMALLEST_NORM, StoredVectors
from vggsearch.progress import SILENT, Monitor

HALF_ROUNDING = 2.0**-11  # largest relative error of rounding to float16
SUM_ROUNDING = 2.0**-22  # of each addition of a float32 sum; tensor cores truncate where processors round
NEARLY_UNIT = 2.0**-10  # a float16 vector whose length is that near to 1 is multiplied as it is stored
CHUNK_ROWS = 65_536  # prepared at once in float64, at most
CHUNK_BYTES = 32  # that preparing them takes for each of their values
GROUPS_AT_ONCE = 8  # their number is a multiple of this, so that torch reads several products at once
MOST_PRODUCTS = 2**31 - 1  # in one block: torch splits the work on larger tensors
UNPROVEN = NO_KEY - 1  # in place of the keys of a query that is to be repeated
LEAST_ROOM = 1 << 20  # bytes; with less, the GPU is full

Vectors = NDArray[np.float16] | NDArray[np.float32] | StoredVectors


@dataclass(frozen=True)
class Rows:
    """Vectors on the device: `stored`, (n, dim), and their lengths `norms`, float64 (n,).

    `half` are the unit vectors in float16, each at most `error` away: the stored ones, if they are near enough.
    """

    stored: Tensor
    half: Tensor
    norms: Tensor
    error: float

    def __getitem__(self, rows: slice | Tensor) -> "Rows":
        return Rows(self.stored[rows], self.half[rows], self.norms[rows], self.error)

    def __len__(self) -> int:
        return len(self.stored)

    def unit(self) -> Tensor:
        """Return the unit vectors, float64 (n, dim)."""
        return self.stored.double() / self.norms[:, None]


@dataclass(frozen=True)
class Search:
    """What is searched for: the `count` nearest of the rows `allowed`, bool (padded rows,).

    `spare` more are re-scored. Below the similarity `floor`, rows may be missing.
    """

    count: int
    spare: int
    allowed: Tensor
    floor: float = -2.0

    @property
    def wanted(self) -> int:
        """How many candidates are kept."""
        return self.count + self.spare


class TorchScan:
    """Vectors, float16 or float32 (n, dim), on a torch device, compared with every query.

    They stay on the device if they take at most half of its free memory, else they are uploaded block by block for
    each block of queries. If memory runs out, the blocks are halved; once they are tiny, and for any other failure
    of the device, methods raise RuntimeError. A scan serves one thread at a time.
    """

    def __init__(self, vectors: Vectors, device: torch.device, room: int | None = None) -> None:
        self._vectors, self._device, self._lock = vectors, device, Lock()
        free = _free_bytes(device) if room is None else room
        self._room = free // 3  # for products and candidates
        self._resident: Rows | None = None
        if self._padded * vectors.shape[1] * vectors.itemsize <= free // 2:
            self._resident = self._uploaded(0, self._padded)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def _padded(self) -> int:
        """The number of rows, rounded up to whole steps."""
        return -(-max(1, len(self._vectors)) // _step()) * _step()

    def nearest(
        self, queries: NDArray[np.float32], count: int, wanted: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Return rows that include the `count` nearest to each query: int64 (m, count and a few more), -1 for none.

        `queries` are float32 (m, dim). Rows are ordered by descending similarity, but similarities closer than
        2**-20 count as equal. `wanted`, bool (n,), selects the rows that may be returned.
        """
        search = Search(count, _spare(count), self._allowed(wanted))
        found = [np.empty((0, search.wanted), np.int64)]
        with self._lock, _exact_sums():
            for batch in self._batches(len(queries), search):
                vectors = self._prepared(queries[batch])
                found.append(self._keys(vectors, torch.full((len(vectors),), -1, device=self._device), search))
        keys = np.concatenate(found)
        return np.where(keys == NO_KEY, -1, ROW_MASK - (keys & ROW_MASK))

    def neighbours(
        self, count: int, floor: float, without: NDArray[np.bool_], monitor: Monitor = SILENT
    ) -> NDArray[np.int64]:
        """Return the keys of the `count` nearest other rows of each row: int64 (n, count), descending, see `keys`.

        Rows that are True in `without`, bool (n,), have no neighbours and are none; other lists may lack rows with
        a similarity below `floor`, and end in NO_KEY if they are too short. Raises Stopped.
        """
        rows = np.flatnonzero(~without)
        search = Search(count, _spare(count) + 1, self._allowed(~without), floor)  # a row finds itself, too
        keys = np.full((len(self), count), NO_KEY)
        pairs = len(self) * (len(self) - 1) // 2
        monitor.check()
        with self._lock, _exact_sums():
            for batch in self._batches(len(rows), search):
                keys[rows[batch]] = self._keys(*self._own(rows[batch]), search)[:, :count]
                monitor.step("comparing embeddings", batch.stop * pairs // len(rows), pairs, "pairs")
        return keys

    def pairs(
        self, keys: NDArray[np.int64], floor: float
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]] | None:
        """Return the pairs in lists of neighbours, (n, count), with a similarity of at least `floor`, each once.

        Three columns, sorted: the lower row, the higher one, the similarity. None if memory runs out: sorting 32
        million pairs takes 2 GB, and on a CPU ten times as long as finding them on a GPU.
        """
        try:
            return _distinct_pairs(torch.from_numpy(keys).to(self._device), floor)
        except torch.OutOfMemoryError:
            return None

    def non_finite(self) -> int | None:
        """Return the first row that contains infinity or NaN, None if none does."""
        for start, block in self._blocks(CHUNK_ROWS):
            wrong = (~block.norms.isfinite()).nonzero()
            if len(wrong):
                return start + int(wrong[0])
        return None

    def _batches(self, total: int, search: Search) -> Iterator[slice]:
        """Yield batches of queries: several blocks, so that the GPU does not wait for this process after each."""
        start = 0
        while start < total:
            stop = min(start + GPU_SEARCH.blocks * self._queries_at_once(search), total)
            yield slice(start, stop)
            start = stop

    def _own(self, rows: NDArray[np.int64]) -> tuple[Rows, Tensor]:
        """Return rows as queries, and their numbers."""
        own = torch.from_numpy(rows).to(self._device)
        return (self._prepared(self._vectors[rows]) if self._resident is None else self._resident[own]), own

    def _keys(self, queries: Rows, own: Tensor, search: Search) -> NDArray[np.int64]:
        """Return the keys of the nearest rows: int64 (m, search.wanted), descending.

        `own` are the rows of the queries, int64 (m,), which are not their own neighbours; -1 for others.
        """
        keys = self._by_blocks(
            len(queries),
            lambda: self._queries_at_once(search),
            lambda some: self._proven_keys(queries[some], own[some], search),
        )
        missing = (keys[:, 0] == UNPROVEN).nonzero()[:, 0]
        if len(missing):
            keys[missing] = self._by_blocks(
                len(missing),
                lambda: min(GPU_SEARCH.exact_queries, self._queries_at_once(search)),
                lambda some: self._exact_keys(queries[missing[some]], own[missing[some]], search),
            )
        found: NDArray[np.int64] = keys.cpu().numpy()
        return found

    def _by_blocks(self, total: int, at_once: Callable[[], int], work: Callable[[slice], Tensor]) -> Tensor:
        """Return the keys that `work` finds for blocks of `total` queries; smaller ones once memory has run out."""
        found, start = [], 0
        while start < total:
            block = slice(start, min(start + at_once(), total))
            keys = self._attempted(work, block)
            if keys is not None:
                found.append(keys)
                start = block.stop
        return torch.cat(found)

    def _attempted(self, work: Callable[[slice], Tensor], block: slice) -> Tensor | None:
        """Return the result of `work`; None if memory ran out, after halving what it may take."""
        try:
            return work(block)
        except torch.OutOfMemoryError:
            self._room //= 2
            if self._room < LEAST_ROOM:
                raise
        torch.cuda.empty_cache()  # after the exception, whose traceback keeps tensors
        return None

    def _proven_keys(self, queries: Rows, own: Tensor, search: Search) -> Tensor:
        """Return the keys of the nearest rows; UNPROVEN for queries for which half precision was not enough."""
        best = torch.full((len(queries), search.wanted), NO_KEY, device=self._device)
        bound = torch.full((len(queries),), -torch.inf, dtype=torch.float64, device=self._device)
        unit = queries.unit()[:, :, None]
        for start, block in self._blocks(self._rows_at_once(len(queries))):
            allowed = search.allowed[start : start + len(block)] & block.norms.isfinite()
            positions, dropped = _candidates(queries, block, allowed, search.wanted)
            products = torch.bmm(block.stored[positions].double(), unit)[:, :, 0] / block.norms[positions]
            best = _merged(best, _keys_of(products, positions, start, allowed[positions], own))
            bound = torch.maximum(bound, dropped)
        # Of the rows in `best`, the last is the best one that merging can have dropped.
        merged = torch.where(best[:, -1] == NO_KEY, -torch.inf, _steps_of(best[:, -1]) + 0.5)
        bound = torch.maximum(bound * SIMILARITY_STEPS, merged)
        is_proven = (bound == -torch.inf) | (bound < _steps_of(best[:, search.count - 1]) - 0.5)
        is_proven |= bound < search.floor * SIMILARITY_STEPS - 0.5
        return torch.where(is_proven[:, None], best, UNPROVEN)

    def _exact_keys(self, queries: Rows, own: Tensor, search: Search) -> Tensor:
        """Return the keys of the nearest rows, from float64 products with all rows."""
        best = torch.full((len(queries), search.wanted), NO_KEY, device=self._device)
        unit = queries.unit()
        at_once = self._room // (64 * len(queries) + 16 * unit.shape[1])
        for start, block in self._blocks(max(1, at_once // _step()) * _step()):
            allowed = search.allowed[start : start + len(block)] & block.norms.isfinite()
            positions = torch.arange(len(block), device=self._device).expand(len(queries), -1)
            best = _merged(best, _keys_of(unit @ block.unit().T, positions, start, allowed, own))
        return best

    def _allowed(self, wanted: NDArray[np.bool_] | None) -> Tensor:
        allowed = torch.zeros(self._padded, dtype=torch.bool, device=self._device)
        allowed[: len(self)] = True if wanted is None else torch.tensor(wanted, device=self._device)
        return allowed

    def _queries_at_once(self, search: Search) -> int:
        """Return how many queries fit in a third of the room: their candidates in float64 take most of it."""
        bytes_each: int = search.wanted * (20 * self._vectors.shape[1] + 16 * GPU_SEARCH.group)
        return max(1, min(GPU_SEARCH.queries, self._room // 3 // bytes_each))

    def _rows_at_once(self, queries: int) -> int:
        """Return the number of rows whose products with that many queries fit in two thirds of the room.

        So do the rows themselves, as they are stored and as unit vectors in float16, if they have to be uploaded.
        """
        uploaded = 0 if self._resident is not None else self._vectors.shape[1] * (self._vectors.itemsize + 2)
        rows = min(self._padded, MOST_PRODUCTS // queries, self._room * 2 // 3 // (3 * queries + uploaded))
        return max(1, rows // _step()) * _step()

    def _blocks(self, size: int) -> Iterator[tuple[int, Rows]]:
        """Yield blocks of `size` rows, a multiple of the step, each with its first row."""
        for start in range(0, self._padded, size):
            stop = min(start + size, self._padded)
            yield start, self._uploaded(start, stop) if self._resident is None else self._resident[start:stop]

    def _uploaded(self, start: int, stop: int) -> Rows:
        """Return rows on the device, padded with zeros."""
        dtype = torch.float16 if self._vectors.dtype == np.float16 else torch.float32
        stored = torch.zeros((stop - start, self._vectors.shape[1]), dtype=dtype, device=self._device)
        for at in range(start, min(stop, len(self)), CHUNK_ROWS):
            part = np.array(self._vectors[at : min(at + CHUNK_ROWS, stop)])  # a copy: mapped files are read-only
            stored[at - start : at - start + len(part)] = torch.from_numpy(part)
        return _rows(stored, self._chunk)

    def _prepared(self, vectors: Vectors) -> Rows:
        return _rows(torch.from_numpy(np.array(vectors)).to(self._device), self._chunk)

    @property
    def _chunk(self) -> int:
        """How many rows are prepared at once: they take a third of the room at most."""
        dim: int = self._vectors.shape[1]
        return max(1, min(CHUNK_ROWS, self._room // 3 // (CHUNK_BYTES * dim)))


def _rows(stored: Tensor, at_once: int) -> Rows:
    """Return vectors with their lengths and unit vectors in float16; so many rows are prepared at once."""
    norms = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in torch.split(stored, at_once)])
    norms = norms.clamp(min=SMALLEST_NORM)
    off = torch.where(norms == SMALLEST_NORM, 0.0, (norms - 1).abs())
    error = float(off.max()) if len(off) else 0.0
    if stored.dtype == torch.float16 and error <= NEARLY_UNIT:
        return Rows(stored, stored, norms, error)
    half, error = torch.empty_like(stored, dtype=torch.float16), 0.0
    for at in range(0, len(stored), at_once):
        part = slice(at, at + at_once)
        unit = torch.nan_to_num(stored[part].double() / norms[part, None], 0.0, 0.0, 0.0)
        half[part] = unit
        error = max(error, float(torch.linalg.vector_norm(half[part].double() - unit, dim=1).max()))
    return Rows(stored, half, norms, error)


def _candidates(queries: Rows, block: Rows, allowed: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """Return the positions of the best rows of a block, int64 (m, n), and the most that any other row can reach.

    The second is float64 (m,): an upper bound of the exact similarities of all allowed rows that are not returned.
    """
    bias = torch.where(allowed, 0.0, -torch.inf).to(torch.float16)
    products = torch.addmm(bias, queries.half, block.half.T)
    # Group g holds the rows g, g + n, g + 2 n ... of n groups, so that memory is read in order.
    groups = len(block) // GPU_SEARCH.group
    largest = products.view(len(queries), GPU_SEARCH.group, groups).amax(1)
    best_groups = largest.topk(min(wanted + 1, groups), 1)
    members = torch.arange(0, len(block), groups, device=products.device)
    positions = (best_groups.indices[:, :, None] + members).flatten(1)
    best = products.gather(1, positions).topk(min(wanted, positions.shape[1]), 1)
    dropped = torch.full((len(queries),), -torch.inf, dtype=torch.float64, device=products.device)
    if best_groups.indices.shape[1] < groups:
        dropped = best_groups.values[:, -1].double()
    if best.indices.shape[1] < positions.shape[1]:
        dropped = torch.maximum(dropped, best.values[:, -1].double())
    return positions.gather(1, best.indices), dropped + _largest_error(queries, block, dropped)


def _largest_error(queries: Rows, block: Rows, products: Tensor) -> Tensor:
    """Return the most that float16 products, float64 (m,), can be below the exact ones.

    That is the distance of both vectors from their unit vectors, by the Cauchy-Schwarz inequality; the rounding of
    the sum; and that of the product itself.
    """
    of_inputs = queries.error + block.error + queries.error * block.error
    of_sum = SUM_ROUNDING * queries.half.shape[1] + 1e-6
    return of_inputs + of_sum + HALF_ROUNDING * products.abs().clamp(max=2.0)


def _keys_of(products: Tensor, positions: Tensor, start: int, allowed: Tensor, own: Tensor) -> Tensor:
    """Return the keys of exact products (m, n) with rows `start` + `positions`, NO_KEY if not allowed or own."""
    steps = (products.clamp(max=1.0) * SIMILARITY_STEPS).round()
    rows = positions + start
    keys = torch.nan_to_num(steps, 0.0, 0.0, 0.0).long() * (1 << 32) + (ROW_MASK - rows)
    return torch.where(allowed & (rows != own[:, None]), keys, NO_KEY)


def _merged(best: Tensor, keys: Tensor) -> Tensor:
    """Return the best of both, as many as in `best`, descending."""
    return torch.cat([best, keys], 1).topk(best.shape[1], 1).values


def _distinct_pairs(keys: Tensor, floor: float) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    similarities = (keys >> 32).float() / SIMILARITY_STEPS
    is_listed = (keys != NO_KEY) & (similarities >= floor)
    rows, others = is_listed.nonzero()[:, 0], ROW_MASK - (keys[is_listed] & ROW_MASK)
    pairs, order = (torch.minimum(rows, others) * (1 << 32) + torch.maximum(rows, others)).sort()
    is_new = torch.ones_like(pairs, dtype=torch.bool)
    is_new[1:] = pairs[1:] != pairs[:-1]
    pairs, similarities = pairs[is_new], similarities[is_listed][order[is_new]]
    first, second = (pairs >> 32).int().cpu().numpy(), (pairs & ROW_MASK).int().cpu().numpy()
    return first, second, similarities.cpu().numpy()


def _steps_of(keys: Tensor) -> Tensor:
    return (keys >> 32).double()


def _step() -> int:
    """Return the number of rows of which a block is a multiple."""
    return GPU_SEARCH.group * GROUPS_AT_ONCE


def _spare(count: int) -> int:
    """Return how many rows more than `count` are re-scored exactly: enough that the proof above rarely fails."""
    return max(GPU_SEARCH.spare, count // 2)


def _free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU; elsewhere, what a test needs."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 1 << 30


@contextmanager
def _exact_sums() -> Iterator[None]:
    """Let no sum of float16 products be rounded to float16 on the way, as torch allows by default or on request."""
    options = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation")  # the second from torch 2.7 on
    before = {name: getattr(options, name) for name in names if hasattr(options, name)}
    for name in before:
        setattr(options, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(options, name, value)
