"""vggsearch bench"""

from dataclasses import replace
from pathlib import Path

import click

from vggsearch.cli.options import (
    FOLDER,
    batch_size_option,
    embedding_options,
    engine_options,
    table_or_json_option,
    workers_option,
)
from vggsearch.cli.output import show
from vggsearch.defaults import Format
from vggsearch.evaluation import throughput
from vggsearch.model.engine import EngineOptions
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.progress import progress_bar
from vggsearch.render.bench import bench as rendered
from vggsearch.render.bench import engines


@click.command()
@click.argument("photos", type=FOLDER, required=False)
@embedding_options(of_the_index=False)
@engine_options
@batch_size_option
@workers_option
@click.option("--compare", is_flag=True, help="Run every available backend and precision, and compare with fp32.")
@table_or_json_option
def bench(
    photos: Path | None,
    options: EmbeddingOptions,
    engine_options: EngineOptions,
    batch_size: int | None,
    workers: int | None,
    compare: bool,
    format: Format,
) -> None:
    """Measure how many photos per second this machine indexes, and compare with its hardware limit.

    Takes under a minute. Uses the photos in the folder PHOTOS or, without it, generated pictures.

    \b
    Example:
      vggsearch bench ./photos
      vggsearch bench --compare
    """
    with progress_bar() as progress:
        if compare:
            text = engines(throughput.compare_engines(photos, options, progress=progress), format)
        else:
            engine_options = replace(engine_options, batch_size=batch_size)
            measured = throughput.bench(
                photos, options, engine_options=engine_options, workers=workers, progress=progress
            )
            text = rendered(measured, format)
    show(text, format)
