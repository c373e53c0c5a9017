"""Find the photos that contain a picture, by their stored region vectors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN
from vggsearch.matching.regions import query_vectors
from vggsearch.model.engine import Engine
from vggsearch.photos.decoder_pool import View
from vggsearch.query.judging import judged
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import DECIMALS, Candidate, Match
from vggsearch.query.targets import TargetView, looked_at

NOT_KEPT = -np.inf  # similarity of a photo without stored regions, or excluded by a filter


def photos_with(picture: View, indexes: Sequence[TargetView], engine: Engine, options: QueryOptions) -> list[Match]:
    """Return the photos that contain a picture, unordered.

    These are the photos with the most similar region, and those most similar as a whole. Their similarity is two
    thirds that of the best region plus one third that of the whole; re-ranking may raise it.
    """
    with_reranker = [(each, reranker) for each in indexes if (reranker := each.target.reranker(engine)) is not None]
    if not with_reranker:
        return []
    query = with_reranker[0][1].query_features(picture)
    parts = query_vectors([view.levels[1] for view in query.cells])
    found: list[Match] = []
    for each, reranker in with_reranker:
        matches = _containing(each, query.all_embeddings, parts, options)
        best = matches[: 2 * _candidate_count(options)] if options.rerank else []
        alike = [Candidate(match.path, match.similarity, match.similarity) for match in best]
        photos = reranker.photo_features([candidate.path for candidate in alike])
        results = judged(query, alike, photos, looked_at(indexes))
        checked = [
            Match(match.path, result.similarity, result.alignment, confidence=result.confidence)
            for match, result in zip(best, results, strict=True)
        ]
        found += each.labelled([*checked, *matches[len(best) :]])
    return found


def _containing(
    view: TargetView, embeddings: NDArray[np.float32], parts: NDArray[np.float32], options: QueryOptions
) -> list[Match]:
    """Return the photos of one index that most likely contain a picture, most similar first.

    `embeddings` (m, dim) and `parts` (m, d) are those of the picture in several orientations. At most twice
    `_candidate_count` photos are returned; without a count, also all that reach min_similarity.
    """
    of_regions = _similarities_of_regions(view, parts)
    held = np.flatnonzero(of_regions > NOT_KEPT)
    ordered = held[np.argsort(-of_regions[held], kind="stable")]
    candidates = view.searcher.candidates(embeddings, _candidate_count(options), view.wanted)
    alike = np.intersect1d([candidate.row for candidate in candidates], held)
    rows = np.union1d(ordered[: _candidate_count(options)], alike).astype(np.int64)
    if options.most is None and options.min_similarity is not None:
        least = (3 * (options.min_similarity - 10**-DECIMALS) - 1) / 2  # the whole is at most 1.0 similar
        rows = np.union1d(rows, held[of_regions[held] >= least])
    if not len(rows):
        return []
    index = view.searcher.index
    of_wholes = np.stack([index.similarities(embedding, rows) for embedding in embeddings]).max(axis=0)
    both = np.minimum((2 * of_regions[rows] + of_wholes) / 3, 1.0)
    return [Match(view.searcher.paths[rows[at]], float(both[at])) for at in np.argsort(-both, kind="stable")]


def _candidate_count(options: QueryOptions) -> int:
    return max(options.most or 0, ALIGN.containing_candidates)


def _similarities_of_regions(view: TargetView, parts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the similarity of the best region of each wanted photo by row, NOT_KEPT for others: float64 (n,)."""
    by_content = view.target.similarities_of_regions(parts)
    found = np.array([by_content.get(sha256, NOT_KEPT) for sha256 in view.contents], np.float64)
    found[view.searcher.blank] = NOT_KEPT
    if view.wanted is not None:
        found[~view.wanted.mask] = NOT_KEPT
    return found
