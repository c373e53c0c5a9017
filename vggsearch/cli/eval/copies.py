"""vggsearch eval copies"""

from pathlib import Path

import click

from vggsearch.cli.eval.options import curve_option, whiten_option
from vggsearch.cli.options import FOLDER, engine_options, index_option, rerank_option, table_or_json_option
from vggsearch.cli.output import say, show
from vggsearch.cli.terminal import quiet_decoders, stopping_on_ctrl_c
from vggsearch.defaults import MEASURE, Format
from vggsearch.evaluation.evaluate import chosen_edits, evaluate_copies
from vggsearch.evaluation.pr_curve import check_curve_file, save_curve
from vggsearch.image_index import ImageIndex
from vggsearch.model.engine import EngineOptions
from vggsearch.photos.walk import one_line
from vggsearch.progress import progress_bar
from vggsearch.render.evaluation import copies as rendered
from vggsearch.store.locate import index_of


@click.command()
@click.argument("photos", type=FOLDER)
@index_option
@click.option(
    "--edits",
    default="all",
    show_default=True,
    metavar="all|basic|NAME,...",
    help="Edits to apply; basic is the eighteen most common.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=MEASURE.sample,
    show_default=True,
    help="Number of photos to make edited copies of.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for photos and crops.")
@click.option("--save", type=FOLDER, help="Save the edited copies to a new or empty folder, not among the photos.")
@whiten_option
@rerank_option
@curve_option
@table_or_json_option
@engine_options
def copies(
    photos: Path,
    directory: Path | None,
    edits: str,
    sample: int,
    seed: int,
    save: Path | None,
    whiten: str,
    rerank: bool,
    curve: Path | None,
    format: Format,
    engine_options: EngineOptions,
) -> None:
    """Make edited copies of a sample of PHOTOS in memory, query with each, and measure which originals are found.

    \b
    Example:
      vggsearch eval copies ./photos
      vggsearch eval copies ./photos --edits crop50,mirror --sample 20 --save ./copies
    """
    if curve is not None:
        check_curve_file(curve)
    chosen_edits(edits)  # refuses a wrong name before anything is opened
    where = directory or index_of(photos)
    with (
        ImageIndex.open(where, engine_options=engine_options, root=photos) as opened,
        quiet_decoders(),
        progress_bar() as progress,
        stopping_on_ctrl_c() as stop,
    ):
        found = evaluate_copies(
            opened,
            edits=edits,
            sample=sample,
            seed=seed,
            whiten=whiten,
            rerank=rerank,
            save=save,
            progress=progress,
            stop=stop,
        )
    for path in found.skipped:
        say(f"skipped {one_line(path)}: it can no longer be read", err=True)
    show(rendered(found, format), format)
    if curve is not None:
        save_curve(found.curve, curve)
