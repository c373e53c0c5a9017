"""vggsearch classify"""

from pathlib import Path

import click

from vggsearch.cli.options import FILE, index_option
from vggsearch.cli.output import Output, output_options
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.image_index import ImageIndex
from vggsearch.measures.ground_truth import read_truth
from vggsearch.progress import progress_bar
from vggsearch.render.learning import classified, wrong_labels
from vggsearch.store.locate import only_index


@click.command()
@click.argument("truth", type=FILE)
@index_option
@click.option(
    "--wrong-labels", "are_wrong_wanted", is_flag=True, help="List the labels in TRUTH that look wrong instead."
)
@output_options
def classify(truth: Path, directory: Path | None, are_wrong_wanted: bool, output: Output) -> None:
    """Label the photos of an index that have no label, from those that have one. Changes nothing.

    TRUTH is a text file with the header `path<TAB>label` and one line per labelled photo. Every other photo gets
    the most probable label, or none if it looks like none of the labelled ones.

    \b
    Example:
      vggsearch classify truth.tsv --format csv
      vggsearch classify truth.tsv --wrong-labels
    """
    labels = read_truth(truth)
    with (
        ImageIndex.open(directory or only_index()) as opened,
        progress_bar() as progress,
        stopping_on_ctrl_c() as stop,
    ):
        found = opened.classify(labels, progress=progress, stop=stop)
    output.show((wrong_labels if are_wrong_wanted else classified)(found, output.format))
