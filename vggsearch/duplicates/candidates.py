"""Pairs of photos that may be duplicates: the stored edges, searched anew only where the photos have changed."""

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


def candidates_of(collection: Collection, monitor: Monitor = SILENT) -> Edges:
    """Return the pairs of a pool's photos that may be duplicates, of different bytes; none with a blank photo.

    Of each content only the first row is in pairs. With others, one photo of each pair is theirs. Rows with more
    than PAIRS.count photos at least DUPLICATES.alike are completed. Raises Stopped.
    """
    is_left_out = collection.contents != np.arange(len(collection.contents))
    is_left_out[collection.blank] = True
    without = np.flatnonzero(is_left_out)
    if collection.others is not None:
        return _across(collection, collection.others, is_left_out, monitor)
    index = collection.searcher.index
    edges = edges_of(collection.store, index, without, monitor)
    alike = edges.above(DUPLICATES.alike)
    if not len(alike.saturated):
        return edges
    return _joined(edges, complete(_vectors(index), alike, without, monitor))


def edges_of(
    store: Store,
    index: VectorIndex,
    without: NDArray[np.int64],
    monitor: Monitor = SILENT,
) -> Edges:
    """Return the pairs of rows at least PAIRS.floor similar, of each row at least with its PAIRS.count nearest.

    `index` is over the store's present rows; those in `without`, int64, are in no pair. The pairs are kept beside
    the vectors, and read where they are of the same vectors and rows. Raises Stopped.
    """
    directory, side = store.vector_index_directory(), store.manifest.fresh_vector_index
    if directory is None or side is None:
        return all_pairs(_vectors(index), PAIRS.count, PAIRS.floor, without, monitor)
    among = f"{vectors_id(side)} without {hashlib.sha256(without.tobytes()).hexdigest()}"
    if (kept := _kept(directory, among)) is not None:
        return kept
    found = all_pairs(_vectors(index), PAIRS.count, PAIRS.floor, without, monitor)
    _keep(directory, among, found)
    return found


def _joined(edges: Edges, more: Edges) -> Edges:
    first, second = (np.concatenate(both) for both in ((edges.first, more.first), (edges.second, more.second)))
    similarity = np.concatenate([edges.similarity, more.similarity])
    return edges_from_pairs(edges.rows, edges.count, edges.floor, first, second, similarity)


def _across(
    collection: Collection,
    others: Collection,
    is_left_out: NDArray[np.bool_],
    monitor: Monitor,
) -> Edges:
    """Return the pairs of a photo of the pool and its PAIRS.count nearest of the others', at least PAIRS.floor."""
    index, own = collection.searcher.index, len(collection)
    theirs = np.flatnonzero(~is_left_out[own:])
    vectors = index.to_vectors(unit_rows(np.concatenate(list(others.store.embeddings()))))[theirs]
    mine = np.flatnonzero(~is_left_out[:own])
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
        one, place = np.nonzero(values >= PAIRS.floor)
        found.append((rows[one], theirs[nearest[one, place]] + own, values[one, place]))
        monitor.show("finding candidates", min(start + PAIRS.block_rows, len(mine)), len(mine))
    some, there, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return edges_from_pairs(len(is_left_out), PAIRS.count, PAIRS.floor, some, there, np.minimum(values, 1))


def _vectors(index: VectorIndex) -> NDArray[np.float16]:
    """Return the vectors by row; without a copy, where all that are stored are rows."""
    return index.stored if len(index) == len(index.stored) else index.stored[index.slots]


def _kept(directory: Path, among: str) -> Edges | None:
    """Return the edges that were found among these rows before. Those of a damaged file are searched anew."""
    try:
        stored = read_edges(directory, among)
    except IndexDamaged as error:
        log.warning("%s", error)
        return None
    if stored is None or stored.facts.count != PAIRS.count or stored.facts.floor != PAIRS.floor:
        return None
    facts = stored.facts
    return Edges(facts.rows, facts.count, facts.floor, stored.first, stored.second, stored.similarity)


def _keep(directory: Path, among: str, edges: Edges) -> None:
    facts = EdgeFacts(among, edges.rows, edges.count, edges.floor)
    try:
        write_edges(directory, StoredEdges(facts, edges.first, edges.second, edges.similarity))
    except IndexNotWritable as error:
        log.warning("%s The pairs that were found are not kept.", error)
