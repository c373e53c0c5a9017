"""vggsearch info"""

from pathlib import Path

import click

from vggsearch.cli.options import index_option
from vggsearch.cli.output import Output, output_options
from vggsearch.image_index import ImageIndex
from vggsearch.render.info import info as rendered
from vggsearch.render.update import skipped_files
from vggsearch.store.locate import only_index


@click.command()
@index_option
@click.option("--skipped", is_flag=True, help="List the skipped files with the reason for each.")
@output_options
def info(directory: Path | None, skipped: bool, output: Output) -> None:
    """Show what an index contains and how it was made.

    \b
    Example:
      vggsearch info
      vggsearch info --skipped --format csv
    """
    with ImageIndex.open(directory or only_index()) as opened:
        text = skipped_files(opened.skipped(), output.format) if skipped else rendered(opened.info(), output.format)
    output.show(text)
