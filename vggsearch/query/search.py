"""Answer queries: the photos most like a picture, or like several at once, of all indexes that are asked."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import ALIGN
from vggsearch.errors import OptionError
from vggsearch.knn.vectors import unit_rows
from vggsearch.matching.rerank import Reranker, confident, reranked
from vggsearch.model.engine import Engine
from vggsearch.query.containment import photos_with
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import Candidate, Match, ranked
from vggsearch.query.targets import TargetView

LEAST_LEFT = 1e-3  # length of a vector from which others were subtracted; what is shorter is rounding


def answer_blank(asked: Sequence[TargetView]) -> tuple[Match, ...]:
    """Return what a blank picture finds: itself, where it is one of the photos."""
    return tuple(
        match for each in asked for match in each.labelled(each.searcher.itself(each.own_path, each.wanted))
    )


def answer(
    picture: Image.Image,
    pixels: NDArray[np.uint8],
    asked: Sequence[TargetView],
    engine: Engine,
    options: QueryOptions,
) -> tuple[Match, ...]:
    """Return the photos most like a picture, or that contain it, most similar first; see ImageIndex.query.

    `pixels` are its square, uint8 (size, size, 3).
    """
    if options.containing:
        return _best(photos_with(picture, asked, engine, options), asked, options)
    rerankers = [each.target.reranker(engine) if options.rerank else None for each in asked]
    looking = next(filter(None, rerankers), None)
    if looking is None:
        own_paths = [(each.own_path,) for each in asked]
        return answer_plainly(unit_rows(engine.embed(pixels[None])), own_paths, asked, options)[0]
    embeddings, views = looking.query_features(picture)
    found = {(match.index, match.path): match for match in _nearest(embeddings[0], asked, options)}
    for each, reranker, candidates in _candidates(embeddings, asked, rerankers):
        alignments = reranker.align(views, reranker.photo_features([candidate.path for candidate in candidates]))
        for candidate, alignment in zip(candidates, alignments, strict=True):
            similarity = reranked(candidate.upright, candidate.oriented, alignment)
            match = Match(candidate.path, similarity, confident(alignment), each.name)
            found[match.index, match.path] = match
    return _best(found.values(), asked, options)


def answer_plainly(
    embeddings: NDArray[np.float32],
    own_paths: Sequence[Sequence[str | None]],
    asked: Sequence[TargetView],
    options: QueryOptions,
) -> list[tuple[Match, ...]]:
    """Return the photos most like each of several pictures, by their embeddings (m, dim) alone.

    `own_paths` are for each index which of its photos the pictures are.
    """
    found = [
        each.searcher.nearest_to_vectors(
            each.searcher.index.to_vectors(embeddings), options.most, options.min_similarity, of_each, each.wanted
        )
        for each, of_each in zip(asked, own_paths, strict=True)
    ]
    names = [each.name for each in asked]
    return [
        ranked(
            chain.from_iterable(each.labelled(matches) for each, matches in zip(asked, of_query, strict=True)),
            options.most,
            options.min_similarity,
            set(zip(names, own, strict=True)),
        )
        for of_query, own in zip(zip(*found, strict=True), zip(*own_paths, strict=True), strict=True)
    ]


def answer_combined(
    added: NDArray[np.float32], subtracted: NDArray[np.float32], asked: Sequence[TargetView], options: QueryOptions
) -> tuple[Match, ...]:
    """Return the photos most like several pictures at once, and unlike others: embeddings (m, dim) and (n, dim).

    The query is the mean of the first, of unit length, less each of the second. All are taken as the index searches
    them: whitened, what most photos share is gone from them already, and subtracting takes away only what the
    picture adds. Raises OptionError where nothing is left.
    """
    found = []
    for each in asked:
        vector = _combined(each.searcher.index.to_vectors(added), each.searcher.index.to_vectors(subtracted))
        floor = options.min_similarity
        [matches] = each.searcher.nearest_to_vectors(vector[None], options.most, floor, [None], each.wanted)
        found += each.labelled(matches)
    return _best(found, asked, options)


def _combined(added: NDArray[np.float32], subtracted: NDArray[np.float32]) -> NDArray[np.float32]:
    left = unit_rows(added.mean(axis=0, keepdims=True)) - subtracted.sum(axis=0)
    if np.linalg.norm(left) < LEAST_LEFT:
        raise OptionError("Nothing is left of the query: what is subtracted is what it consists of.")
    combined: NDArray[np.float32] = unit_rows(left)[0]
    return combined


def _nearest(embedding: NDArray[np.float32], asked: Sequence[TargetView], options: QueryOptions) -> list[Match]:
    """Return those of each index by similarity alone, among which the best of all are.

    Where there is a count, none is left out for being too little similar: geometry may still raise it.
    """
    floor = options.min_similarity if options.most is None else None
    return [
        match
        for each in asked
        for match in each.labelled(
            each.searcher.nearest(embedding, options.most, floor, each.own_path, each.wanted)
        )
    ]


def _candidates(
    embeddings: NDArray[np.float32], asked: Sequence[TargetView], rerankers: Sequence[Reranker | None]
) -> list[tuple[TargetView, Reranker, list[Candidate]]]:
    """Return the best candidates for geometry of all indexes together: those of each, with its own aligner."""
    looked_at = [(each, reranker) for each, reranker in zip(asked, rerankers, strict=True) if reranker is not None]
    found = [
        (candidate, place)
        for place, (each, _) in enumerate(looked_at)
        for candidate in each.searcher.candidates(embeddings, ALIGN.candidates, each.wanted)
    ]
    found.sort(key=lambda candidate_place: -candidate_place[0].oriented)
    best = found[: ALIGN.candidates]
    return [
        (each, reranker, [candidate for candidate, at in best if at == place])
        for place, (each, reranker) in enumerate(looked_at)
    ]


def _best(matches: Iterable[Match], asked: Sequence[TargetView], options: QueryOptions) -> tuple[Match, ...]:
    own = {(each.name, each.own_path) for each in asked}
    return ranked(matches, options.most, options.min_similarity, own)
