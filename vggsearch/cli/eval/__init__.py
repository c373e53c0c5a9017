"""vggsearch eval"""

import click

from vggsearch.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "truth": LazyCommand("vggsearch.cli.eval.truth:truth", "Measure retrieval quality on labelled photos."),
    "copies": LazyCommand("vggsearch.cli.eval.copies:copies", "Measure how well edited copies are found."),
}


@click.group("eval", cls=LazyGroup, table=COMMANDS, default="truth")
def eval_() -> None:
    """Measure retrieval quality: on labelled photos, or on edited copies of your own.

    vggsearch eval truth.tsv is short for vggsearch eval truth truth.tsv.

    \b
    Example:
      vggsearch eval truth.tsv
      vggsearch eval copies ./photos
    """
