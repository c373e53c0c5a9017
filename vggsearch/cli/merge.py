"""vggsearch merge"""

from pathlib import Path

import click

from vggsearch.cli.options import FOLDER
from vggsearch.cli.output import say
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.indexing.merge import merge as merge_indexes
from vggsearch.progress import progress_bar
from vggsearch.render.update import merge_line


@click.command()
@click.argument("indexes", nargs=-1, required=True, type=FOLDER)
@click.option("--index", "directory", required=True, type=FOLDER, help="Directory of the new index.")
def merge(indexes: tuple[Path, ...], directory: Path) -> None:
    """Merge INDEXES of slices of one photo folder, made with index --slice, into one new index.

    The network does not run, and no photo is read. The indexes stay as they are; on one disk, the new one shares
    their files and takes little space. An update of it then indexes what no slice holds.

    \b
    Example:
      vggsearch merge slices/1 slices/2 --index indexes/photos
    """
    with progress_bar() as progress, stopping_on_ctrl_c() as stop:
        report = merge_indexes(indexes, directory, progress=progress, stop=stop)
    say(merge_line(report))
