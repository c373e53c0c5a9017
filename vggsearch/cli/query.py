"""vggsearch query"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggsearch.cli.options import (
    FOLDER,
    box,
    embedding_options,
    engine_options,
    format_option,
    indexes_option,
    verify_option,
)
from vggsearch.cli.terminal import quiet_decoders
from vggsearch.defaults import SEARCH, Format
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.store.locate import only_index

if TYPE_CHECKING:
    from vggsearch.image_index import ImageIndex
    from vggsearch.model.engine import EngineOptions
    from vggsearch.query.options import Answer

STDIN = "-"


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@indexes_option
@click.option(
    "-k",
    "--count",
    type=click.IntRange(min=1),
    help="How many photos to show for each IMAGE.  "
    f"[default: {SEARCH.count}; with --min-similarity all that reach it]",
)
@click.option(
    "--min-similarity",
    type=click.FloatRange(-1, 1),
    help="Show only photos at least this similar (1 is the same).",
)
@click.option(
    "--crop",
    metavar="X,Y,W,H",
    callback=box,
    help="Ask for a part of each IMAGE: left, top, width, height in pixels.",
)
@click.option(
    "--part", "containing", is_flag=True, help="Find photos that contain IMAGE; needs index --local-features."
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="RULE",
    help="Find only photos that keep RULE, repeatable: a path glob ('2019/**', '*.png'), folder:trips/rome, "
    "taken:2019-05..2020, size:1000.. (pixels of the longer side), orientation:portrait|landscape|square.",
)
@click.option("--exclude-same-folder", is_flag=True, help="Leave out the photos that lie beside IMAGE.")
@click.option("--together", is_flag=True, help="Take all IMAGEs as one query: what is like all of them.")
@click.option("--minus", multiple=True, metavar="IMAGE", help="Subtract this picture from the query, repeatable.")
@click.option("--random", type=click.IntRange(min=1), metavar="N", help="Show N photos at random; takes no IMAGE.")
@click.option("--seed", type=click.IntRange(min=0), help="Which photos --random shows: the same ones again.")
@verify_option
@format_option
@click.option("--root", type=FOLDER, help="Where the photos are now, if they moved apart from the index.")
@embedding_options(of_the_index=True)
@engine_options
def query(
    images: tuple[str, ...],
    directories: tuple[Path, ...],
    count: int | None,
    min_similarity: float | None,
    crop: tuple[int, int, int, int] | None,
    containing: bool,
    filters: tuple[str, ...],
    exclude_same_folder: bool,
    together: bool,
    minus: tuple[str, ...],
    random: int | None,
    seed: int | None,
    rerank: bool,
    format: Format,
    root: Path | None,
    options: EmbeddingOptions,
    runs_on: "EngineOptions",
) -> None:
    """Show the photos most like each IMAGE; - reads one from standard input.

    \b
    Example:
      vggsearch query img.jpg
      vggsearch query img.jpg --crop 100,50,400,300
      vggsearch query detail.jpg --part
      vggsearch query img.jpg --filter '2019/**' --filter size:1000.. --exclude-same-folder
      vggsearch query img.jpg --min-similarity 0.9 --index indexes/photos --index indexes/phone
      vggsearch query beach.jpg dog.jpg --together --minus crowd.jpg
      vggsearch query --random 20 --filter taken:2019
      vggsearch query img.jpg -k 3 --format paths | xargs -d '\\n' xdg-open
    """
    from vggsearch.image_index import ImageIndex
    from vggsearch.render.query import picks

    is_like_something = any((images, count, crop, containing, exclude_same_folder, together, minus))
    if random is None and not images:
        raise click.UsageError("Name an IMAGE to ask for, or look around: vggsearch query --random 20")
    if random is None and seed is not None:
        raise click.UsageError("--seed is for --random N.")
    if random is not None and (is_like_something or min_similarity is not None):
        raise click.UsageError(
            "--random shows any photos: it takes no IMAGE, and of what is to be found only --filter."
        )
    if len(directories) > 1 and root is not None:
        raise click.UsageError(
            "--root is for one index. Of several, tell each where its photos are now: "
            "vggsearch index NEW/PLACE --index DIRECTORY --moved"
        )
    with ExitStack() as stack:
        first, *others = indexes = [
            stack.enter_context(ImageIndex.open(where, options, engine_options=runs_on, root=root))
            for where in directories or (only_index(),)
        ]
        if random is not None:
            picked = first.random(random, filters=filters, seed=seed, also_in=others)
            click.echo(picks(picked, format, roots_of(indexes)))
            return
        stack.enter_context(quiet_decoders())
        asked = read_images(images)
        answers = first.query_many(
            [tuple(asked)] if together else asked,
            count,
            min_similarity=min_similarity,
            rerank=rerank,
            crop=crop,
            containing=containing,
            filters=filters,
            exclude_same_folder=exclude_same_folder,
            minus=tuple(read_images(minus)),
            also_in=others,
        )
        show(list(answers), format, roots_of(indexes))


def read_images(images: tuple[str, ...]) -> Iterator[str | bytes]:
    """Yield each name as it is, and the bytes of standard input for "-"."""
    for image in images:
        yield sys.stdin.buffer.read() if image == STDIN else image


def roots_of(indexes: Sequence["ImageIndex"]) -> dict[str, Path | None]:
    """Return the photo folder of each index, by directory."""
    return {str(index.directory): index.root for index in indexes}


def show(answers: Sequence["Answer"], format: Format, roots: dict[str, Path | None]) -> None:
    """Print what was found, and on stderr what could not be asked for; exit with status 1 if there is such."""
    from vggsearch.query.options import QueryResult
    from vggsearch.render.query import query_results
    from vggsearch.render.text import one_line

    results = [answer for answer in answers if isinstance(answer, QueryResult)]
    failed = [answer for answer in answers if not isinstance(answer, QueryResult)]
    if results:
        click.echo(query_results(results, format, roots))
    for skipped in failed:
        click.echo(f"Error: {one_line(skipped.path)}: {skipped.reason}", err=True)
    if failed:
        sys.exit(1)
