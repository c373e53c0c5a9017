"""Find pairs of photos that may be duplicates: from the stored edges, or by a new search if photos have changed."""

import hashlib
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES, PAIRS
from vggsearch.duplicates.collection import Collection
from vggsearch.errors import IndexDamaged, IndexNotWritable
from vggsearch.knn.all_pairs import all_pairs, complete
from vggsearch.knn.edges import Edges, edges_from_pairs
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.edges import EdgeFacts, StoredEdges, read_edges, vectors_id, write_edges
from vggsearch.store.store import Store

log = logging.getLogger(__name__)


def find_candidates(collection: Collection, monitor: Monitor = SILENT) -> Edges:
    """Return the pairs of photos with different content that may be duplicates; none has a blank photo.

    Of each content, only the first row is in pairs. With another index, one photo of each pair is in that index.
    For rows with more than PAIRS.count neighbours with a similarity of at least DUPLICATES.alike, all of these
    pairs are included. Raises Stopped.
    """
    is_excluded = collection.contents != np.arange(len(collection.contents))
    is_excluded[collection.blank] = True
    without = np.flatnonzero(is_excluded)
    if collection.others is not None:
        return _pairs_across(collection, collection.others, is_excluded, monitor)
    index = collection.searcher.index
    edges = similar_pairs(collection.store, index, without, monitor)
    alike = edges.above(DUPLICATES.alike)
    if not len(alike.saturated):
        return edges
    return _merged(edges, complete(_vectors(index), alike, without, monitor))


def similar_pairs(
    store: Store,
    index: VectorIndex,
    without: NDArray[np.int64],
    monitor: Monitor = SILENT,
) -> Edges:
    """Return the pairs of rows with a similarity of at least PAIRS.floor: each row with its PAIRS.count nearest.

    `index` is over the current rows of the store; rows in `without`, int64, are in no pair. The pairs are stored
    beside the vector index and reused for the same vectors and rows. Raises Stopped.
    """
    directory, stored = store.vector_index_directory(), store.manifest.fresh_vector_index
    if directory is None or stored is None:
        return all_pairs(_vectors(index), PAIRS.count, PAIRS.floor, without, monitor)
    source = f"{vectors_id(stored)} without {hashlib.sha256(without.tobytes()).hexdigest()}"
    if (edges := _read_edges(directory, source)) is not None:
        return edges
    edges = all_pairs(_vectors(index), PAIRS.count, PAIRS.floor, without, monitor)
    _write_edges(directory, source, edges)
    return edges


def _merged(edges: Edges, more: Edges) -> Edges:
    first, second = (np.concatenate(both) for both in ((edges.first, more.first), (edges.second, more.second)))
    similarity = np.concatenate([edges.similarity, more.similarity])
    return edges_from_pairs(edges.rows, edges.count, edges.floor, first, second, similarity)


def _pairs_across(
    collection: Collection,
    others: Collection,
    is_excluded: NDArray[np.bool_],
    monitor: Monitor,
) -> Edges:
    """Return the pairs of each photo with its PAIRS.count nearest of `others`, with at least PAIRS.floor."""
    index, own = collection.searcher.index, len(collection)
    theirs = np.flatnonzero(~is_excluded[own:])
    vectors = index.to_vectors(unit_rows(np.concatenate(list(others.store.embeddings()))))[theirs]
    mine = np.flatnonzero(~is_excluded[:own])
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for start in range(0, len(mine), PAIRS.block_rows):
        monitor.check()
        rows = mine[start : start + PAIRS.block_rows]
        similarities = index.unit_vectors(rows) @ vectors.T
        count = min(PAIRS.count, len(theirs))
        nearest = (
            np.argpartition(-similarities, count - 1, axis=1)[:, :count] if count else np.empty((len(rows), 0), int)
        )
        values = np.take_along_axis(similarities, nearest, axis=1)
        row, column = np.nonzero(values >= PAIRS.floor)
        found.append((rows[row], theirs[nearest[row, column]] + own, values[row, column]))
        monitor.show("finding candidates", min(start + PAIRS.block_rows, len(mine)), len(mine))
    first, second, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return edges_from_pairs(len(is_excluded), PAIRS.count, PAIRS.floor, first, second, np.minimum(values, 1))


def _vectors(index: VectorIndex) -> NDArray[np.float16]:
    """Return the vectors by row, without copying them if no slot is dead."""
    return index.stored if len(index) == len(index.stored) else index.stored[index.slots]


def _read_edges(directory: Path, source: str) -> Edges | None:
    """Return the stored edges of `source`, None if there are none or their file is damaged."""
    try:
        stored = read_edges(directory, source)
    except IndexDamaged as error:
        log.warning("%s", error)
        return None
    if stored is None or stored.facts.count != PAIRS.count or stored.facts.floor != PAIRS.floor:
        return None
    facts = stored.facts
    return Edges(facts.rows, facts.count, facts.floor, stored.first, stored.second, stored.similarity)


def _write_edges(directory: Path, source: str, edges: Edges) -> None:
    facts = EdgeFacts(source, edges.rows, edges.count, edges.floor)
    try:
        write_edges(directory, StoredEdges(facts, edges.first, edges.second, edges.similarity))
    except IndexNotWritable as error:
        log.warning("%s The similar pairs were not stored.", error)
