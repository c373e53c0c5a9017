"""vggsearch export"""

from pathlib import Path

import click

from vggsearch.cli.options import FILE, index_option
from vggsearch.cli.output import say
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.image_index import ImageIndex
from vggsearch.photos.walk import one_line
from vggsearch.progress import progress_bar
from vggsearch.render.text import quantity
from vggsearch.store.locate import only_index


@click.command()
@index_option
@click.option("-o", "--output", "file", required=True, type=FILE, metavar="FILE", help="The Parquet file to write.")
@click.option("--raw", is_flag=True, help="Write the embeddings of the network, which are not whitened.")
def export(directory: Path | None, file: Path, raw: bool) -> None:
    """Write the vectors of all photos to one Parquet file, for other programs.

    It has one row per photo: id (the row of the index), path, and embedding, a list of float32 of unit length. The
    vectors are those that queries compare: their dot products are similarities. See docs/embeddings.md.

    \b
    Example:
      vggsearch export -o photos.parquet
      vggsearch export --index indexes/photos -o embeddings.parquet --raw
    """
    with (
        ImageIndex.open(directory or only_index()) as opened,
        progress_bar() as progress,
        stopping_on_ctrl_c() as stop,
    ):
        dimensions = opened.export(file, raw=raw, progress=progress, stop=stop)
        photos = len(opened)
    say(f"{one_line(str(file))}: {quantity(photos, 'photo')}, vectors of {dimensions:,} dimensions")
