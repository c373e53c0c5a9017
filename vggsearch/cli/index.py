"""vggsearch index"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggsearch.cli.options import FOLDER, embedding_options, engine_options, index_option
from vggsearch.cli.terminal import announced, stopping_on_ctrl_c
from vggsearch.defaults import DECODE_ON
from vggsearch.errors import Stopped
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.progress import progress_bar

if TYPE_CHECKING:
    from vggsearch.model.engine import EngineOptions


@click.command()
@click.argument("photos", type=FOLDER)
@index_option
@embedding_options(of_the_index=False)
@engine_options
@click.option(
    "--decode",
    type=click.Choice(DECODE_ON),
    default="auto",
    show_default=True,
    help="Where JPEG is decoded: auto is a CUDA GPU where there is one.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Photos at once in the network.")
@click.option("--workers", type=click.IntRange(min=1), help="Decoder processes.  [default: one a processor]")
@click.option("--moved", is_flag=True, help="PHOTOS is where the photos of this index are now.")
@click.option("--allow-empty", is_flag=True, help="Go on even if every photo is gone.")
@click.option("--retry-skipped", is_flag=True, help="Try files again that could not be used before.")
@click.option("--compact", is_flag=True, help="Merge small parts now.  [default: when there are many]")
@click.option(
    "--whiten/--no-whiten",
    default=None,
    help="Search embeddings whitened on this collection.  [default: what the index has; whitened]",
)
@click.option(
    "--local-features/--no-local-features",
    default=None,
    help="Keep local features, 13 kB a photo: quick checks, query --part.  [default: what the index has; none]",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if a picture was skipped, in this run or before.")
def index(
    photos: Path,
    directory: Path | None,
    options: EmbeddingOptions,
    runs_on: "EngineOptions",
    decode: str,
    batch_size: int | None,
    workers: int | None,
    moved: bool,
    allow_empty: bool,
    retry_skipped: bool,
    compact: bool,
    whiten: bool | None,
    local_features: bool | None,
    strict: bool,
) -> None:
    """Index the folder PHOTOS, or bring its index up to date: only what is new or changed is worked on.

    Once there is an index, options left out are those it was made with.

    \b
    Example:
      vggsearch index ./photos
      vggsearch index ./photos --layer fc7 --index indexes/photos-fc7
    """
    from vggsearch.image_index import ImageIndex
    from vggsearch.indexing.update import UpdateReport
    from vggsearch.render.index import skipped_lines, update_line

    runs_on = replace(runs_on, decode=decode, batch_size=batch_size)
    with (
        ImageIndex.for_photos(photos, directory, options, engine_options=runs_on) as opened,
        stopping_on_ctrl_c() as stop,
        progress_bar() as progress,
    ):
        stopped = None
        try:
            report = opened.update(
                photos,
                workers=workers,
                moved=moved,
                allow_empty=allow_empty,
                retry_skipped=retry_skipped,
                compact=compact,
                whiten=whiten,
                local_features=local_features,
                progress=announced(str(opened.spec), progress),
                stop=stop,
            )
        except Stopped as error:
            if not isinstance(error.report, UpdateReport):
                raise
            report, stopped = error.report, error
    for line in skipped_lines(report.newly_skipped):
        click.echo(line, err=True)
    click.echo(update_line(report, opened.directory))
    if strict and (pictures := [skipped for skipped in report.skipped if skipped.kind != "not a picture"]):
        raise click.ClickException(f"{len(pictures):,} skipped, and --strict was given: vggsearch info --skipped")
    if stopped is not None:
        raise stopped
