"""Which photos count as duplicates and which are kept: the options that `find` and `remove` share."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import click
from click.core import ParameterSource

from vggsearch.cli.options import collected, ray_option
from vggsearch.cli.terminal import quiet_decoders, until_stopped
from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.results import KINDS
from vggsearch.errors import Stopped
from vggsearch.image_index import ImageIndex
from vggsearch.store.contents import MANIFEST
from vggsearch.store.locate import index_of

COMMANDLINE = ParameterSource.COMMANDLINE


class Selection(TypedDict):
    """The keywords of ImageIndex.duplicates that `find` and `remove` share."""

    min_precision: float
    threshold: float | None
    keep: str
    protect: tuple[str, ...]
    min_size: int
    within_folder: bool
    across_folders: bool
    siblings: bool
    confirm: bool
    kinds: tuple[str, ...]
    group_of: tuple[str, ...]
    filters: tuple[str, ...]
    ray: str | None


# A command gets them as `selection`.
selection_options: Callable[..., Callable[..., None]] = collected(
    "selection",
    Selection,
    tuple(Selection.__annotations__),
    click.option(
        "--min-precision",
        type=click.FloatRange(0.5, 1, max_open=True),
        default=DUPLICATES.min_precision,
        show_default=True,
        help="Target precision: the share of reported pairs that are right, as calibrated on your photos.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1, min_open=True),
        help="Use this similarity as a fixed threshold instead of the calibration.",
    ),
    click.option(
        "--keep",
        default=DUPLICATES.keep,
        metavar="RULES",
        help=f"Which photo of a group to keep, first rule first: {DUPLICATES.keep.replace(',', ', ')} by default; "
        "also newest, path:GLOB. The default rules decide where yours do not.",
    ),
    click.option(
        "--protect", multiple=True, metavar="DIR", help="Never remove photos in this folder.  [repeatable]"
    ),
    click.option(
        "--min-size",
        type=click.IntRange(min=2),
        default=2,
        show_default=True,
        help="Only groups of at least this many photos.",
    ),
    click.option("--within-folder", is_flag=True, help="Only pairs of photos in the same folder."),
    click.option(
        "--across-folders-only", "across_folders", is_flag=True, help="Only pairs of photos in different folders."
    ),
    click.option("--siblings", is_flag=True, help="Treat burst shots as duplicates."),
    click.option(
        "--confirm/--no-confirm",
        default=True,
        show_default=True,
        help="Confirm candidate pairs by comparing the photos (SIFT keypoints).",
    ),
    click.option(
        "--kind",
        "kinds",
        multiple=True,
        type=click.Choice(KINDS),
        help="Only duplicates of this kind.  [repeatable]",
    ),
    click.option(
        "--group",
        "group_of",
        multiple=True,
        metavar="PHOTO",
        help="Only the group of PHOTO.  [repeatable]",
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="RULE",
        help="Only groups with a photo that matches RULE, as for query: a path glob ('2019/**', '*.png'), "
        "folder:trips/rome, taken:2019-05..2020, size:1000.., orientation:portrait.  [repeatable]",
    ),
    ray_option("Have a Ray cluster compare the vectors of very many photos; auto is that of this machine."),
)


def given_words(context: click.Context) -> tuple[str, ...]:
    """Return the options of a Selection that the user has given to the command, as words for another command."""
    words = list[str]()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in Selection.__annotations__ or context.get_parameter_source(name) is not COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [word for each in values for word in (parameter.opts[0], str(each))]
    return tuple(words)


def find_duplicates(
    opened: ImageIndex, selection: Selection, *, similar: bool = False, against: Path | None = None
) -> tuple[DuplicatesReport, Stopped | None]:
    """Find the duplicates of an open index, with a progress bar.

    If Ctrl-C stops it early, the pairs compared until then are returned with the Stopped to raise.
    """
    with ExitStack() as stack:
        others = stack.enter_context(_index_at(against)) if against is not None else None
        stack.enter_context(quiet_decoders())
        return until_stopped(
            lambda progress, stop: opened.duplicates(
                **selection, similar=similar, against=others, progress=progress, stop=stop
            ),
            DuplicatesReport,
        )


def _index_at(place: Path) -> ImageIndex:
    """Open an index, or the index of a photo folder."""
    return ImageIndex.open(place if (place / MANIFEST).exists() else index_of(place))
