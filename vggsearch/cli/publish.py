"""vggsearch publish"""

from pathlib import Path

import click

from vggsearch.cli.options import index_option
from vggsearch.cli.output import say
from vggsearch.cli.terminal import quiet_decoders, stopping_on_ctrl_c
from vggsearch.image_index import ImageIndex
from vggsearch.progress import progress_bar
from vggsearch.render.update import publish_line
from vggsearch.store.locate import only_index


@click.command()
@click.argument("url")
@index_option
@click.option("--replace", is_flag=True, help="Replace what another index, or other embeddings, published there.")
def publish(url: str, directory: Path | None, replace: bool) -> None:
    """Publish an index in a database at URL, where vggsearch query --at finds its photos from any machine.

    URL is postgresql://SERVER/DATABASE, of a server with pgvector 0.8 or newer, and ends with #NAME if several
    indexes are published in one database; or lance+s3://BUCKET/NAME or lance+file:///FOLDER/NAME. Vectors, paths,
    dates and sizes go there, but no photos. Publish again after each update: only what changed is sent. Readers see
    a publish when it is complete; one that is interrupted changes nothing. Passwords belong in ~/.pgpass or
    PGPASSWORD. See docs/publish.md.

    \b
    Example:
      vggsearch publish postgresql://server/photos
      vggsearch publish lance+s3://bucket/photos
      vggsearch publish postgresql://me@server/family#phone --index indexes/phone
      vggsearch publish postgresql://server/photos --index indexes/new --replace
    """
    with (
        ImageIndex.open(directory or only_index()) as opened,
        progress_bar() as progress,
        stopping_on_ctrl_c() as stop,
        quiet_decoders(),  # LanceDB, too, writes lines of its own
    ):
        report = opened.publish(url, replace=replace, progress=progress, stop=stop)
    say(publish_line(report))
