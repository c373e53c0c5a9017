"""vggsearch query"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import click
from click.core import ParameterSource

from vggsearch.cli.options import (
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
from vggsearch.photos.inputs import ImageFile
from vggsearch.photos.walk import one_line
from vggsearch.query.options import Answer, QueryResult
from vggsearch.render.query import picks, query_results
from vggsearch.store.locate import only_index

STDIN = "-"
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


class SearchOptions(TypedDict):
    """The keywords of ImageIndex.query_many that are the same for every image."""

    count: int | None
    min_similarity: float | None
    crop: tuple[int, int, int, int] | None
    containing: bool
    filters: tuple[str, ...]
    exclude_same_folder: bool
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
    root: Path | None,
    options: EmbeddingOptions,
    engine_options: EngineOptions,
) -> None:
    """Find the photos most similar to each IMAGE; - reads an image from standard input.

    \b
    Example:
      vggsearch query img.jpg
      vggsearch query img.jpg --crop 100,50,400,300
      vggsearch query detail.jpg --containing
      vggsearch query img.jpg --filter '2019/**' --filter size:1000.. --exclude-same-folder
      vggsearch query img.jpg --min-similarity 0.9 --index indexes/photos --index indexes/phone
      vggsearch query beach.jpg dog.jpg --together --minus crowd.jpg
      vggsearch query --random 20 --filter taken:2019
      vggsearch query img.jpg -k 3 --print0 | xargs -0 xdg-open
    """
    check_usage(click.get_current_context())
    with ExitStack() as stack:
        first, *others = indexes = [
            stack.enter_context(ImageIndex.open(where, options, engine_options=engine_options, root=root))
            for where in directories or (only_index(),)
        ]
        if random is not None:
            picked = first.random(random, filters=search["filters"], seed=seed, also_in=others)
            output.show(picks(picked, output.format, roots_of(indexes)))
            return
        stack.enter_context(quiet_decoders())
        queries = tuple(read_images(images))
        answers = first.query_many(
            [queries] if together else queries,
            minus=tuple(read_images(minus)),
            also_in=others,
            **search,
        )
        show(list(answers), output, roots_of(indexes))


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
            "root" in given and len(ctx.params["directories"]) > 1,
            "--root applies to a single index. With several, record each new location: "
            "vggsearch index NEW/FOLDER --index DIRECTORY --moved",
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


def roots_of(indexes: Sequence[ImageIndex]) -> dict[str, Path | None]:
    """Return the photo folder of each index, by directory."""
    return {str(index.directory): index.root for index in indexes}


def show(answers: Sequence[Answer], output: Output, roots: dict[str, Path | None]) -> None:
    """Print the results, and on stderr the images that could not be used; if there are any, exit with status 1."""
    results = [answer for answer in answers if isinstance(answer, QueryResult)]
    failed = [answer for answer in answers if not isinstance(answer, QueryResult)]
    try:
        if results:
            output.show(query_results(results, output.format, roots))
    finally:
        for skipped in failed:
            say(f"Error: {one_line(skipped.path)}: {one_line(skipped.reason)}", err=True)
    if failed:
        sys.exit(1)
