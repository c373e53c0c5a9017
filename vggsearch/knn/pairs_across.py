"""Exact nearest neighbours of the rows of a vector index among the embeddings of another one."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.knn import brute_force
from vggsearch.knn.edges import Edges, edges_from_pairs
from vggsearch.knn.gpu import GpuVectors
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import SILENT, Monitor


def pairs_across(
    index: VectorIndex,
    embeddings: Iterable[NDArray[np.float16]],
    count: int = PAIRS.count,
    floor: float = PAIRS.floor,
    without: NDArray[np.int64] | None = None,
    monitor: Monitor = SILENT,
) -> Edges:
    """Return the pairs of each row of `index` with its `count` nearest of `embeddings`, of at least `floor`.

    `embeddings` are those of the other index, block by block, float16 (n, dim). They are whitened as the vectors of
    `index` are, and their rows are numbered after its rows. Rows in `without`, int64, are in no pair.

    Raises Stopped, which is checked before each block of rows.
    """
    own, dim = len(index), index.stored.shape[1]
    vectors = np.concatenate(
        [np.empty((0, dim), np.float32), *(index.to_vectors(unit_rows(each)) for each in embeddings)]
    )
    compared = np.ones(own + len(vectors), bool)
    if without is not None:
        compared[without] = False
    mine, theirs = np.flatnonzero(compared[:own]), np.flatnonzero(compared[own:])
    vectors = vectors[theirs]
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    on_gpu, products, most = GpuVectors(vectors), len(mine) * len(theirs), min(count, len(theirs))
    for start in range(0, len(mine), PAIRS.block_rows):
        monitor.check()
        rows = mine[start : start + PAIRS.block_rows]
        queries = index.unit_vectors(rows)
        nearest, similarities = on_gpu.nearest(queries, most, products) or brute_force.nearest(
            queries, most, vectors.__getitem__, len(vectors)
        )
        row, column = np.nonzero(similarities >= floor)
        found.append((rows[row], theirs[nearest[row, column]] + own, similarities[row, column]))
        monitor.show("finding candidates", min(start + PAIRS.block_rows, len(mine)), len(mine))
    first, second, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return edges_from_pairs(len(compared), count, floor, first, second, np.minimum(values, 1))
