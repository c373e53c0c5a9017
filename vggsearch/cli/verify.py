"""vggsearch verify"""

from pathlib import Path

import click

from vggsearch.cli.options import index_option
from vggsearch.cli.output import Output, output_options
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.indexing.integrity import verify as check
from vggsearch.progress import progress_bar
from vggsearch.render.verify import verified
from vggsearch.store.locate import only_index


@click.command()
@index_option
@click.option(
    "--repair",
    is_flag=True,
    help="Drop damaged data, which vggsearch index then rebuilds; decisions and journals are kept.",
)
@output_options
def verify(directory: Path | None, repair: bool, output: Output) -> None:
    """Check every byte of an index against its checksums. Exit status 1 if damage was found and not repaired.

    \b
    Example:
      vggsearch verify
      vggsearch verify --repair && vggsearch index ./photos
    """
    with progress_bar() as progress, stopping_on_ctrl_c() as stop:
        result = check(directory or only_index(), repair=repair, progress=progress, stop=stop)
    output.show(verified(result, output.format))
    if not result.is_whole:
        click.get_current_context().exit(1)
