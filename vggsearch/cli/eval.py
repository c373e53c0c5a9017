"""vggsearch eval"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggsearch.cli.options import FILE, FOLDER, engine_options, index_option, numbers_option, verify_option
from vggsearch.cli.terminal import quiet_decoders, stopping_on_ctrl_c
from vggsearch.defaults import MEASURE, Format
from vggsearch.progress import progress_bar
from vggsearch.store.locate import index_of, only_index

if TYPE_CHECKING:
    from vggsearch.model.engine import EngineOptions


class Eval(click.Group):
    """`eval TRUTH.tsv` is `eval truth TRUTH.tsv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in where none is named."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["truth", *args]
        return super().parse_args(ctx, args)


whiten_option = click.option(
    "--whiten",
    metavar="auto|none|DIM[:SHRINKAGE]",
    default="auto",
    show_default=True,
    help="Whitening: the index's own, none, or one to DIM numbers, shrunk by a share of 0..1.",
)
curve_option = click.option("--curve", type=FILE, help="Draw precision and recall: a .csv, .png or .html file.")


@click.group("eval", cls=Eval, invoke_without_command=False)
def eval_() -> None:
    """Measure how good the answers are: on labelled photos, or on edited copies of your own.

    \b
    Example:
      vggsearch eval truth.tsv          the same as: vggsearch eval truth truth.tsv
      vggsearch eval copies ./photos
    """


@eval_.command(short_help="Measure the answers to labelled photos.")
@click.argument("truth", type=FILE)
@index_option
@whiten_option
@verify_option
@click.option("--linear-probe", is_flag=True, help="Fit a linear classifier to the labelled embeddings instead.")
@curve_option
@numbers_option
def truth(
    truth: Path,
    directory: Path | None,
    whiten: str,
    rerank: bool,
    linear_probe: bool,
    curve: Path | None,
    format: Format,
) -> None:
    """Ask for each labelled photo of an index, and measure which photos come.

    TRUTH is a text file with the header `path<TAB>label` and a line for each photo, its path relative to the photo
    folder; photos with the same label belong together.

    \b
    Example:
      vggsearch eval truth.tsv --index indexes/photos --curve curve.png
      vggsearch eval truth.tsv --linear-probe
    """
    from vggsearch.evaluation import evaluate
    from vggsearch.evaluation.ground_truth import read_truth
    from vggsearch.evaluation.pr_curve import check_curve_file, save_curve
    from vggsearch.image_index import ImageIndex
    from vggsearch.render.eval import figures, probe

    if curve is not None:
        check_curve_file(curve)
    labels = read_truth(truth)
    with ImageIndex.open(directory or only_index()) as opened:
        if linear_probe:
            click.echo(probe(evaluate.evaluate_probe(opened, labels), format))
            return
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            found = evaluate.evaluate(opened, labels, whiten=whiten, rerank=rerank, progress=progress, stop=stop)
    if found.missing:
        click.echo(f"{len(found.missing):,} of {len(labels):,} labelled photos are not in the index.", err=True)
    click.echo(figures(found.figures, format))
    if curve is not None:
        save_curve(found.curve, curve)


@eval_.command(short_help="Measure whether edited copies are found again.")
@click.argument("photos", type=FOLDER)
@index_option
@click.option(
    "--edits",
    default="all",
    show_default=True,
    metavar="all|basic|NAME,...",
    help="Which edits: basic are eighteen common ones.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=MEASURE.sample,
    show_default=True,
    help="Photos to make copies of.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which photos, and which crops.")
@click.option("--save", type=FOLDER, help="Keep the copies in this folder.")
@whiten_option
@verify_option
@curve_option
@numbers_option
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
    runs_on: "EngineOptions",
) -> None:
    """Make edited copies of some of the indexed PHOTOS, in memory, and measure whether they are found again.

    \b
    Example:
      vggsearch eval copies ./photos
      vggsearch eval copies ./photos --edits crop50,mirror --sample 20 --save ./copies
    """
    from vggsearch.evaluation import evaluate
    from vggsearch.evaluation.pr_curve import check_curve_file, save_curve
    from vggsearch.image_index import ImageIndex
    from vggsearch.render.eval import copies as copies_text
    from vggsearch.render.text import one_line

    if curve is not None:
        check_curve_file(curve)
    evaluate.chosen_edits(edits)  # a wrong name is said before anything is opened
    where = directory or index_of(photos)
    with (
        ImageIndex.open(where, engine_options=runs_on, root=photos) as opened,
        quiet_decoders(),
        progress_bar() as progress,
        stopping_on_ctrl_c() as stop,
    ):
        found = evaluate.evaluate_copies(
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
        click.echo(f"skipped {one_line(path)}: it cannot be read any more", err=True)
    click.echo(copies_text(found, format))
    if curve is not None:
        save_curve(found.curve, curve)
