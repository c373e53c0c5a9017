"""vggsearch learn"""

from pathlib import Path

import click

from vggsearch.cli.options import FILE, index_option, table_or_json_option
from vggsearch.cli.output import say, show
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.defaults import Format
from vggsearch.errors import LearnedWorse, OptionError
from vggsearch.image_index import ImageIndex
from vggsearch.learning.learn import LearnReport
from vggsearch.progress import progress_bar
from vggsearch.render.learning import learned as rendered
from vggsearch.store.locate import only_index


@click.command()
@click.argument("truth", type=FILE, required=False)
@index_option
@click.option(
    "--decisions", is_flag=True, help="Learn from the decisions of vggsearch dups decide instead of TRUTH."
)
@click.option("--forget", "is_forgotten", is_flag=True, help="Take back what was learned.")
@click.option("--even-if-worse", is_flag=True, help="Store it even if less is found than before.")
@table_or_json_option
def learn(
    truth: Path | None,
    directory: Path | None,
    decisions: bool,
    is_forgotten: bool,
    even_if_worse: bool,
    format: Format,
) -> None:
    """Learn from labelled photos which ones belong together, so that queries find more of them.

    TRUTH is a text file with the header `path<TAB>label` and one line per photo, as for vggsearch eval. What was
    learned is tested on photos and labels that it was not learned from, and is not stored if less is found there.
    Only queries change; embeddings and duplicates do not.

    \b
    Example:
      vggsearch learn truth.tsv
      vggsearch learn --forget
    """
    if (truth is not None) + decisions + is_forgotten != 1:
        raise OptionError("Name a file of labels, or pass --decisions or --forget: one of the three.")
    with ImageIndex.open(directory or only_index()) as opened:
        if is_forgotten:
            say("What was learned is forgotten." if opened.forget() else "Nothing had been learned.")
            return
        try:
            with progress_bar() as progress, stopping_on_ctrl_c() as stop:
                found = opened.learn(truth, even_if_worse=even_if_worse, progress=progress, stop=stop)
        except LearnedWorse as error:
            if isinstance(error.report, LearnReport):
                show(rendered(error.report, format), format)
            raise
    show(rendered(found, format), format)
