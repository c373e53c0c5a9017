"""Exact k-nearest-neighbour graph of all rows, computed block by block, on a GPU if that is faster.

On the CPU, each product serves both of its rows. Of very many rows, a CPU compares near ones only.
"""

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.errors import OptionError
from vggsearch.knn.edges import Edges, check_rows, edges_from_pairs, round_similarities
from vggsearch.knn.gpu import scan_on_gpu, warn_of_torch
from vggsearch.knn.near_pairs import near_pairs
from vggsearch.knn.neighbours import STEP, Candidates, Nearest, Rows, damaged, in_order, mask_of, pairs_in
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.knn.vectors import Vectors
from vggsearch.progress import SILENT, Monitor

Columns = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]  # first, second, similarity


def all_pairs(
    vectors: Vectors,
    count: int = PAIRS.count,
    floor: float = PAIRS.floor,
    without: NDArray[np.int64] | None = None,
    monitor: Monitor = SILENT,
    tasks: Tasks = HERE,
) -> Edges:
    """Return all pairs with a similarity of at least `floor` in which one row is among the other's `count` nearest.

    `vectors` is float16 (n, dim), memory-mapped or in memory. Similarity is the cosine, rounded to 2**-20. Of
    equally similar rows the lower one counts as nearer, so the result does not depend on the blocks. Rows in
    `without`, int64, are in no pair. In memory are a few blocks, the lists of neighbours (8 * count bytes per row)
    and the result. Among more than PAIRS.most_exact rows, without a GPU, see `near_pairs`, which `tasks` are for.

    Raises OptionError for a count below 1 or a floor outside -1..1, VectorsDamaged for vectors that are not
    finite, and Stopped, which is checked before each product of two blocks.
    """
    _check(vectors, count, floor)
    edges = _edges_from_gpu(vectors, count, floor, without, monitor)
    if edges is not None:
        return edges
    if len(vectors) > PAIRS.most_exact:
        return near_pairs(vectors, count, floor, without, monitor, tasks)
    rows = Rows(vectors, without)
    nearest = Nearest(len(vectors), count, floor)
    starts = range(0, len(vectors), PAIRS.block_rows)
    tiles = [
        (slice(a, a + PAIRS.block_rows), slice(b, b + PAIRS.block_rows)) for a in starts for b in starts if b >= a
    ]
    _seed(rows, nearest, count)

    def compare_tile(tile: tuple[slice, slice]) -> list[Candidates]:
        products = rows.products(*tile)
        ones, others = (np.arange(*block.indices(len(vectors))) for block in tile)
        if tile[0] == tile[1]:
            np.fill_diagonal(products, -np.inf)
            return [nearest.candidates_of_rows(products, ones, others)]
        return [
            nearest.candidates_of_rows(products, ones, others),
            nearest.candidates_of_columns(products, ones, others),
        ]

    pairs = len(vectors) * (len(vectors) - 1) // 2
    for done, found in enumerate(in_order(compare_tile, tiles, monitor), start=1):
        for candidates in found:
            nearest.insert(candidates)
        monitor.show("comparing embeddings", done * pairs // len(tiles), pairs, "pairs")
    return _edges_of(nearest.keys, count, floor)


def complete(
    vectors: Vectors,
    edges: Edges,
    without: NDArray[np.int64] | None = None,
    monitor: Monitor = SILENT,
) -> Edges:
    """Return the edges with all pairs down to their floor, adding those that saturated rows lacked.

    `vectors` and `without` are those that the edges were computed from. Raises OptionError if that would be more
    than PAIRS.most pairs, VectorsDamaged, and Stopped.
    """
    _check(vectors, 1, edges.floor)
    rows, saturated = Rows(vectors, without), edges.saturated
    blocks = [saturated[at : at + PAIRS.block_rows] for at in range(0, len(saturated), PAIRS.block_rows)]
    starts = range(0, len(vectors), PAIRS.block_rows)
    tiles = [(block, slice(start, start + PAIRS.block_rows)) for block in blocks for start in starts]
    found = [(edges.first, edges.second, edges.similarity)]

    def compare_tile(tile: tuple[NDArray[np.int64], slice]) -> Columns:
        ones, others = tile
        products = rows.products(ones, others)
        positions = np.flatnonzero(products >= np.float32(edges.floor) - STEP)
        similarity = round_similarities(products.ravel()[positions])
        one, other = np.divmod(positions, products.shape[1])
        one, other = ones[one], other + others.start
        chosen = (similarity >= edges.floor) & (one != other)
        # A pair of two saturated rows is found twice, once from each.
        chosen &= (one < other) | ~np.isin(other, saturated)
        return one[chosen].astype(np.int32), other[chosen].astype(np.int32), similarity[chosen]

    total, pairs = 0, len(saturated) * len(vectors)
    for done, columns in enumerate(in_order(compare_tile, tiles, monitor), start=1):
        found.append(columns)
        total += len(columns[0])
        if total > PAIRS.most:
            raise OptionError(
                f"More than {PAIRS.most:,} pairs of photos have a similarity of at least {edges.floor}. "
                "Pass a higher similarity."
            )
        monitor.show("comparing embeddings of many copies", done * pairs // len(tiles), pairs, "pairs")
    first, second, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return edges_from_pairs(edges.rows, None, edges.floor, first, second, similarity)


def _edges_from_gpu(
    vectors: Vectors, count: int, floor: float, without: NDArray[np.int64] | None, monitor: Monitor
) -> Edges | None:
    """Return the edges from a GPU; None if none is worth starting, or if it fails."""
    try:
        scan = scan_on_gpu(vectors, len(vectors) ** 2 / 2)
        if scan is None:
            return None
        row = scan.non_finite()
        if row is not None:
            raise damaged(row)
        count_each = min(count, max(len(vectors) - 1, 1))
        keys = scan.neighbours(count_each, floor, mask_of(len(vectors), without), monitor)
        columns = scan.pairs(keys, floor)
    except RuntimeError as error:
        warn_of_torch(error)
        return None
    return _edges_of(keys, count, floor) if columns is None else Edges(len(vectors), count, floor, *columns)


def _edges_of(keys: NDArray[np.int64], count: int, floor: float) -> Edges:
    """Return the pairs with a similarity of at least `floor` in the lists of neighbours of all rows."""
    return edges_from_pairs(len(keys), count, floor, *pairs_in(keys, floor))


def _seed(rows: Rows, nearest: Nearest, count: int) -> None:
    """Start the threshold of every row at its `count`-th nearest in a sample, a lower bound of the final one.

    Without it, all of the first products would pass. The row itself may be in the sample.
    """
    if len(rows) < PAIRS.sample * 8 or count + 1 > PAIRS.sample:
        return
    sample = np.linspace(0, len(rows) - 1, PAIRS.sample).astype(np.int64)
    for start in range(0, len(rows), PAIRS.block_rows):
        block = slice(start, start + PAIRS.block_rows)
        products = rows.products(block, sample)
        bound = np.partition(products, -count - 1, axis=1)[:, -count - 1]
        nearest.least[block] = np.maximum(nearest.least[block], bound - STEP)


def _check(vectors: Vectors, count: int, floor: float) -> None:
    check_rows(len(vectors))
    if count < 1:
        raise OptionError(f"The number of neighbours of each photo must be at least 1, not {count}.")
    if not -1 <= floor <= 1:
        raise OptionError(f"A similarity must be between -1 and 1, not {floor}.")
