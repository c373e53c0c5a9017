"""Pairs of rows whose perceptual hashes differ in few bits, in any orientation of the photos."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.knn.edges import Edges, edges_from_pairs
from vggsearch.knn.faiss_import import FaissIndex, faiss, restore_thread_count
from vggsearch.knn.updated_pairs import KeptRows, most_changed
from vggsearch.progress import SILENT, Monitor

Hashes = NDArray[np.uint8]  # (n, bytes)
Orient = Callable[[Hashes], Hashes]  # to the hashes in all orientations, (orientations, n, bytes)


def hash_pairs(
    hashes: Hashes,
    orient: Orient,
    count: int = PAIRS.count,
    distance: int = PAIRS.hash_bits,
    without: NDArray[np.int64] | None = None,
    own: int | None = None,
    monitor: Monitor = SILENT,
) -> Edges:
    """Return the pairs of hashes, uint8 (n, bytes), that differ in at most `distance` bits in one orientation.

    `orient` returns the hashes of the photos in all orientations, which must form a group. Each row is paired with
    the `count` nearest of those after it; with `own`, the first `own` rows are paired with those of all others. The
    similarity is the correlation of the bits, 1 - 2 * distance / bits. Rows of zeros, which are no hashes, and rows
    in `without`, int64, are in no pair. From PAIRS.most_hashes rows on, a pair of more than 15 bits may be missed.
    Raises InstallationError and Stopped, which is checked before each block of rows.
    """
    rows = np.flatnonzero(hashes.any(axis=1))
    if without is not None:
        rows = np.setdiff1d(rows, without)
    index, indexed = _index(len(rows), hashes.shape[1]), np.empty(0, np.int64)
    if own is not None:
        indexed, rows = rows[rows < own], rows[rows >= own]
        index.add(hashes[indexed])
    none = np.empty(0, np.int64)
    found = [(none, none, none)]
    # From the last rows to the first, so that each pair is looked for once, from its first row.
    for end in range(len(rows), 0, -PAIRS.hash_block):
        monitor.check()
        block = rows[max(0, end - PAIRS.hash_block) : end]
        if own is None:
            indexed = np.concatenate([indexed, block])
            index.add(hashes[block])
        ones, others, differing = _near(index, orient(hashes[block]), distance)
        ones, others = block[ones], indexed[others]
        is_pair = np.flatnonzero((ones < others) | (own is not None))
        found.append(_nearest(ones[is_pair], others[is_pair], differing[is_pair], count))
        monitor.show("comparing hashes", len(rows) - end + len(block), len(rows))
    first, second, differing = (np.concatenate(column) for column in zip(*found, strict=True))
    return _edges(hashes, distance, first, second, differing)


def updated_hash_pairs(
    hashes: Hashes,
    orient: Orient,
    last: Edges,
    rows_kept: KeptRows,
    count: int = PAIRS.count,
    distance: int = PAIRS.hash_bits,
    monitor: Monitor = SILENT,
) -> Edges | None:
    """Return the pairs that `hash_pairs` finds among the present rows, from `last`, those of an earlier state.

    The hashes of added rows, and of those that lost one of `count` pairs, are compared with all others, so none of
    their pairs is missed. Returns None if they are so many that all should be compared. Raises InstallationError
    and Stopped.
    """
    kept, lost = rows_kept.of(last)
    has_most = np.flatnonzero(np.bincount(last.first, minlength=last.rows) >= count)
    again = rows_kept.now[np.intersect1d(has_most, lost.first)]
    again, added = again[again >= 0], rows_kept.added
    asking = np.union1d(added, again)
    asking = asking[hashes[asking].any(axis=1)]
    if len(asking) > (most_changed(len(hashes)) if len(hashes) < PAIRS.most_hashes else PAIRS.update_hashes):
        return None
    rows = np.flatnonzero(rows_kept.compared & hashes.any(axis=1))
    is_added = np.zeros(len(hashes), bool)
    is_added[added] = True
    differing = np.rint((1 - kept.similarity) * (hashes.shape[1] * 4)).astype(np.int64)
    found = [(kept.first.astype(np.int64), kept.second.astype(np.int64), differing)]
    index = faiss().IndexBinaryFlat(hashes.shape[1] * 8)
    restore_thread_count()
    index.add(np.ascontiguousarray(hashes[rows]))
    for start in range(0, len(asking), PAIRS.hash_block):
        monitor.check()
        block = asking[start : start + PAIRS.hash_block]
        ones, others, differing = _near(index, orient(hashes[block]), distance)
        ones, others = block[ones], rows[others]
        is_pair = (ones < others) | (is_added[ones] & (ones != others) & ~np.isin(others, asking))
        found.append((np.minimum(ones, others)[is_pair], np.maximum(ones, others)[is_pair], differing[is_pair]))
        monitor.show("comparing hashes", start + len(block), len(asking))
    first, second, differing = (np.concatenate(column) for column in zip(*found, strict=True))
    return _edges(hashes, distance, *_nearest(first, second, differing, count))


def _edges(
    hashes: Hashes,
    distance: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    differing: NDArray[np.int64],
) -> Edges:
    similarity = (1 - differing / (hashes.shape[1] * 4)).astype(np.float32)
    return edges_from_pairs(len(hashes), None, 1 - distance / (hashes.shape[1] * 4), first, second, similarity)


def _index(count: int, length: int) -> FaissIndex:
    restore_thread_count()
    if count < PAIRS.most_hashes:
        return faiss().IndexBinaryFlat(length * 8)
    return faiss().IndexBinaryMultiHash(length * 8, length // 2, 16)  # pairs that share 16 bits in a row


def _near(
    index: FaissIndex, queries: Hashes, distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the query, the row in the index and the differing bits of each pair, queries in all orientations."""
    flat = np.ascontiguousarray(queries.reshape(-1, queries.shape[2]))
    limits, differing, others = index.range_search(flat, distance + 1)  # FAISS excludes the radius itself
    ones = np.repeat(np.arange(len(flat)), np.diff(limits).astype(np.int64)) % queries.shape[1]
    return ones, others.astype(np.int64), differing.astype(np.int64)


def _nearest(
    ones: NDArray[np.int64], others: NDArray[np.int64], differing: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, of each row, the pairs with the `count` nearest other rows, each in its nearest orientation."""
    order = np.lexsort((differing, others, ones))
    ones, others, differing = ones[order], others[order], differing[order]
    is_first = np.append(True, (ones[1:] != ones[:-1]) | (others[1:] != others[:-1]))[: len(ones)]
    ones, others, differing = ones[is_first], others[is_first], differing[is_first]
    order = np.lexsort((others, differing, ones))
    ones, others, differing = ones[order], others[order], differing[order]
    rank = np.arange(len(ones)) - np.searchsorted(ones, ones)
    is_near = rank < count
    return ones[is_near], others[is_near], differing[is_near]
