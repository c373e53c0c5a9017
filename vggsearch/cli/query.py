"""vggsearch query"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import click
from click.core import ParameterSource

from vggsearch.cli.options import (
    FILE,
    box,
    collected,
    embedding_options,
    engine_options,
    indexes_option,
    rerank_option,
    root_option,
)
from vggsearch.cli.output import Output, output_options, say
from vggsearch.cli.terminal import quiet_decoders
from vggsearch.defaults import SEARCH
from vggsearch.errors import InputError
from vggsearch.image_index import ImageIndex
from vggsearch.model.engine import EngineOptions
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.decoder_pool import Source
from vggsearch.photos.inputs import ImageFile
from vggsearch.photos.walk import Skipped, one_line
from vggsearch.query.options import Pick, QueryResult
from vggsearch.render.query import picks, query_results
from vggsearch.store.locate import only_index
from vggsearch.system.places import from_home

STDIN = "-"
NOT_AT = ("directories", "containing", "rerank", "random", "seed")  # what needs the index or its photos
SIMILARITY_OPTIONS = (  # which --random does not take: it shows any photos
    "images",
    "count",
    "min_similarity",
    "crop",
    "containing",
    "exclude_same_folder",
    "together",
    "minus",
)


class PublishedOptions(TypedDict):
    """The keywords of PublishedIndex.query_many that are the same for every image."""

    count: int | None
    min_similarity: float | None
    crop: tuple[int, int, int, int] | None
    filters: tuple[str, ...]
    exclude_same_folder: bool


class SearchOptions(PublishedOptions):
    """The keywords of ImageIndex.query_many that are the same for every image."""

    containing: bool
    rerank: bool


# The command gets them as `search`.
search_options: Callable[..., Callable[..., None]] = collected(
    "search",
    SearchOptions,
    tuple(SearchOptions.__annotations__),
    click.option(
        "-k",
        "--count",
        type=click.IntRange(min=1),
        help="Number of photos to show per IMAGE.  "
        f"[default: {SEARCH.count}; with --min-similarity, all that reach it]",
    ),
    click.option(
        "--min-similarity",
        type=click.FloatRange(-1, 1),
        help="Show only photos at least this similar; 1 is identical.",
    ),
    click.option(
        "--crop",
        metavar="X,Y,W,H",
        callback=box,
        help="Search with this region of each IMAGE only: left, top, width, height in pixels.",
    ),
    click.option(
        "--containing", is_flag=True, help="Find photos that contain IMAGE; requires index --local-features."
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="RULE",
        help="Search only photos that match RULE: a path glob ('2019/**', '*.png'), folder:trips/rome, "
        "taken:2019-05..2020, size:1000.. (longer side in pixels), orientation:portrait|landscape|square. "
        " [repeatable]",
    ),
    click.option("--exclude-same-folder", is_flag=True, help="Exclude photos in the folder of IMAGE."),
    rerank_option,
)


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@indexes_option
@search_options
@click.option("--together", is_flag=True, help="Combine all IMAGEs into one query: photos similar to all of them.")
@click.option("--minus", multiple=True, metavar="IMAGE", help="Subtract this image from the query.  [repeatable]")
@click.option("--random", type=click.IntRange(min=1), metavar="N", help="Show N random photos; takes no IMAGE.")
@click.option("--seed", type=click.IntRange(min=0), help="Random seed; the same seed shows the same photos.")
@output_options
@click.option("--html", "page", type=FILE, metavar="FILE", help="Write an HTML page that shows the photos.")
@click.option("--preview", is_flag=True, help="Show the photos in the terminal.")
@click.option("--at", "url", metavar="URL", help="Search what was published there: see vggsearch publish.")
@root_option
@embedding_options(of_the_index=True)
@engine_options
def query(
    images: tuple[str, ...],
    directories: tuple[Path, ...],
    search: SearchOptions,
    together: bool,
    minus: tuple[str, ...],
    random: int | None,
    seed: int | None,
    output: Output,
    page: Path | None,
    preview: bool,
    url: str | None,
    root: Path | None,
    options: EmbeddingOptions,
    engine_options: EngineOptions,
) -> None:
    """Find the photos most similar to each IMAGE: a file, a photo in a bucket, or - for standard input.

    \b
    Example:
      vggsearch query img.jpg
      vggsearch query img.jpg --crop 100,50,400,300
      vggsearch query detail.jpg --containing
      vggsearch query img.jpg --filter '2019/**' --filter size:1000.. --exclude-same-folder
      vggsearch query img.jpg --min-similarity 0.9 --index indexes/photos --index indexes/phone
      vggsearch query beach.jpg dog.jpg --together --minus crowd.jpg
      vggsearch query --random 20 --filter taken:2019
      vggsearch query *.jpg --html similar.html
      vggsearch query img.jpg -k 3 --print0 | xargs -0 xdg-open
      vggsearch query s3://bucket/img.jpg
      vggsearch query img.jpg --at postgresql://server/photos --filter '2019/**'
    """
    check_usage(click.get_current_context())
    queries, subtracted = tuple(read_images(images)), tuple(read_images(minus))
    asked = [queries] if together else queries
    with ExitStack() as stack:
        if url is not None:
            published = stack.enter_context(ImageIndex.at(url, options, engine_options=engine_options, root=root))
            stack.enter_context(quiet_decoders())
            answers = list(published.query_many(asked, minus=subtracted, **_without_photos(search)))
            roots = {published.place: root}
        else:
            first, *others = indexes = [
                stack.enter_context(ImageIndex.open(where, options, engine_options=engine_options, root=root))
                for where in directories or (only_index(),)
            ]
            roots = roots_of(indexes)
            if random is not None:
                picked = first.random(random, filters=search["filters"], seed=seed, also_in=others)
                _show_picks(picked, indexes, output, page, preview=preview)
                return
            stack.enter_context(quiet_decoders())
            answers = list(first.query_many(asked, minus=subtracted, also_in=others, **search))
    pictures = [queries] if together else [(query,) for query in queries]
    found = [
        (answer, [source_of(image) for image in (*some, *subtracted)])
        for answer, some in zip(answers, pictures, strict=True)
        if isinstance(answer, QueryResult)
    ]
    try:
        if page is not None or preview:
            from vggsearch.cli.query_pages import show_results

            show_results(found, page)
        elif found:
            output.show(query_results([result for result, _ in found], output.format, roots))
    finally:
        failed = [answer for answer in answers if isinstance(answer, Skipped)]
        for skipped in failed:
            say(f"Error: {one_line(skipped.path)}: {one_line(skipped.reason)}", err=True)
    if failed:
        sys.exit(1)


def _without_photos(search: SearchOptions) -> PublishedOptions:
    """Return the options that apply to what is published, which has no photos."""
    return {
        "count": search["count"],
        "min_similarity": search["min_similarity"],
        "crop": search["crop"],
        "filters": search["filters"],
        "exclude_same_folder": search["exclude_same_folder"],
    }


def _show_picks(
    picked: Sequence[Pick], indexes: Sequence[ImageIndex], output: Output, page: Path | None, *, preview: bool
) -> None:
    roots = roots_of(indexes)
    if page is not None or preview:
        from vggsearch.cli.query_pages import show_picks

        sources = [Source(each.path, roots[each.index or str(indexes[0].directory)] or Path()) for each in picked]
        show_picks(picked, sources, page)
        return
    output.show(picks(picked, output.format, roots))


def check_usage(ctx: click.Context) -> None:
    """Raise UsageError for arguments that do not go together."""
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    is_random = "random" in given
    rules = (
        (
            not is_random and not ctx.params["images"],
            "Name an IMAGE, or show random photos: vggsearch query --random 20",
        ),
        (not is_random and "seed" in given, "--seed requires --random N."),
        (
            is_random and not given.isdisjoint(SIMILARITY_OPTIONS),
            "--random takes no IMAGE and, of the search options, only --filter.",
        ),
        (
            {"page", "preview"} <= given or ({"page", "preview"} & given and {"format", "print0"} & given),
            "Of --html, --preview and --format or --print0, choose one.",
        ),
        (
            "root" in given and len(ctx.params["directories"]) > 1,
            "--root applies to a single index. With several, record each new location: "
            "vggsearch index NEW/FOLDER --index DIRECTORY --moved",
        ),
        (
            "url" in given and not given.isdisjoint(NOT_AT),
            "--at searches what is published, without --index, --containing, --rerank and --random: these need the "
            "index or its photos.",
        ),
        (
            "url" in given and {"page", "preview"} & given and "root" not in given,
            "--html and --preview show photos: with --at, name their folder with --root.",
        ),
    )
    for is_wrong, message in rules:
        if is_wrong:
            raise click.UsageError(message)


def read_images(images: tuple[str, ...]) -> Iterator[str | ImageFile]:
    """Yield each name as it is, and standard input for "-"."""
    for image in images:
        yield _standard_input() if image == STDIN else image


def _standard_input() -> ImageFile:
    if sys.stdin is None:
        raise InputError(f"Standard input is closed, so there is no image in {STDIN}.")
    return ImageFile(sys.stdin.buffer, STDIN)


def source_of(image: str | ImageFile) -> Source:
    """Return what a decoder process needs to decode an image again, to show it."""
    return Source.named(from_home(image)) if isinstance(image, str) else Source(image.name, data=image.read())


def roots_of(indexes: Sequence[ImageIndex]) -> dict[str, Path | None]:
    """Return the photo folder of each index, by directory."""
    return {str(index.directory): index.root for index in indexes}
