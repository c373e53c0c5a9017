"""The command line: each command parses, makes one call, and prints. Heavy imports wait inside the commands."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from vggsearch import __version__
from vggsearch.defaults import (
    DECODE_ON,
    DEVICES,
    EMBEDDING,
    ENGINES,
    FORMATS,
    MEASURE,
    POOLINGS,
    PRECISIONS,
    RESIZES,
    SEARCH,
    Format,
)
from vggsearch.errors import OptionError, VggsearchError
from vggsearch.model.layers import LAYERS
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.vgg import MODELS
from vggsearch.places import index_of, only_index
from vggsearch.terminal import (
    bytes_bar,
    counting_bar,
    log_to_stderr,
    progress_bar,
    quiet_decoders,
    stopping_on_ctrl_c,
)

Command = TypeVar("Command", bound=Callable[..., None])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
STDIN = "-"


class Commands(click.Group):
    """Turns what the library raises into one line on stderr; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Exit status 1 for an error explained in one line, 2 for wrong usage."""
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise click.UsageError(str(error)) from error
        except VggsearchError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return several options as one decorator; they show in help in this order."""

    def decorate(command: Command) -> Command:
        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)

    return decorate


index_option = click.option(
    "--index", "directory", type=FOLDER, envvar="VGGSEARCH_INDEX", show_envvar=True,
    help="Where the index is. Default: indexes/NAME of the photo folder.",
)  # fmt: skip
verify_option = click.option(
    "--verify/--no-verify", default=False, show_default=True,
    help="Check the best answers by geometry: finds crops, mirrored and turned copies.",
)  # fmt: skip
format_option = click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How results are printed.",
)


def embedding_options(*, of_the_index: bool) -> Callable[[Command], Command]:
    """Return the options that make a spec; help names the defaults, or the index's own."""

    def told(text: str, value: object) -> str:
        return f"{text}  [default: {'what the index holds' if of_the_index else value}]"

    at = EMBEDDING
    return combined(
        click.option("--model", type=click.Choice(MODELS), help=told("Which VGG.", at.model)),
        click.option("--layer", help=told(f"Where it is cut: {', '.join(LAYERS)}, or a sum: 0.5*pool4+pool5.",
                     at.layer)),
        click.option("--pooling", type=click.Choice(POOLINGS), help=told("How a map is pooled.", at.map_pooling)),
        click.option("--size", metavar="PIXELS", help=told("Side of the input, or several to average: 160+224.",
                     f"{at.map_size}; {at.connected_size} for fc6 and fc7")),
        click.option("--mirror/--no-mirror", default=None, help=told("Average each photo with its mirror image.",
                     "mirror" if at.mirror else "no-mirror")),
        click.option("--resize", type=click.Choice(RESIZES), help=told("How a photo becomes square.", at.resize)),
        click.option("--weights", type=FILE, help="Weights: .safetensors, or .pth as torchvision has them."),
    )  # fmt: skip


engine_options = combined(
    click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True,
                 help="What runs the network: torch on a card, OpenVINO on a CPU."),
    click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where it runs."),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
        help="Number format of the network; auto is the fastest that changes no answer.",
    ),
)  # fmt: skip


def box(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int, int, int] | None:
    """Read X,Y,W,H."""
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise click.BadParameter(
            f"{text!r} is not four whole numbers X,Y,W,H: left, top, width and height in pixels."
        )
    left, top, width, height = map(int, numbers)
    return left, top, width, height


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vggsearch")
def cli() -> None:
    """Find photos by photo, on your own machine: index a folder once, then ask.

    \b
    Example:
      vggsearch index ./photos
      vggsearch query img.jpg
    """
    log_to_stderr()


