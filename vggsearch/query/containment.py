"""The photos that contain a picture, by the region vectors that are kept of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import ALIGN
from vggsearch.matching.regions import best_similarities, query_vectors
from vggsearch.matching.rerank import confident, reranked
from vggsearch.model.engine import Engine
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import DECIMALS, Match
from vggsearch.query.snapshot import Snapshot
from vggsearch.query.targets import TargetView

NOT_KEPT = -np.inf  # the similarity of a photo of which no regions are kept, or that is not wanted


def photos_with(
    picture: Image.Image, asked: Sequence[TargetView], engine: Engine, options: QueryOptions
) -> list[Match]:
    """Return the photos that contain a picture, in no order: those with the region most like it, and those most
    like it as a whole.

    Their similarity is two thirds that of the best region, one third that of the whole; geometry may raise it.
    """
    with_aligner = [(each, reranker) for each in asked if (reranker := each.target.reranker(engine)) is not None]
    if not with_aligner:
        return []
    embeddings, views = with_aligner[0][1].query_features(picture)
    parts = query_vectors([view.levels[1] for view in views])
    found: list[Match] = []
    for each, reranker in with_aligner:
        matches = _containing(each, embeddings, parts, options)
        best = matches[: 2 * _looked_at(options)] if options.rerank else []
        alignments = reranker.align(views, reranker.photo_features([match.path for match in best]))
        checked = [
            Match(match.path, reranked(match.similarity, match.similarity, alignment), confident(alignment))
            for match, alignment in zip(best, alignments, strict=True)
        ]
        found += each.labelled([*checked, *matches[len(best) :]])
    return found


def _containing(
    asked: TargetView, embeddings: NDArray[np.float32], parts: NDArray[np.float32], options: QueryOptions
) -> list[Match]:
    """Return the photos of one index that most likely contain a picture, most similar first.

    `embeddings` (m, dim) and `parts` (m, d) are the picture's, in several orientations. There are at most twice
    `_looked_at` of them; without a count, all that reach the least similarity, too.
    """
    of_regions = _similarities_of_regions(asked, parts)
    held = np.flatnonzero(of_regions > NOT_KEPT)
    ordered = held[np.argsort(-of_regions[held], kind="stable")]
    candidates = asked.searcher.candidates(embeddings, _looked_at(options), asked.wanted)
    alike = np.intersect1d([candidate.row for candidate in candidates], held)
    rows = np.union1d(ordered[: _looked_at(options)], alike).astype(np.int64)
    if options.most is None and options.min_similarity is not None:
        least = (3 * (options.min_similarity - 10**-DECIMALS) - 1) / 2  # the whole is at most 1.0 similar
        rows = np.union1d(rows, held[of_regions[held] >= least])
    if not len(rows):
        return []
    index = asked.searcher.index
    of_wholes = np.stack([index.similarities(embedding, rows) for embedding in embeddings]).max(axis=0)
    both = np.minimum((2 * of_regions[rows] + of_wholes) / 3, 1.0)
    return [Match(asked.searcher.paths[rows[at]], float(both[at])) for at in np.argsort(-both, kind="stable")]


def _looked_at(options: QueryOptions) -> int:
    return max(options.most or 0, ALIGN.part_candidates)


def _similarities_of_regions(asked: TargetView, parts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the similarity of the best region of each photo that is wanted, by row, else NOT_KEPT."""

    def read(state: Snapshot) -> dict[str, float]:
        kept = state.local.regions() if state.local is not None else ()
        return {
            key: similarity
            for keys, regions in kept
            for key, similarity in zip(keys, best_similarities(parts, regions).tolist(), strict=True)
        }

    by_content = asked.target.present.read(read)
    found = np.array([by_content.get(sha256, NOT_KEPT) for sha256 in asked.contents], np.float64)
    found[asked.searcher.blank] = NOT_KEPT
    if asked.wanted is not None:
        found[~asked.wanted.mask] = NOT_KEPT
    return found
