"""What several commands take: each option written once."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from vggsearch.defaults import DEVICES, EMBEDDING, ENGINES, FORMATS, PRECISIONS, RESIZES
from vggsearch.model.layers import LAYERS
from vggsearch.model.poolings import POOLINGS
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.vgg import MODELS

Command = TypeVar("Command", bound=Callable[..., None])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return several options as one decorator; they show in help in this order."""

    def decorate(command: Command) -> Command:
        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)

    return decorate


def collected(
    name: str, make: Callable[..., object], takes: Sequence[str], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Return several options as one decorator; the command gets, as `name`, what `make` makes of those it takes."""

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
    help="Where the index is. Default: indexes/NAME of the photo folder.",
)


class OneFromEnvironment(click.Option):
    """A repeatable option whose variable is one value: click would split a path there at each colon."""

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
    help="Where the index is, repeatable: several are asked as one.  [default: the only one in indexes/]",
)
verify_option = click.option(
    "--verify/--no-verify",
    "rerank",
    default=True,
    show_default=True,
    help="Check the best answers by geometry: finds crops, mirrored and turned copies.",
)
format_option = click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How results are printed.",
)
numbers_option = click.option(
    "--format",
    type=click.Choice(("table", "json")),
    default="table",
    show_default=True,
    help="How results are printed.",
)


def embedding_options(*, of_the_index: bool) -> Callable[[Command], Command]:
    """Return the options that a command gets as `options`, EmbeddingOptions.

    Help names the defaults, or says that they are the index's own.
    """

    def told(text: str, value: object) -> str:
        return f"{text}  [default: {'what the index holds' if of_the_index else value}]"

    at = EMBEDDING
    return collected(
        "options",
        EmbeddingOptions,
        [field.name for field in fields(EmbeddingOptions)],
        click.option("--model", type=click.Choice(MODELS), help=told("Which VGG.", at.model)),
        click.option(
            "--layer", help=told(f"Where it is cut: {', '.join(LAYERS)}, or a sum: 0.5*pool4+pool5.", at.layer)
        ),
        click.option(
            "--pooling", type=click.Choice(tuple(POOLINGS)), help=told("How a map is pooled.", at.map_pooling)
        ),
        click.option(
            "--size",
            metavar="PIXELS",
            help=told(
                "Side of the input, or several to average: 160+224.",
                f"{at.map_size}; {at.connected_size} for fc6 and fc7",
            ),
        ),
        click.option(
            "--mirror/--no-mirror",
            default=None,
            help=told("Average each photo with its mirror image.", "mirror" if at.mirror else "no-mirror"),
        ),
        click.option("--resize", type=click.Choice(RESIZES), help=told("How a photo becomes square.", at.resize)),
        click.option("--weights", type=FILE, help="Weights: .safetensors, or .pth as torchvision has them."),
    )


def _engine_options(**given: Any) -> object:
    from vggsearch.model.engine import EngineOptions

    return EngineOptions(**given)


# A command gets them as `runs_on`, EngineOptions.
engine_options = collected(
    "runs_on",
    _engine_options,
    ("engine", "device", "precision"),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="What runs the network: torch on a GPU, OpenVINO on a CPU.",
    ),
    click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where it runs."),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="Number format of the network; auto is the fastest that changes no answer.",
    ),
)


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


def byte_count(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Read a number of bytes: 500M, 4G."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{text!r} is no size. Write 500M or 4G.")
    thousands: int = " kmgt".index(found[2].lower() or " ")
    return round(float(found[1]) * float(10 ** (3 * thousands)))
