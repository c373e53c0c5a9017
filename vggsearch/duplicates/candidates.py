"""Find pairs of photos that may be duplicates: from the stored edges, or by a new search if photos have changed."""

import logging

from vggsearch.defaults import DUPLICATES, PAIRS
from vggsearch.duplicates.collection import Collection
from vggsearch.errors import InstallationError
from vggsearch.knn.all_pairs import all_pairs, complete
from vggsearch.knn.edges import Edges
from vggsearch.knn.hash_pairs import hash_pairs
from vggsearch.knn.pairs_across import pairs_across
from vggsearch.photos.perceptual_hash import in_all_orientations
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.edges import EdgeCache

log = logging.getLogger(__name__)


def find_candidates(collection: Collection, monitor: Monitor = SILENT) -> Edges:
    """Return the pairs of photos with different content that may be duplicates; none has a blank photo.

    Each photo is paired with its PAIRS.count nearest, if their similarity is at least PAIRS.floor, and with those
    whose perceptual hash is nearly the same in any orientation, since the network does not recognise turned copies.
    Of each content, only the first row is in pairs. With another index, one photo of each pair is in that index.
    Within one index, the pairs are stored beside its vectors and reused, and for rows with more than PAIRS.count
    neighbours with a similarity of at least DUPLICATES.alike, all of these pairs are included. Raises Stopped.
    """
    index, without = collection.searcher.index, collection.not_compared
    if collection.others is not None:
        others = collection.others.store.embeddings()
        edges = pairs_across(index, others, PAIRS.count, PAIRS.floor, without, monitor)
        return _with_similar_hashes(edges, collection, monitor)
    cache = EdgeCache(collection.store, without, collection.hashes, PAIRS.count, PAIRS.floor)
    if (stored := cache.read()) is not None:
        edges = Edges(stored.facts.rows, PAIRS.count, PAIRS.floor, stored.first, stored.second, stored.similarity)
    else:
        edges = all_pairs(index.by_row, PAIRS.count, PAIRS.floor, without, monitor)
        edges = _with_similar_hashes(edges, collection, monitor)
        cache.write(edges.first, edges.second, edges.similarity)
    alike = edges.above(DUPLICATES.alike)
    return edges.union(complete(index.by_row, alike, without, monitor)) if len(alike.saturated) else edges


def _with_similar_hashes(edges: Edges, collection: Collection, monitor: Monitor) -> Edges:
    """Return the pairs and those whose hashes are similar; the former alone, with a warning, without FAISS."""
    own = None if collection.others is None else len(collection)
    try:
        return edges.union(
            hash_pairs(
                collection.hashes, in_all_orientations, without=collection.not_compared, own=own, monitor=monitor
            )
        )
    except InstallationError as error:
        log.warning("%s Until then, turned copies may not be found.", error)
        return edges
