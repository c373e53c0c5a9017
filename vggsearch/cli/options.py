"""Options that several commands share, each written once."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from vggsearch.defaults import DEVICES, EMBEDDING, ENGINES, FORMATS, PRECISIONS, RESIZES
from vggsearch.model.engine import EngineOptions
from vggsearch.model.networks import MODELS
from vggsearch.model.poolings import POOLINGS
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.system.places import from_home

Command = TypeVar("Command", bound=Callable[..., None])


class PathFromHome(click.Path):
    """A path; ~/ is the home folder, also where the shell leaves it alone: --html=~/page.html."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        return super().convert(from_home(value), param, ctx)


FOLDER = PathFromHome(path_type=Path, file_okay=False)
FILE = PathFromHome(path_type=Path, dir_okay=False)


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return several options as one decorator; help shows them in this order."""

    def decorate(command: Command) -> Command:
        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)

    return decorate


def collected(
    name: str, make: Callable[..., object], takes: Sequence[str], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Return several options as one decorator; the command gets their values as `name`, put together by `make`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collecting(**given: Any) -> None:
            made = make(**{each: given.pop(each) for each in takes})
            command(**{name: made}, **given)

        return combined(*options)(cast("Command", collecting))

    return decorate


index_option = click.option(
    "--index",
    "directory",
    type=FOLDER,
    envvar="VGGSEARCH_INDEX",
    show_envvar=True,
    help="Directory of the index.  [default: indexes/NAME of the photo folder]",
)


class OneFromEnvironment(click.Option):
    """A repeatable option whose environment variable is one value: click would split a path at each colon."""

    def value_from_envvar(self, ctx: click.Context) -> tuple[str, ...] | None:
        """Return the whole variable as the only value."""
        value = self.resolve_envvar_value(ctx)
        return None if value is None else (value,)


indexes_option = click.option(
    "--index",
    "directories",
    type=FOLDER,
    multiple=True,
    cls=OneFromEnvironment,
    envvar="VGGSEARCH_INDEX",
    show_envvar=True,
    help="Directory of the index; repeat it to search several as one.  [default: the only one in indexes/]",
)
root_option = click.option("--root", type=FOLDER, help="Where the photo folder is now, if it was moved.")
rerank_option = click.option(
    "--rerank/--no-rerank",
    default=True,
    show_default=True,
    help="Re-rank the best results geometrically: finds crops, mirrored and rotated copies.",
)
format_option = click.option(
    "--format", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
)
table_or_json_option = click.option(
    "--format", type=click.Choice(("table", "json")), default="table", show_default=True, help="Output format."
)
batch_size_option = click.option("--batch-size", type=click.IntRange(min=1), help="Batch size of the network.")
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Number of decoder processes.  [default: one per CPU]"
)


def ray_option(text: str) -> Callable[[Command], Command]:
    """Return the option for the address of a Ray cluster, with this help."""
    return click.option("--ray", metavar="ADDRESS", help=text)


def embedding_options(*, of_the_index: bool) -> Callable[[Command], Command]:
    """Return the options that a command gets as `options`, EmbeddingOptions.

    Help shows the defaults or, with `of_the_index`, that they are those of the index.
    """

    def with_default(text: str, value: object) -> str:
        return f"{text}  [default: {'as indexed' if of_the_index else value}]"

    at = EMBEDDING
    size = f"{at.map_size}; {at.trained_size} for fc6, fc7 and networks other than VGG"
    layers = "pool1 to pool5, fc6, fc7 (see vggsearch model for others), or a weighted sum: 0.5*pool4+pool5."
    return collected(
        "options",
        EmbeddingOptions,
        [field.name for field in fields(EmbeddingOptions)],
        click.option("--model", type=click.Choice(MODELS), help=with_default("Network.", at.model)),
        click.option(
            "--layer",
            help=with_default(
                f"Feature layer: {layers}", f"{at.layer}; {at.resnet_layer}, {at.googlenet_layer} for the others"
            ),
        ),
        click.option(
            "--pooling",
            type=click.Choice(tuple(POOLINGS)),
            help=with_default("Pooling of the feature map.", at.map_pooling),
        ),
        click.option(
            "--size",
            metavar="PIXELS",
            help=with_default("Side of the square input, or several to average: 160+224.", size),
        ),
        click.option(
            "--mirror/--no-mirror",
            default=None,
            help=with_default("Average each photo with its mirror image.", "mirror" if at.mirror else "no-mirror"),
        ),
        click.option(
            "--resize",
            type=click.Choice(RESIZES),
            help=with_default("How photos are fitted to the square input.", at.resize),
        ),
        click.option("--weights", type=FILE, help="Weights file: .safetensors, or a PyTorch checkpoint."),
    )


# A command gets them as `engine_options`, EngineOptions.
engine_options: Callable[..., Callable[..., None]] = collected(
    "engine_options",
    EngineOptions,
    ("engine", "device", "precision"),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="Inference backend; auto is torch on a GPU, and OpenVINO on a CPU or for a few photos.",
    ),
    click.option(
        "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Device to run on."
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="Numeric precision; auto is the fastest without measurable loss of quality.",
    ),
)


def box(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int, int, int] | None:
    """Read X,Y,W,H."""
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise click.BadParameter(
            f"{text!r} is not a region X,Y,W,H: left, top, width and height in pixels, such as 100,50,400,300."
        )
    left, top, width, height = map(int, numbers)
    return left, top, width, height


def byte_count(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Read a number of bytes: 500M, 4G."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{text!r} is not a size, such as 500M or 4G.")
    thousands: int = " kmgt".index(found[2].lower() or " ")
    return round(float(found[1]) * float(10 ** (3 * thousands)))
