"""Looking at every vector: what any other way of searching is measured against, and falls back on."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD

NOWHERE = np.float32(-np.inf)  # the similarity of no row

Vectors = Callable[[NDArray[np.int64] | slice], NDArray[np.float32]]


def nearest(
    queries: NDArray[np.float32], count: int, vectors: Vectors, rows: NDArray[np.int64] | int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows most similar to each query (m, dim), and the similarities: two arrays (m, count).

    `rows` are those that may be found, int64 ascending, or how many there are from 0 on; no fewer than `count`.
    The most similar come first, of equals the first row. `vectors` gives unit vectors (n, dim) of rows.
    """
    found = np.empty((len(queries), 0), np.int64)
    best = np.empty((len(queries), 0), np.float32)
    for some in _blocks(rows, queries.shape[1]):
        values = queries @ vectors(some).T
        numbers = np.arange(some.start, some.stop) if isinstance(some, slice) else some
        best = np.concatenate([best, values], axis=1)
        found = np.concatenate([found, np.broadcast_to(numbers, values.shape)], axis=1)
        if best.shape[1] > count:
            kept = np.argpartition(-best, count - 1, axis=1)[:, :count]
            best, found = np.take_along_axis(best, kept, 1), np.take_along_axis(found, kept, 1)
    return ranked(found, best)


def above(
    query: NDArray[np.float32], floor: float, vectors: Vectors, rows: NDArray[np.int64] | int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return all rows at least `floor` similar to one query (dim,), and the similarities, most similar first."""
    found, best = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for some in _blocks(rows, len(query)):
        values = vectors(some) @ query
        reached = np.flatnonzero(values >= floor)
        found.append(reached + some.start if isinstance(some, slice) else some[reached])
        best.append(values[reached])
    ordered, similarities = ranked(np.concatenate(found)[None], np.concatenate(best)[None])
    return ordered[0], similarities[0]


def ranked(
    rows: NDArray[np.int64], similarities: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return both, (m, n), with each line most similar first, of equals the first row."""
    order = np.lexsort((rows, -similarities), axis=-1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)


def _blocks(rows: NDArray[np.int64] | int, dim: int) -> Iterator[NDArray[np.int64] | slice]:
    """Yield the rows in parts whose vectors take BUILD.scan_bytes in float32."""
    step = max(1, BUILD.scan_bytes // (4 * dim))
    if isinstance(rows, int):
        yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))
    else:
        yield from (rows[start : start + step] for start in range(0, len(rows), step))
