"""vggsearch query"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggsearch.cli.options import (
    FOLDER,
    box,
    embedding_options,
    engine_options,
    format_option,
    index_option,
    verify_option,
)
from vggsearch.defaults import SEARCH, Format
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.places import only_index
from vggsearch.terminal import quiet_decoders

if TYPE_CHECKING:
    from vggsearch.model.engine import EngineOptions

STDIN = "-"


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@index_option
@click.option(
    "-k", "--count", type=click.IntRange(min=1), default=SEARCH.count, show_default=True,
    help="How many photos to show for each IMAGE.",
)  # fmt: skip
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
@click.option("--part", is_flag=True, help="Find photos that contain IMAGE; needs index --local-features.")
@verify_option
@format_option
@click.option("--root", type=FOLDER, help="Where the photos are now, if they moved apart from the index.")
@embedding_options(of_the_index=True)
@engine_options
def query(
    images: tuple[str, ...],
    directory: Path | None,
    count: int,
    min_similarity: float | None,
    crop: tuple[int, int, int, int] | None,
    part: bool,
    verify: bool,
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
      vggsearch query img.jpg -k 3 --format paths | xargs -d '\\n' xdg-open
    """
    from vggsearch.image_index import ImageIndex
    from vggsearch.queries import QueryResult
    from vggsearch.report.query import query_results
    from vggsearch.report.text import one_line

    where = directory or only_index()
    with ImageIndex.open(where, options, engine_options=runs_on, root=root) as opened, quiet_decoders():
        answers = list(
            opened.query_many(read_images(images), count, min_similarity, verify=verify, crop=crop, part=part)
        )
        results = [answer for answer in answers if isinstance(answer, QueryResult)]
        failed = [answer for answer in answers if not isinstance(answer, QueryResult)]
        if results:
            click.echo(query_results(results, format, opened.root))
    for skipped in failed:
        click.echo(f"Error: {one_line(skipped.path)}: {skipped.reason}", err=True)
    if failed:
        sys.exit(1)


def read_images(images: tuple[str, ...]) -> Iterator[str | bytes]:
    """Yield each name as it is, and the bytes of standard input for "-"."""
    for image in images:
        yield sys.stdin.buffer.read() if image == STDIN else image
