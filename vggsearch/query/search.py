"""Answer queries: the photos most similar to a picture, or to several combined, in one or more indexes."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, PAIRS
from vggsearch.errors import OptionError
from vggsearch.knn.vectors import unit_rows
from vggsearch.matching.rerank import QueryFeatures, Reranker, hashes_of
from vggsearch.model.engine import Engine
from vggsearch.photos.decoder_pool import View
from vggsearch.query.containment import photos_with
from vggsearch.query.judging import judged
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import Candidate, Match, Sought, in_order, ranked
from vggsearch.query.targets import TargetView, looked_at
from vggsearch.system.threads import single_threaded_blas

LEAST_LEFT = 1e-3  # smallest length of a difference of vectors; anything shorter is rounding error


def answer_blank(indexes: Sequence[TargetView]) -> tuple[Match, ...]:
    """Return the matches of a blank picture: only itself, if it is one of the photos."""
    return tuple(
        match for each in indexes for match in each.labelled(each.searcher.itself(each.own_path, each.wanted))
    )


def answer(
    picture: View,
    indexes: Sequence[TargetView],
    engine: Engine,
    options: QueryOptions,
) -> tuple[Match, ...]:
    """Return the photos most similar to a picture, or that contain it, most similar first; see ImageIndex.query."""
    if options.containing:
        return _best(photos_with(picture, indexes, engine, options), indexes, options)
    rerankers = [each.target.reranker(engine) if options.rerank else None for each in indexes]
    first_reranker = next(filter(None, rerankers), None)
    if first_reranker is None:
        own_paths = [(each.own_path,) for each in indexes]
        return answer_plainly(
            unit_rows(engine.embed(picture.pixels[None])), [picture.pixels], own_paths, indexes, options
        )[0]
    query = first_reranker.query_features(picture)
    sought = Sought(query.hashes, looked_at(indexes))
    with single_threaded_blas():  # all products are small
        found = {
            (match.index, match.path): match for match in _nearest(query.embeddings[0], sought, indexes, options)
        }
        for match in _judged(query, sought, indexes, rerankers):
            found[match.index, match.path] = match
    return _best(found.values(), indexes, options)


def _judged(
    query: QueryFeatures, sought: Sought, indexes: Sequence[TargetView], rerankers: Sequence[Reranker | None]
) -> list[Match]:
    """Return the best candidates of all indexes, re-ranked."""
    chosen = _candidates(query, sought, indexes, rerankers)
    photos = [
        photo
        for _, reranker, candidates in chosen
        for photo in reranker.photo_features([candidate.path for candidate in candidates])
    ]
    everywhere = [(each.name, candidate) for each, _, of_it in chosen for candidate in of_it]
    results = judged(query, [candidate for _, candidate in everywhere], photos, sought.looked_at)
    return [
        Match(candidate.path, result.similarity, result.alignment, name, result.confidence)
        for (name, candidate), result in zip(everywhere, results, strict=True)
    ]


def answer_plainly(
    embeddings: NDArray[np.float32],
    squares: Sequence[NDArray[np.uint8]],
    own_paths: Sequence[Sequence[str | None]],
    indexes: Sequence[TargetView],
    options: QueryOptions,
) -> list[tuple[Match, ...]]:
    """Return the photos most similar to each of several pictures, by their embeddings (m, dim) alone.

    `squares` are the pictures as the network sees them. `own_paths` lists, for each index, the path of each picture
    in it, None if it is not in the index.
    """
    sought = [Sought(hashes_of([square]), looked_at(indexes)) for square in squares]
    found = [
        each.searcher.nearest_to_vectors(
            each.searcher.index.to_vectors(embeddings),
            options.most,
            options.min_similarity,
            of_each,
            each.wanted,
            sought,
        )
        for each, of_each in zip(indexes, own_paths, strict=True)
    ]
    names = [each.name for each in indexes]
    return [
        ranked(
            chain.from_iterable(each.labelled(matches) for each, matches in zip(indexes, of_query, strict=True)),
            options.most,
            options.min_similarity,
            set(zip(names, own, strict=True)),
        )
        for of_query, own in zip(zip(*found, strict=True), zip(*own_paths, strict=True), strict=True)
    ]


def answer_combined(
    added: NDArray[np.float32],
    subtracted: NDArray[np.float32],
    indexes: Sequence[TargetView],
    options: QueryOptions,
) -> tuple[Match, ...]:
    """Return the photos most similar to `added`, embeddings (m, dim), and dissimilar to `subtracted`, (n, dim).

    The query is the mean of the first, scaled to unit length, minus each of the second. All are whitened as in the
    index, which removes what most photos share, so subtraction removes only what is specific to a picture. Raises
    OptionError if nothing is left.
    """
    found = []
    for each in indexes:
        vector = _combined(each.searcher.index.to_vectors(added), each.searcher.index.to_vectors(subtracted))
        floor = options.min_similarity
        [matches] = each.searcher.nearest_to_vectors(vector[None], options.most, floor, [None], each.wanted, [None])
        found += each.labelled(matches)
    return _best(found, indexes, options)


def _combined(added: NDArray[np.float32], subtracted: NDArray[np.float32]) -> NDArray[np.float32]:
    left = unit_rows(added.mean(axis=0, keepdims=True)) - subtracted.sum(axis=0)
    if np.linalg.norm(left) < LEAST_LEFT:
        raise OptionError("Nothing is left of the query: the subtracted pictures equal the added ones.")
    combined: NDArray[np.float32] = unit_rows(left)[0]
    return combined


def _nearest(
    embedding: NDArray[np.float32], sought: Sought, indexes: Sequence[TargetView], options: QueryOptions
) -> list[Match]:
    """Return the nearest photos of each index by similarity alone.

    With a count, min_similarity is not applied yet, as re-ranking may raise a similarity.
    """
    floor = options.min_similarity if options.most is None else None
    return [
        match
        for each in indexes
        for match in each.labelled(
            each.searcher.nearest(embedding, options.most, floor, each.own_path, each.wanted, sought)
        )
    ]


def _candidates(
    query: QueryFeatures, sought: Sought, indexes: Sequence[TargetView], rerankers: Sequence[Reranker | None]
) -> list[tuple[TargetView, Reranker, list[Candidate]]]:
    """Return the best candidates for re-ranking over all indexes, grouped by index, each with its reranker."""
    with_reranker = [
        (each, reranker) for each, reranker in zip(indexes, rerankers, strict=True) if reranker is not None
    ]
    found = [
        (candidate, place)
        for place, (each, _) in enumerate(with_reranker)
        for candidate in each.searcher.candidates(
            query.embeddings, ALIGN.candidates, each.wanted, sought, query.inside
        )
    ]
    ordered = [found[at] for at in in_order([(candidate.oriented, candidate.inside) for candidate, _ in found])]
    best = [*ordered[: ALIGN.candidates], *filter(_has_similar_hash, ordered[ALIGN.candidates :])]
    return [
        (each, reranker, [candidate for candidate, at in best if at == place])
        for place, (each, reranker) in enumerate(with_reranker)
    ]


def _has_similar_hash(found: tuple[Candidate, int]) -> bool:
    bits = found[0].bits
    return bits is not None and bits <= PAIRS.hash_bits


def _best(matches: Iterable[Match], indexes: Sequence[TargetView], options: QueryOptions) -> tuple[Match, ...]:
    own = {(each.name, each.own_path) for each in indexes}
    return ranked(matches, options.most, options.min_similarity, own)
