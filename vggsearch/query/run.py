"""Ask indexes: read the pictures of a query, and find the photos that it wants."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, SEARCH
from vggsearch.errors import ImageError, OptionError
from vggsearch.knn.vectors import unit_rows
from vggsearch.model.engine import Engine
from vggsearch.photos.inputs import Box, ImageLike, name_of, read_picture
from vggsearch.photos.resize import is_blank, square
from vggsearch.photos.walk import Skipped
from vggsearch.query.filters import Filter
from vggsearch.query.options import Answer, Images, Pick, QueryOptions, QueryResult, each_of, several_parts
from vggsearch.query.search import answer, answer_blank, answer_combined, answer_plainly
from vggsearch.query.searcher import Match
from vggsearch.query.targets import Source, check_sources, own_path_in, see

log = logging.getLogger(__name__)


def ask(sources: Sequence[Source], query: Images, options: QueryOptions) -> QueryResult:
    """Return what one query finds in some indexes; the first one's network looks at it. See ImageIndex.query."""
    images = each_of(query)
    if len(images) == 1 and not options.minus:
        return _ask_one(sources, images[0], options)
    if options.part:
        raise several_parts()
    if not images:
        raise OptionError("A query of several pictures needs at least one.")
    asked = see(sources, images, options)
    added, subtracted = _embed(sources[0], images, options.crop), _embed(sources[0], options.minus)
    matches = answer_combined(added, subtracted, asked, options) if len(added) else ()
    return QueryResult(_name(images, options.minus), matches)


def ask_many(sources: Sequence[Source], queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
    """Yield what each query finds, or a Skipped for one that cannot be used, in order.

    Where embeddings alone decide, SEARCH.at_once queries are read ahead, seen by the network and searched together.
    """
    if not options.is_plain:
        yield from (_answer(sources, query, options) for query in queries)
        return
    waiting = iter(queries)
    while some := tuple(islice(waiting, SEARCH.at_once)):
        yield from _answers(sources, some, options)


def pick(
    sources: Sequence[Source], count: int, filters: Sequence[Filter] = (), seed: int | None = None
) -> tuple[Pick, ...]:
    """Return `count` photos at random, of those that pass all filters, or all of them if they are fewer.

    The same `seed` picks the same photos of the same indexes. Raises OptionError for a count below 1.
    """
    if count < 1:
        raise OptionError(f"The count of photos to pick must be at least 1, not {count}.")
    check_sources(sources)
    found = [source.present.read(lambda state: (state.paths, state.wanted(filters))) for source in sources]
    rows = [np.arange(len(paths)) if wanted is None else wanted.rows for paths, wanted in found]
    of_source = np.repeat(np.arange(len(sources)), [len(some) for some in rows])
    of_row = np.concatenate(rows)
    names = [str(source.directory) if len(sources) > 1 else None for source in sources]
    chosen = np.random.default_rng(seed).permutation(len(of_row))[:count]
    return tuple(Pick(found[of_source[at]][0][of_row[at]], names[of_source[at]]) for at in chosen)


def _answer(sources: Sequence[Source], query: Images, options: QueryOptions) -> Answer:
    try:
        return ask(sources, query, options)
    except ImageError as error:
        return Skipped(_name(each_of(query), options.minus), error.reason, error.kind)


def _answers(sources: Sequence[Source], queries: Sequence[Images], options: QueryOptions) -> Iterator[Answer]:
    """Yield what some queries find, in order: each that is one picture with the others, the rest by itself."""
    with ThreadPoolExecutor(ALIGN.threads) as pool:
        pixels = list(pool.map(lambda query: _pixels_alone(sources[0], query, options.crop), queries))
    together = [at for at, each in enumerate(pixels) if each is not None]
    found: dict[int, tuple[Match, ...]] = {}
    if together:
        embeddings = embed_squares(sources[0].engine(), np.stack([each for each in pixels if each is not None]))
        images = [each_of(queries[at])[0] for at in together]
        own_paths = [[own_path_in(source, image, options) for image in images] for source in sources]
        asked = see(sources, (), options)
        found = dict(zip(together, answer_plainly(embeddings, own_paths, asked, options), strict=True))
    for at, query in enumerate(queries):
        yield QueryResult(_name(each_of(query), ()), found[at]) if at in found else _answer(sources, query, options)


def _pixels_alone(source: Source, query: Images, crop: Box | None) -> NDArray[np.uint8] | None:
    """Return the square of a query that is one picture; None for several, a blank one, or one that is damaged."""
    images = each_of(query)
    if len(images) != 1:
        return None
    try:
        pixels = _square(source, images[0], crop)
    except ImageError:
        return None  # it is read again by itself, and said why not
    return None if is_blank(pixels) else pixels


def embed_squares(engine: Engine, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the embeddings of RGB pixels (n, size, size, 3), n above 0: float32 (n, dim), unit rows."""
    batches = np.split(squares, range(engine.batch_size, len(squares), engine.batch_size))
    return unit_rows(np.concatenate(list(engine.embed_stream(batches))))


def _square(source: Source, image: ImageLike, crop: Box | None) -> NDArray[np.uint8]:
    spec = source.spec
    return square(read_picture(image, spec.size, crop), spec.size, spec.resize)


def _ask_one(sources: Sequence[Source], image: ImageLike, options: QueryOptions) -> QueryResult:
    spec = sources[0].spec
    picture = read_picture(image, spec.size, options.crop)
    pixels = square(picture, spec.size, spec.resize)
    asked = see(sources, [image], options)
    if is_blank(pixels):
        log.warning("%s is blank: there is nothing in it to compare.", name_of(image))
        return QueryResult(name_of(image), answer_blank(asked))
    return QueryResult(name_of(image), answer(picture, pixels, asked, sources[0].engine(), options))


def _embed(source: Source, images: Sequence[ImageLike], crop: Box | None = None) -> NDArray[np.float32]:
    """Return the embeddings of pictures that are one query, (n, dim), without blank ones, which say nothing."""
    found = [np.empty((0, source.spec.dim), np.float32)]
    for image in images:
        try:
            pixels = _square(source, image, crop)
        except ImageError as error:
            raise ImageError(f"{name_of(image)}: {error.reason}", error.kind) from error
        if is_blank(pixels):
            log.warning("%s is blank and left out: there is nothing in it to compare.", name_of(image))
        else:
            found.append(unit_rows(source.engine().embed(pixels[None])))
    return np.concatenate(found)


def _name(images: Sequence[ImageLike], minus: Sequence[ImageLike]) -> str:
    """Return a query as results name it: a.jpg + b.jpg - c.jpg."""
    return " - ".join([" + ".join(map(name_of, images)), *map(name_of, minus)])