@cli.command()
@click.argument("photos", type=FOLDER)
@index_option
@embedding_options(of_the_index=False)
@engine_options
@click.option("--decode", type=click.Choice(DECODE_ON), default="auto", show_default=True,
              help="Where JPEG is decoded: auto is a CUDA card where there is one.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), help="Photos at once in the network.")
@click.option("--workers", type=click.IntRange(min=1), help="Decoder processes.  [default: one a processor]")
@click.option("--moved", is_flag=True, help="PHOTOS is where the photos of this index are now.")
@click.option("--allow-empty", is_flag=True, help="Go on even if every photo is gone.")
@click.option("--retry-skipped", is_flag=True, help="Try files again that could not be used before.")
@click.option("--compact", is_flag=True, help="Merge small parts now.  [default: when there are many]")
@click.option(
    "--whiten/--no-whiten",
    default=None,
    help="Search embeddings whitened on this collection.  [default: what the index has; whitened]",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if a picture was skipped, in this run or before.")
def index(
    photos: Path,
    directory: Path | None,
    model: str | None,
    layer: str | None,
    pooling: str | None,
    size: str | None,
    mirror: bool | None,
    resize: str | None,
    weights: Path | None,
    engine: str,
    device: str,
    precision: str,
    decode: str,
    batch_size: int | None,
    workers: int | None,
    moved: bool,
    allow_empty: bool,
    retry_skipped: bool,
    compact: bool,
    whiten: bool | None,
    strict: bool,
) -> None:
    """Index the folder PHOTOS, or bring its index up to date: only what is new or changed is worked on.

    Once there is an index, options left out are those it was made with.

    \b
    Example:
      vggsearch index ./photos
      vggsearch index ./photos --layer fc7 --index indexes/photos-fc7
    """
    from vggsearch.image_index import ImageIndex
    from vggsearch.model.engine import EngineOptions
    from vggsearch.report import skipped_lines, update_line

    options = EmbeddingOptions(model, layer, pooling, size, resize, weights, mirror)
    runs_on = EngineOptions(engine, device, precision, decode, batch_size)
    with (
        ImageIndex.for_photos(photos, directory, options, engine_options=runs_on) as opened,
        stopping_on_ctrl_c() as stop,
        progress_bar(str(opened.spec)) as progress,
    ):
        report = opened.update(
            photos, workers=workers, moved=moved, allow_empty=allow_empty,
            retry_skipped=retry_skipped, compact=compact, whiten=whiten, progress=progress, stop=stop,
        )  # fmt: skip
    for line in skipped_lines(report.newly_skipped):
        click.echo(line, err=True)
    click.echo(update_line(report, opened.directory))
    if strict and (pictures := [skipped for skipped in report.skipped if skipped.kind != "not a picture"]):
        raise click.ClickException(f"{len(pictures):,} skipped, and --strict was given: vggsearch info --skipped")
    if report.stopped:
        raise click.ClickException("stopped early; what was done is kept. Run the same command to go on.")


@cli.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@index_option
@click.option(
    "-k", "--count", type=click.IntRange(min=1), default=SEARCH.count, show_default=True,
    help="How many photos to show for each IMAGE.",
)  # fmt: skip
@click.option(
    "--min-similarity",
    type=click.FloatRange(-1, 1),
    help="Show only photos at least this similar (1 is the same).",
)
@click.option(
    "--crop",
    metavar="X,Y,W,H",
    callback=box,
    help="Ask for a part of each IMAGE: left, top, width, height in pixels.",
)
@verify_option
@format_option
@click.option("--root", type=FOLDER, help="Where the photos are now, if they moved apart from the index.")
@embedding_options(of_the_index=True)
@engine_options
def query(
    images: tuple[str, ...],
    directory: Path | None,
    count: int,
    min_similarity: float | None,
    crop: tuple[int, int, int, int] | None,
    verify: bool,
    format: Format,
    root: Path | None,
    model: str | None,
    layer: str | None,
    pooling: str | None,
    size: str | None,
    mirror: bool | None,
    resize: str | None,
    weights: Path | None,
    engine: str,
    device: str,
    precision: str,
) -> None:
    """Show the photos most like each IMAGE; - reads one from standard input.

    \b
    Example:
      vggsearch query img.jpg
      vggsearch query img.jpg --crop 100,50,400,300
      vggsearch query img.jpg -k 3 --format paths | xargs -d '\\n' xdg-open
    """
    from vggsearch.image_index import ImageIndex, QueryResult
    from vggsearch.model.engine import EngineOptions
    from vggsearch.report import one_line, query_results

    options = EmbeddingOptions(model, layer, pooling, size, resize, weights, mirror)
    runs_on = EngineOptions(engine, device, precision)
    where = directory or only_index()
    with ImageIndex.open(where, options, engine_options=runs_on, root=root) as opened, quiet_decoders():
        answers = list(opened.query_many(read_images(images), count, min_similarity, verify=verify, crop=crop))
        results = [answer for answer in answers if isinstance(answer, QueryResult)]
        failed = [answer for answer in answers if not isinstance(answer, QueryResult)]
        if results:
            click.echo(query_results(results, format, opened.root))
    for skipped in failed:
        click.echo(f"Error: {one_line(skipped.path)}: {skipped.reason}", err=True)
    if failed:
        sys.exit(1)


@cli.command()
@index_option
@click.option("--skipped", is_flag=True, help="List the files that could not be used, with the reason.")
@format_option
def info(directory: Path | None, skipped: bool, format: Format) -> None:
    """Show what an index holds and how it was made.

    \b
    Example:
      vggsearch info
      vggsearch info --skipped --format csv
    """
    from vggsearch import report
    from vggsearch.image_index import ImageIndex

    with ImageIndex.open(directory or only_index()) as opened:
        text = report.skipped_files(opened.skipped(), format) if skipped else report.info(opened.info(), format)
    click.echo(text)


@cli.command()
@index_option
@click.option("--repair", is_flag=True, help="Drop what is damaged; vggsearch index makes it again.")
@format_option
def verify(directory: Path | None, repair: bool, format: Format) -> None:
    """Check every byte of an index. Exit status 1 if anything is damaged and not repaired.

    \b
    Example:
      vggsearch verify
      vggsearch verify --repair && vggsearch index ./photos
    """
    from vggsearch import report
    from vggsearch.verify import verify as check

    with bytes_bar("checking") as progress:
        result = check(directory or only_index(), repair=repair, progress=progress)
    click.echo(report.verified(result, format))
    if not result.is_whole:
        sys.exit(1)


@cli.command()
@click.argument("photos", type=FOLDER, required=False)
@embedding_options(of_the_index=False)
@engine_options
@click.option("--batch-size", type=click.IntRange(min=1), help="Photos at once in the network.")
@click.option("--workers", type=click.IntRange(min=1), help="Decoder processes.  [default: one a processor]")
@click.option("--compare", is_flag=True, help="Run every engine and precision there is, and compare with fp32.")
@click.option("--format", type=click.Choice(("table", "json")), default="table", show_default=True,
              help="How results are printed.")  # fmt: skip
def bench(
    photos: Path | None,
    model: str | None,
    layer: str | None,
    pooling: str | None,
    size: str | None,
    mirror: bool | None,
    resize: str | None,
    weights: Path | None,
    engine: str,
    device: str,
    precision: str,
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
    from vggsearch import bench as measure
    from vggsearch import report
    from vggsearch.model.engine import EngineOptions, load_engine

    spec, found = EmbeddingOptions(model, layer, pooling, size, resize, weights, mirror).resolve()

    def tell(stage: str) -> None:
        click.echo(f"measuring {stage} ...", err=True)

    if compare:
        click.echo(report.engines(measure.compare(spec, found, photos, tell=tell), format))
        return
    runs = load_engine(spec, found, EngineOptions(engine, device, precision, batch_size=batch_size))
    measured = measure.bench(spec, runs, photos, workers=workers, tell=tell)
    click.echo(report.bench(measured, format))


class Eval(click.Group):
    """`eval TRUTH.tsv` is `eval truth TRUTH.tsv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in where none is named."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["truth", *args]
        return super().parse_args(ctx, args)


whiten_option = click.option(
    "--whiten", metavar="auto|none|DIM[:SHRINKAGE]", default="auto", show_default=True,
    help="Whitening: the index's own, none, or one to DIM numbers, shrunk by a share of 0..1.",
)  # fmt: skip
curve_option = click.option("--curve", type=FILE, help="Draw precision and recall: a .csv, .png or .html file.")
numbers_option = click.option("--format", type=click.Choice(("table", "json")), default="table", show_default=True,
                              help="How results are printed.")  # fmt: skip


@cli.group("eval", cls=Eval, invoke_without_command=False)
def eval_() -> None:
    """Measure how good the answers are: on labelled photos, or on edited copies of your own.

    \b
    Example:
      vggsearch eval truth.tsv          the same as: vggsearch eval truth truth.tsv
      vggsearch eval copies ./photos
    """


@eval_.command(short_help="Measure the answers to labelled photos.")
@click.argument("truth", type=FILE)
@index_option
@whiten_option
@verify_option
@click.option("--linear-probe", is_flag=True, help="Fit a linear classifier to the labelled embeddings instead.")
@curve_option
@numbers_option
def truth(
    truth: Path,
    directory: Path | None,
    whiten: str,
    verify: bool,
    linear_probe: bool,
    curve: Path | None,
    format: Format,
) -> None:
    """Ask for each labelled photo of an index, and measure which photos come.

    TRUTH is a text file with the header `path<TAB>label` and a line for each photo, its path relative to the photo
    folder; photos with the same label belong together.

    \b
    Example:
      vggsearch eval truth.tsv --index indexes/photos --curve curve.png
      vggsearch eval truth.tsv --linear-probe
    """
    from vggsearch import evaluate, report
    from vggsearch.image_index import ImageIndex
    from vggsearch.measure.curve import check_curve_file, save_curve
    from vggsearch.measure.truth import read_truth

    if curve is not None:
        check_curve_file(curve)
    labels = read_truth(truth)
    with ImageIndex.open(directory or only_index()) as opened:
        if linear_probe:
            click.echo(report.probe(evaluate.evaluate_probe(opened, labels), format))
            return
        with counting_bar("asking for photos") as tell:
            whitening = evaluate.whitening_named(whiten)
            found = evaluate.evaluate_truth(opened, labels, whitening=whitening, verify=verify, tell=tell)
    if found.missing:
        click.echo(f"{len(found.missing):,} of {len(labels):,} labelled photos are not in the index.", err=True)
    click.echo(report.figures(found.figures, format))
    if curve is not None:
        save_curve(found.curve, curve)


@eval_.command(short_help="Measure whether edited copies are found again.")
@click.argument("photos", type=FOLDER)
@index_option
@click.option("--edits", default="all", show_default=True, metavar="all|basic|NAME,...",
              help="Which edits: basic are eighteen common ones.")  # fmt: skip
@click.option("--sample", type=click.IntRange(min=1), default=MEASURE.sample, show_default=True,
              help="Photos to make copies of.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Which photos, and which crops.")
@click.option("--save", type=FOLDER, help="Keep the copies in this folder.")
@whiten_option
@verify_option
@curve_option
@numbers_option
@engine_options
def copies(
    photos: Path,
    directory: Path | None,
    edits: str,
    sample: int,
    seed: int,
    save: Path | None,
    whiten: str,
    verify: bool,
    curve: Path | None,
    format: Format,
    engine: str,
    device: str,
    precision: str,
) -> None:
    """Make edited copies of some of the indexed PHOTOS, in memory, and measure whether they are found again.

    \b
    Example:
      vggsearch eval copies ./photos
      vggsearch eval copies ./photos --edits crop50,mirror --sample 20 --save ./copies
    """
    from vggsearch import evaluate, report
    from vggsearch.image_index import ImageIndex
    from vggsearch.measure.curve import check_curve_file, save_curve
    from vggsearch.model.engine import EngineOptions

    if curve is not None:
        check_curve_file(curve)
    wanted = evaluate.chosen_edits(edits)
    where = directory or index_of(photos)
    runs_on = EngineOptions(engine, device, precision)
    with (
        ImageIndex.open(where, engine_options=runs_on, root=photos) as opened,
        quiet_decoders(),
        counting_bar("making copies and asking for them") as tell,
    ):
        found = evaluate.evaluate_copies(
            opened, wanted, sample=sample, seed=seed, whitening=evaluate.whitening_named(whiten),
            verify=verify, save=save, tell=tell,
        )  # fmt: skip
    for path in found.skipped:
        click.echo(f"skipped {report.one_line(path)}: it cannot be read any more", err=True)
    click.echo(report.copies(found, format))
    if curve is not None:
        save_curve(found.curve, curve)


@cli.command()
@click.option("--model", type=click.Choice(MODELS), default=EMBEDDING.model, show_default=True, help="Which VGG.")
@click.option("--layer", default=EMBEDDING.layer, show_default=True, help="Where it is cut.")
@click.option("--size", type=click.IntRange(EMBEDDING.smallest_size, EMBEDDING.largest_size), default=224,
              show_default=True, help="Side of the input in pixels.")  # fmt: skip
def model(model: str, layer: str, size: int) -> None:
    """Show a network layer by layer: output shape, parameters, work, and what one output sees.

    \b
    Example:
      vggsearch model --model vgg19 --layer fc7
    """
    from vggsearch import report

    click.echo(report.model(model, layer, size))


def read_images(images: tuple[str, ...]) -> Iterator[str | bytes]:
    """Yield each name as it is, and the bytes of standard input for "-"."""
    for image in images:
        yield sys.stdin.buffer.read() if image == STDIN else image
