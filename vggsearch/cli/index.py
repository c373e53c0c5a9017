"""vggsearch index"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import click

from vggsearch.cli.options import (
    FILE,
    FOLDER,
    batch_size_option,
    collected,
    embedding_options,
    engine_options,
    index_option,
    ray_option,
    workers_option,
)
from vggsearch.cli.output import say
from vggsearch.cli.terminal import announced, suggested, until_stopped
from vggsearch.defaults import DECODE_ON, EMBEDDING
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.update import UpdateReport
from vggsearch.model.engine import EngineOptions
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.progress import OnProgress
from vggsearch.render.text import quantity
from vggsearch.render.update import skipped_lines, update_line
from vggsearch.system.gpus import cuda_gpus

SUGGESTION = "A new index made with --fast takes less time and finds nearly the same: vggsearch index --help"


class UpdateOptions(TypedDict):
    """The keywords of ImageIndex.update that the command line sets."""

    workers: int | None
    moved: bool
    allow_empty: bool
    retry_skipped: bool
    rehash: bool
    compact: bool
    whiten: bool | None
    local_features: bool | None
    slice: str | None
    files: Path | None
    ray: str | None
    ray_workers: int | None


# The command gets them as `update`.
update_options: Callable[..., Callable[..., None]] = collected(
    "update",
    UpdateOptions,
    tuple(UpdateOptions.__annotations__),
    workers_option,
    click.option("--moved", is_flag=True, help="PHOTOS is the new location of the indexed photo folder."),
    click.option("--allow-empty", is_flag=True, help="Continue even if all photos are gone."),
    click.option("--retry-skipped", is_flag=True, help="Retry files that were skipped before."),
    click.option("--rehash", is_flag=True, help="Read every photo to find edits that kept size and time."),
    click.option("--compact", is_flag=True, help="Merge small parts now.  [default: only if there are many]"),
    click.option(
        "--whiten/--no-whiten",
        default=None,
        help="Search whitened embeddings.  [default: as before; whiten for a new index]",
    ),
    click.option(
        "--local-features/--no-local-features",
        default=None,
        help="Store local features, 11.2 kB per photo: faster re-ranking, also without the photos, and query "
        "--containing.  [default: as before; for a new index of up to 100,000 photos, without a GPU]",
    ),
    click.option(
        "--slice",
        metavar="K/N",
        help="Index one of N equal parts of PHOTOS, into an index of its own: see vggsearch merge.",
    ),
    click.option(
        "--files",
        type=FILE,
        metavar="PARQUET",
        help="Index the files that this lists (path, bytes, mtime, etag), such as the inventory of a bucket.",
    ),
    ray_option("Have a Ray cluster do it; auto is that of this machine."),
    click.option(
        "--ray-workers",
        type=click.IntRange(min=1),
        help="Number of workers on it.  [default: one per GPU, or one per machine]",
    ),
)


@click.command()
@click.argument("photos", type=FOLDER)
@index_option
@embedding_options(of_the_index=False)
@click.option("--fast", is_flag=True, help=f"Short for --model {EMBEDDING.fast_model}: faster, nearly as good.")
@engine_options
@click.option(
    "--decode",
    type=click.Choice(DECODE_ON),
    default="auto",
    show_default=True,
    help="Where JPEG files are decoded; auto is the GPU if there is one.",
)
@batch_size_option
@update_options
@click.option("--strict", is_flag=True, help="Exit with status 1 if a picture was skipped, now or before.")
def index(
    photos: Path,
    directory: Path | None,
    options: EmbeddingOptions,
    fast: bool,
    engine_options: EngineOptions,
    decode: str,
    batch_size: int | None,
    update: UpdateOptions,
    strict: bool,
) -> None:
    """Index the folder PHOTOS, or update its index. An update processes only new and changed photos.

    PHOTOS may also be object storage, s3://bucket/folder or gs://bucket/folder, and tar:FOLDER or tar:s3://bucket/folder
    for photos in .tar files. They are only read.

    An existing index keeps its options; pass only those to change.

    \b
    Example:
      vggsearch index ./photos
      vggsearch index ./photos --layer fc7 --index indexes/photos-fc7
      vggsearch index ./photos --fast
    """
    if update["slice"] is not None and directory is None:
        raise click.UsageError("--slice needs an index of its own: --index FOLDER.")
    if fast:
        options = _fast(options)
    engine_options = replace(engine_options, decode=decode, batch_size=batch_size)
    with ImageIndex.for_photos(
        photos, directory, options, engine_options=engine_options, files=update["files"]
    ) as opened:
        report, stopped = until_stopped(
            lambda progress, stop: opened.update(
                photos,
                **update,
                progress=announced(str(opened.spec), _suggesting(opened, options, progress)),
                stop=stop,
            ),
            UpdateReport,
        )
    for line in skipped_lines(report.newly_skipped):
        say(line, err=True)
    say(update_line(report, opened.directory))
    if strict and (pictures := [skipped for skipped in report.skipped if skipped.kind != "not a picture"]):
        skipped = quantity(len(pictures), "skipped picture")
        raise click.ClickException(f"{skipped}, and --strict is set. List them: vggsearch info --skipped")
    if stopped is not None:
        raise stopped


def _fast(options: EmbeddingOptions) -> EmbeddingOptions:
    if options.model not in (None, EMBEDDING.fast_model):
        raise click.UsageError(f"--fast is --model {EMBEDDING.fast_model}. Leave out --fast or --model.")
    return replace(options, model=EMBEDDING.fast_model)


def _suggesting(index: ImageIndex, options: EmbeddingOptions, progress: OnProgress) -> OnProgress:
    """Return `progress`, which suggests --fast once if a new index with the default network takes long on a CPU."""
    is_default = options.model is None and index.spec.model == EMBEDDING.model
    if not is_default or len(index):
        return progress
    return suggested(SUGGESTION, "embedding photos", progress, unless=cuda_gpus)
