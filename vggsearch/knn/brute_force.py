"""Exact search over all vectors: the reference for every approximate index, and its fallback."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD

NOT_FOUND = np.float32(-np.inf)  # the similarity of a missing row

LoadVectors = Callable[[NDArray[np.int64] | slice], NDArray[np.float32]]  # rows -> their unit vectors


def nearest(
    queries: NDArray[np.float32], count: int, vectors: LoadVectors, rows: NDArray[np.int64] | int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the `count` rows most similar to each query, and their similarities: two arrays (m, count).

    `queries` are unit vectors (m, dim). `rows` are the rows to search, int64 ascending, or a number n for the rows
    0 to n - 1; at least `count`. Rows are sorted by descending similarity, equal ones by ascending row. `vectors`
    returns the unit vectors (n, dim) of rows.
    """
    best_rows = np.empty((len(queries), 0), np.int64)
    best = np.empty((len(queries), 0), np.float32)
    for block in _blocks(rows, queries.shape[1]):
        similarities = queries @ vectors(block).T
        block_rows = np.arange(block.start, block.stop) if isinstance(block, slice) else block
        best = np.concatenate([best, similarities], axis=1)
        best_rows = np.concatenate([best_rows, np.broadcast_to(block_rows, similarities.shape)], axis=1)
        if best.shape[1] > count:
            kept = np.argpartition(-best, count - 1, axis=1)[:, :count]
            best, best_rows = np.take_along_axis(best, kept, 1), np.take_along_axis(best_rows, kept, 1)
    return ranked(best_rows, best)


def above(
    query: NDArray[np.float32], floor: float, vectors: LoadVectors, rows: NDArray[np.int64] | int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return all rows with a similarity of at least `floor` to one query (dim,), and it, most similar first."""
    found, found_similarities = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for block in _blocks(rows, len(query)):
        similarities = vectors(block) @ query
        reached = np.flatnonzero(similarities >= floor)
        found.append(reached + block.start if isinstance(block, slice) else block[reached])
        found_similarities.append(similarities[reached])
    ordered, similarities = ranked(np.concatenate(found)[None], np.concatenate(found_similarities)[None])
    return ordered[0], similarities[0]


def ranked(
    rows: NDArray[np.int64], similarities: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sort both arrays, (m, n), along axis 1 by descending similarity, equal ones by ascending row."""
    order = np.lexsort((rows, -similarities), axis=-1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


def _blocks(rows: NDArray[np.int64] | int, dim: int) -> Iterator[NDArray[np.int64] | slice]:
    """Yield blocks of rows whose float32 vectors take at most BUILD.scan_bytes."""
    step = max(1, BUILD.scan_bytes // (4 * dim))
    if isinstance(rows, int):
        yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))
    else:
        yield from (rows[start : start + step] for start in range(0, len(rows), step))
