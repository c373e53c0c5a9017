"""Run queries: read the pictures, embed them, and search one or more indexes."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, KEYPOINTS, SEARCH
from vggsearch.errors import ImageError, InputError, OptionError, SkipKind
from vggsearch.knn.vectors import unit_rows
from vggsearch.model.engine import Engine
from vggsearch.model.local_features import LEVELS
from vggsearch.photos.decoder_pool import View
from vggsearch.photos.inputs import Box, ImageLike, name_of, naming_image, view_of
from vggsearch.photos.resize import is_blank
from vggsearch.photos.walk import Skipped
from vggsearch.query.filters import Filter
from vggsearch.query.options import (
    Answer,
    Images,
    Pick,
    QueryOptions,
    QueryResult,
    each_of,
    several_parts,
    whole_number,
)
from vggsearch.query.search import answer, answer_blank, answer_combined, answer_plainly
from vggsearch.query.searcher import Match
from vggsearch.query.targets import IndexTarget, Target, check_targets, folders_of, views_of

NO_PICTURE: SkipKind = "not a picture"

log = logging.getLogger(__name__)


def run_query(targets: Sequence[Target], query: Images, options: QueryOptions) -> QueryResult:
    """Run one query on one or more indexes, with the network of the first. See ImageIndex.query."""
    images = each_of(query)
    if len(images) == 1 and not options.minus:
        return _run_single(targets, images[0], options)
    if options.containing:
        raise several_parts()
    if not images:
        raise InputError("A query of several pictures needs at least one.")
    indexes = views_of(targets, images, options)
    added, subtracted = embedded(targets[0], images, options.crop), embedded(targets[0], options.minus)
    matches = answer_combined(added, subtracted, indexes, options) if len(added) else ()
    return QueryResult(query_name(images, options.minus), matches, folders_of(targets))


def run_queries(targets: Sequence[Target], queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
    """Yield the result of each query, or a Skipped for an unusable image, in order.

    The path of a Skipped is the name of the query, or its place from 0, in brackets, if it has none: "[3]".
    If embeddings alone decide, SEARCH.at_once queries are read ahead, embedded and searched together. Otherwise
    SEARCH.ahead of them are answered while the caller takes the answer to the one before: the views of each go
    through the network together, and while those of one do, others are decoded and compared with photos.
    """
    waiting = enumerate(map(each_of, queries))  # once, since a generator or stream can be read only once
    if not options.is_plain:
        yield from _answers_ahead(targets, waiting, options)
        return
    while some := tuple(islice(waiting, SEARCH.at_once)):
        yield from _answers(targets, some, options)


def pick_random(
    targets: Sequence[IndexTarget], number: SupportsIndex, filters: Sequence[Filter] = (), seed: int | None = None
) -> tuple[Pick, ...]:
    """Return `number` random photos of those that pass all filters, or all of these if there are fewer.

    The same `seed` picks the same photos of the same indexes. Raises OptionError for a number below 1.
    """
    count = whole_number(number)
    if count < 1:
        raise OptionError(f"The count of photos to pick must be at least 1, not {count}.")
    check_targets(targets)
    found = [target.present.read(lambda state: (state.paths, state.wanted(filters))) for target in targets]
    rows = [np.arange(len(paths)) if wanted is None else wanted.rows for paths, wanted in found]
    of_source = np.repeat(np.arange(len(targets)), [len(some) for some in rows])
    of_row = np.concatenate(rows)
    names = [str(target.directory) if len(targets) > 1 else None for target in targets]
    chosen = np.random.default_rng(seed).permutation(len(of_row))[:count]
    return tuple(Pick(found[of_source[at]][0][of_row[at]], names[of_source[at]]) for at in chosen)


def _answer(targets: Sequence[Target], place: int, query: Sequence[ImageLike], options: QueryOptions) -> Answer:
    try:
        return run_query(targets, query, options)
    except (ImageError, InputError) as error:
        reason, kind = (error.reason, error.kind) if isinstance(error, ImageError) else (str(error), NO_PICTURE)
        name = query_name(query, options.minus)
        return Skipped(f"[{place}]" if name in ("", "-") else name, reason, kind)


def _answers_ahead(
    targets: Sequence[Target], queries: Iterator[tuple[int, Sequence[ImageLike]]], options: QueryOptions
) -> Iterator[Answer]:
    """Yield the result of each query, in order, while the next ones are run."""
    pool = ThreadPoolExecutor(SEARCH.ahead, thread_name_prefix="query")
    try:
        running = deque(pool.submit(_answer, targets, *each, options) for each in islice(queries, SEARCH.ahead))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(_answer, targets, *each, options) for each in islice(queries, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _answers(
    targets: Sequence[Target], queries: Sequence[tuple[int, Sequence[ImageLike]]], options: QueryOptions
) -> Iterator[Answer]:
    """Yield the results of several queries, in order: those of a single picture together, the rest one by one."""
    with ThreadPoolExecutor(ALIGN.threads) as pool:
        reading = pool.map(lambda query: _pixels_alone(targets[0], query[1], options.crop), queries)
        engine = targets[0].engine()  # the first time, it takes as long as the start of a decoder process
        engine.prepare()
        indexes = views_of(targets, (), options)
        pixels = list(reading)
    together = [at for at, each in enumerate(pixels) if each is not None]
    found: dict[int, tuple[Match, ...]] = {}
    if together:
        squares = [each for each in pixels if each is not None]
        embeddings = embed_squares(engine, np.stack(squares))
        images = [queries[at][1][0] for at in together]
        own_paths = [[target.own_path([image], options) for image in images] for target in targets]
        found = dict(zip(together, answer_plainly(embeddings, squares, own_paths, indexes, options), strict=True))
    for at, (place, query) in enumerate(queries):
        if at in found:
            yield QueryResult(query_name(query, ()), found[at], folders_of(targets))
        else:
            yield _answer(targets, place, query, options)


def _pixels_alone(target: Target, images: Sequence[ImageLike], crop: Box | None) -> NDArray[np.uint8] | None:
    """Return the square of a query of one picture; None for several pictures, a blank or an unusable one."""
    if len(images) != 1:
        return None
    try:
        pixels = _view(target, images[0], crop).pixels
    except (ImageError, InputError):
        return None  # it is read again on its own, which reports the error
    return None if is_blank(pixels) else pixels


def embed_squares(engine: Engine, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the embeddings of RGB pixels (n, size, size, 3), n above 0: float32 (n, dim), unit rows."""
    batches = np.split(squares, range(engine.batch_size, len(squares), engine.batch_size))
    return unit_rows(np.concatenate(list(engine.embed_stream(batches))))


