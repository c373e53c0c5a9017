"""Find pairs of photos that may be duplicates: the stored ones, or by a new search if photos have changed."""

import logging
from dataclasses import astuple

import numpy as np

from vggsearch.defaults import DUPLICATES, PAIRS, VOTES
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.confirmation import MATCHED_BY, KeypointMatcher
from vggsearch.duplicates.stored_pairs import NO_HASHES, StoredPairs, digest
from vggsearch.errors import InstallationError
from vggsearch.knn.all_pairs import complete
from vggsearch.knn.edges import Edges, edges_from_pairs
from vggsearch.knn.hash_pairs import hash_pairs
from vggsearch.knn.keypoint_votes import voted_pairs
from vggsearch.knn.pairs_across import pairs_across
from vggsearch.matching.keypoint_codes import NO_KEYPOINTS, mirrored_codes
from vggsearch.photos.perceptual_hash import in_all_orientations
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.contents import KEYPOINT_VOTES
from vggsearch.store.edges import EdgeCache

log = logging.getLogger(__name__)


def find_candidates(collection: Collection, monitor: Monitor = SILENT) -> Edges:
    """Return the pairs of photos with different content that may be duplicates; none has a blank photo.

    Each photo is paired with its PAIRS.count nearest, if their similarity is at least PAIRS.floor, and with those
    whose perceptual hash is nearly the same in any orientation, since the network does not recognise turned copies.
    Of each content, only the first row is in pairs. With another index, one photo of each pair is in that index.
    Within one index, the pairs are stored, and after an update, those of few new photos alone are searched. For
    rows with more than PAIRS.count neighbours with a similarity of at least DUPLICATES.alike, all of these pairs
    are included. Raises Stopped.
    """
    index, without = collection.searcher.index, collection.not_compared
    if collection.others is not None:
        others = collection.others.store.embeddings()
        edges = pairs_across(index, others, PAIRS.count, PAIRS.floor, without, monitor)
        hashed = _across_by_hash(collection, monitor)
        return edges.union(hashed) if hashed is not None else edges
    edges = StoredPairs(collection, monitor).found()
    alike = edges.above(DUPLICATES.alike)
    return edges.union(complete(index.by_row, alike, without, monitor)) if len(alike.saturated) else edges


def _across_by_hash(collection: Collection, monitor: Monitor) -> Edges | None:
    """Return the pairs with photos of another index by their hashes; None, with a warning, without FAISS."""
    try:
        return hash_pairs(
            collection.hashes,
            in_all_orientations,
            without=collection.not_compared,
            own=len(collection),
            monitor=monitor,
        )
    except InstallationError as error:
        log.warning(NO_HASHES, error)
        return None


def find_sharing_keypoints(collection: Collection, matcher: KeypointMatcher, monitor: Monitor = SILENT) -> Edges:
    """Return the pairs of photos that share keypoints; their similarity is the number of weighted votes.

    So crops, screenshots and strong edits are found that the network does not recognise. None are looked for among
    more than VOTES.most_photos, or in another index. As with `find_candidates`, no pair has a blank photo or the
    second row of a content, and the pairs are stored. Nor has one a photo whose file is no longer the one that was
    indexed. If another one cannot be read, nothing is stored. Raises Stopped.
    """
    none = np.empty(0, np.int64)
    rows = np.setdiff1d(np.arange(len(collection)), collection.not_compared)
    rows = rows[[collection.is_current(row) for row in rows.tolist()]] if len(rows) <= VOTES.most_photos else none
    ones, others, votes = none, none, np.empty(0)
    inputs = f"keypoints {digest(collection.keys)} of {digest(rows)} by {MATCHED_BY} {astuple(VOTES)}"
    cache = EdgeCache(collection.store, KEYPOINT_VOTES, inputs, VOTES.partners, VOTES.least)
    if (stored := cache.read()) is not None:
        return Edges(len(collection), VOTES.partners, VOTES.least, stored.first, stored.second, stored.similarity)
    coded = matcher.coded(rows.tolist(), monitor)
    is_complete = None not in coded
    try:
        ones, others, votes = voted_pairs([each or NO_KEYPOINTS for each in coded], mirrored_codes, monitor)
    except InstallationError as error:
        log.warning("%s Until then, strongly edited copies may not be found.", error)
        is_complete = False
    found = (rows[ones], rows[others], votes.astype(np.float32))
    edges = edges_from_pairs(len(collection), VOTES.partners, VOTES.least, *found)
    if is_complete:
        cache.write(edges.first, edges.second, edges.similarity)
    return edges
