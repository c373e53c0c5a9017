"""vggsearch bench"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggsearch.cli.options import FOLDER, embedding_options, engine_options, numbers_option
from vggsearch.defaults import Format
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.progress import progress_bar

if TYPE_CHECKING:
    from vggsearch.model.engine import EngineOptions


@click.command()
@click.argument("photos", type=FOLDER, required=False)
@embedding_options(of_the_index=False)
@engine_options
@click.option("--batch-size", type=click.IntRange(min=1), help="Photos at once in the network.")
@click.option("--workers", type=click.IntRange(min=1), help="Decoder processes.  [default: one a processor]")
@click.option("--compare", is_flag=True, help="Run every engine and precision there is, and compare with fp32.")
@numbers_option
def bench(
    photos: Path | None,
    options: EmbeddingOptions,
    runs_on: "EngineOptions",
    batch_size: int | None,
    workers: int | None,
    compare: bool,
    format: Format,
) -> None:
    """Measure how many photos a second this machine indexes, next to its own limit, in under a minute.

    The photos are those of the folder PHOTOS, or pictures made for the purpose.

    \b
    Example:
      vggsearch bench ./photos
      vggsearch bench --compare
    """
    from vggsearch.evaluation import throughput
    from vggsearch.render.bench import bench as bench_text
    from vggsearch.render.bench import engines as engines_text

    with progress_bar() as progress:
        if compare:
            text = engines_text(throughput.compare_engines(photos, options, progress=progress), format)
        else:
            chosen = replace(runs_on, batch_size=batch_size)
            measured = throughput.bench(photos, options, engine_options=chosen, workers=workers, progress=progress)
            text = bench_text(measured, format)
    click.echo(text)
