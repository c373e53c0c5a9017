"""Queries by photos that are published: their vectors are taken from there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import ImageError
from vggsearch.knn.build import build_in_memory
from vggsearch.knn.vectors import unit_rows
from vggsearch.photos.inputs import ImageLike
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import Skipped
from vggsearch.published.searcher import PublishedPhoto, PublishedSearcher, PublishedTarget
from vggsearch.published.table import Wanted
from vggsearch.query.options import Answer, Images, QueryOptions, QueryResult, each_of
from vggsearch.query.run import embedded, query_name, run_queries
from vggsearch.query.search import answer_combined
from vggsearch.query.searcher import Match, Sought


def run_published(target: PublishedTarget, queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
    """Yield the result of each query, in order; pictures may be PublishedPhotos. See run_queries."""
    asked = [each_of(query) for query in queries]
    others = run_queries([target], [query for query in asked if not _has_published(query, options)], options)
    for query in asked:
        if not _has_published(query, options):
            yield next(others)
            continue
        try:
            yield QueryResult(query_name(query, options.minus), _matches(target, query, options))
        except ImageError as error:
            yield Skipped(query_name(query, options.minus), error.reason, error.kind)


def _has_published(query: Sequence[ImageLike], options: QueryOptions) -> bool:
    return any(isinstance(image, PublishedPhoto) for image in (*query, *options.minus))


def _matches(target: PublishedTarget, query: Sequence[ImageLike], options: QueryOptions) -> tuple[Match, ...]:
    searcher = target.searcher_for(query, options)
    if len(query) == 1 and not options.minus and isinstance(query[0], PublishedPhoto):
        return _like(searcher, query[0], options)
    added, subtracted = (_vectors(target, searcher, images) for images in (query, options.minus))
    if not len(added):
        return ()
    as_they_are = replace(searcher, index=build_in_memory([], 0, searcher.seen.state.dim))  # whitened already
    return answer_combined(added, subtracted, [target.view_with(as_they_are, None)], options)


def _like(searcher: PublishedSearcher, photo: PublishedPhoto, options: QueryOptions) -> tuple[Match, ...]:
    """Return the photos most similar to a published one."""
    vector, hash = _stored(searcher, photo)
    if vector is None:
        return searcher.itself(photo.path)
    sought = Sought(np.frombuffer(hash or b"", np.uint8).reshape(-1, BYTES), len(searcher))
    [matches] = searcher.nearest_to_vectors(
        vector[None], options.most, options.min_similarity, [photo.path], None, [sought]
    )
    return matches


def _vectors(
    target: PublishedTarget, searcher: PublishedSearcher, images: Iterable[ImageLike]
) -> NDArray[np.float32]:
    """Return pictures as vectors that queries compare, (n, dim), without blank ones."""
    found = [np.empty((0, searcher.seen.state.dim), np.float32)]
    for image in images:
        if not isinstance(image, PublishedPhoto):
            found.append(searcher.index.to_vectors(embedded(target, [image])))
        elif (vector := _stored(searcher, image)[0]) is not None:
            found.append(vector[None])
    return np.concatenate(found)


def _stored(searcher: PublishedSearcher, photo: PublishedPhoto) -> tuple[NDArray[np.float32] | None, bytes | None]:
    """Return the vector of a photo, float32 (dim,), None if it is blank, and its perceptual hash.

    Raises ImageError if it is not published.
    """
    stamp, table = searcher.seen.stamp, searcher.table
    found = table.at(stamp, photo.path, Wanted())
    if not found.paths:
        raise ImageError("is no longer published", "unreadable")
    [facts] = table.facts(stamp, [photo.path])
    vector: NDArray[np.float32] = unit_rows(found.vectors)[0]
    return None if any(facts.column("is_blank").to_pylist()) else vector, found.hashes[0]