def _view(target: Target, image: ImageLike, crop: Box | None, *, longer: int = 0) -> View:
    return view_of(image, target.spec.size, target.spec.resize, target.decoders, crop, longer=longer)


def _run_single(targets: Sequence[Target], image: ImageLike, options: QueryOptions) -> QueryResult:
    with ThreadPoolExecutor(2) as threads:  # the first time, all three take as long
        has_cells = options.rerank or options.containing
        longer = KEYPOINTS.pixels if has_cells else 0
        reading = threads.submit(_view, targets[0], image, options.crop, longer=longer)
        engine = targets[0].engine()
        preparing = threads.submit(engine.prepare, LEVELS if has_cells else 0)
        indexes = views_of(targets, [image], options)
        with naming_image(image):
            view = reading.result()
        preparing.result()
    if is_blank(view.pixels):
        log.warning("%s is blank: there is nothing in it to compare.", name_of(image))
        return QueryResult(name_of(image), answer_blank(indexes), folders_of(targets))
    return QueryResult(name_of(image), answer(view, indexes, engine, options), folders_of(targets))


def embedded(target: Target, images: Sequence[ImageLike], crop: Box | None = None) -> NDArray[np.float32]:
    """Return the embeddings of pictures that are one query, (n, dim), without blank ones."""
    found = [np.empty((0, target.spec.dim), np.float32)]
    for image in images:
        try:
            pixels = _view(target, image, crop).pixels
        except ImageError as error:
            raise ImageError(f"{name_of(image)}: {error.reason}", error.kind) from error
        if is_blank(pixels):
            log.warning("%s is blank and left out: there is nothing in it to compare.", name_of(image))
        else:
            found.append(unit_rows(target.engine().embed(pixels[None])))
    return np.concatenate(found)


def query_name(images: Sequence[ImageLike], minus: Sequence[ImageLike]) -> str:
    """Return the name of a query in results: a.jpg + b.jpg - c.jpg."""
    return " - ".join([" + ".join(map(name_of, images)), *map(name_of, minus)])
