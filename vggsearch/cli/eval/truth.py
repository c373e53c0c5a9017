"""vggsearch eval truth"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from vggsearch.cli.eval.options import curve_option, whiten_option
from vggsearch.cli.options import FILE, FOLDER, index_option, rerank_option, table_or_json_option
from vggsearch.cli.output import say, show
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.defaults import Format
from vggsearch.errors import OptionError
from vggsearch.evaluation.compare import compare
from vggsearch.evaluation.evaluate import evaluate, evaluate_probe
from vggsearch.evaluation.pr_curve import check_curve_file, save_curve
from vggsearch.evaluation.work_plot import check_plot_file, save_plot
from vggsearch.image_index import ImageIndex
from vggsearch.measures.ground_truth import read_truth
from vggsearch.progress import progress_bar
from vggsearch.render.evaluation import comparison, figures, probe
from vggsearch.store.locate import only_index


@click.command()
@click.argument("truth", type=FILE)
@index_option
@whiten_option
@rerank_option
@click.option(
    "--compare",
    "others",
    type=FOLDER,
    multiple=True,
    metavar="INDEX",
    help="Ask another index the same, and compare the answers; repeat it for several.",
)
@click.option(
    "--plot", type=FILE, help="With --compare, save a chart of the work of each network and its mAP to a .svg file."
)
@click.option("--linear-probe", is_flag=True, help="Fit a linear classifier to the labelled embeddings instead.")
@curve_option
@table_or_json_option
def truth(
    truth: Path,
    directory: Path | None,
    whiten: str,
    rerank: bool,
    others: tuple[Path, ...],
    plot: Path | None,
    linear_probe: bool,
    curve: Path | None,
    format: Format,
) -> None:
    """Query an index with each labelled photo, and measure which photos are found.

    TRUTH is a text file with the header `path<TAB>label` and one line per photo. Paths are relative to the photo
    folder; photos with the same label belong together.

    \b
    Example:
      vggsearch eval truth truth.tsv --index indexes/photos --curve curve.html
      vggsearch eval truth truth.tsv --linear-probe
      vggsearch eval truth truth.tsv --index indexes/photos --compare indexes/fast
    """
    if curve is not None:
        check_curve_file(curve)
    if plot is not None:
        if not others:
            raise OptionError("--plot needs --compare.")
        check_plot_file(plot)
    labels = read_truth(truth)
    if others:
        if linear_probe or curve is not None:
            raise OptionError("--compare cannot be combined with --linear-probe or --curve.")
        _compare([directory or only_index(), *others], labels, whiten, format, plot, rerank=rerank)
        return
    with ImageIndex.open(directory or only_index()) as opened:
        if linear_probe:
            show(probe(evaluate_probe(opened, labels), format), format)
            return
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            found = evaluate(opened, labels, whiten=whiten, rerank=rerank, progress=progress, stop=stop)
    if found.missing:
        say(f"{len(found.missing):,} of {len(labels):,} labelled photos are not in the index.", err=True)
    show(figures(found.figures, format), format)
    if curve is not None:
        save_curve(found.curve, curve)


def _compare(
    directories: Sequence[Path],
    labels: Mapping[str, str],
    whiten: str,
    format: Format,
    plot: Path | None,
    *,
    rerank: bool,
) -> None:
    with ExitStack() as opened, progress_bar() as progress, stopping_on_ctrl_c() as stop:
        indexes = [opened.enter_context(ImageIndex.open(each)) for each in directories]
        found = compare(indexes, labels, whiten=whiten, rerank=rerank, progress=progress, stop=stop)
    show(comparison(found, format), format)
    if plot is not None:
        save_plot(found, plot)
