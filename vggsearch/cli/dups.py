"""vggsearch dups"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggsearch.cli.options import FILE, FOLDER, collected, format_option, index_option
from vggsearch.cli.terminal import counting_bar, picture_screen, quiet_decoders, stopping_on_ctrl_c
from vggsearch.defaults import DUPLICATES, Format
from vggsearch.errors import OptionError, Stopped
from vggsearch.progress import progress_bar
from vggsearch.store.contents import MANIFEST
from vggsearch.store.locate import index_of, only_index

if TYPE_CHECKING:
    from vggsearch.duplicates.find import DuplicatesReport
    from vggsearch.duplicates.results import Group
    from vggsearch.image_index import ImageIndex
    from vggsearch.store.decisions import Judgement

# The command gets them as `options`, the keywords of ImageIndex.duplicates.
duplicate_options = collected(
    "options",
    dict,
    (
        "min_precision",
        "threshold",
        "keep",
        "protect",
        "min_size",
        "within_folder",
        "across_folders",
        "similar",
        "siblings",
        "confirm",
    ),
    click.option(
        "--precision",
        "min_precision",
        type=click.FloatRange(0.5, 1, max_open=True),
        default=DUPLICATES.precision,
        show_default=True,
        help="How many of the pairs are to be right, as learned from the folder.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1, min_open=True),
        help="Take pairs of this similarity and more instead.",
    ),
    click.option(
        "--keep",
        default=DUPLICATES.keep,
        show_default=True,
        metavar="WISHES",
        help="What to keep of some duplicates, most important first; also newest, path:GLOB.",
    ),
    click.option("--protect", multiple=True, metavar="DIR", help="A folder in which nothing is removed."),
    click.option(
        "--min-size",
        type=click.IntRange(min=2),
        default=2,
        show_default=True,
        help="Show groups of at least so many photos.",
    ),
    click.option("--within-folder", is_flag=True, help="Only duplicates in one folder."),
    click.option("--across-folders-only", "across_folders", is_flag=True, help="Only duplicates in two folders."),
    click.option("--similar", is_flag=True, help="Show what is similar, too; it is never removed."),
    click.option("--siblings", is_flag=True, help="Take the shots of a burst for duplicates, too."),
    click.option(
        "--verify/--no-verify",
        "confirm",
        default=True,
        show_default=True,
        help="Look at the photos, not at their embeddings alone.",
    ),
)


@click.command()
@click.argument("photos", nargs=-1, metavar="[PHOTO]...")
@index_option
@duplicate_options
@click.option("--against", type=FOLDER, metavar="DIR", help="Which photos are in this index, or photo folder, too?")
@click.option("--explain-threshold", is_flag=True, help="Show how the pairs were chosen.")
@click.option("--pairs", "as_pairs", is_flag=True, help="Print pairs rather than groups.")
@click.option("--review-order", is_flag=True, help="What is least sure first.")
@format_option
@click.option("--html", "page", type=FILE, metavar="FILE", help="Write a page to look through.")
@click.option("--preview", is_flag=True, help="Show the photos in the terminal.")
@click.option(
    "--not-duplicates",
    "judgement",
    flag_value="different",
    help="Remember that each two of PHOTO... are no duplicates.",
)
@click.option("--same", "judgement", flag_value="same", help="Remember that each two of PHOTO... are duplicates.")
@click.option("--undecided", "judgement", flag_value="undecided", help="Forget what was said of PHOTO...")
@click.option(
    "--import-decisions",
    "imported",
    type=FILE,
    metavar="FILE",
    help="Add the decisions of another index's decisions.jsonl.",
)
@click.option(
    "--action", metavar="ACTION", help="trash, move:DIR, hardlink, symlink or delete; says what it would do."
)
@click.option("--yes", is_flag=True, help="Do it.")
@click.option("--raw-pairs", is_flag=True, help="Act on a photo that has a raw file beside it, too.")
@click.option("--undo", "journal", type=FILE, metavar="JOURNAL", help="Restore what an action removed.")
@click.option("--fail-if-found", is_flag=True, help="Exit with status 1 if there are duplicates.")
@click.option("--root", type=FOLDER, help="Where the photos are now, if they moved apart from the index.")
def dups(
    photos: tuple[str, ...],
    directory: Path | None,
    options: dict[str, Any],
    against: Path | None,
    explain_threshold: bool,
    as_pairs: bool,
    review_order: bool,
    format: Format,
    page: Path | None,
    preview: bool,
    judgement: "Judgement | None",
    imported: Path | None,
    action: str | None,
    yes: bool,
    raw_pairs: bool,
    journal: Path | None,
    fail_if_found: bool,
    root: Path | None,
) -> None:
    """Find duplicates: copies, and edited copies, which to keep of each, and why. Nothing is changed by itself.

    \b
    Example:
      vggsearch dups
      vggsearch dups --html dups.html
      vggsearch dups --not-duplicates a.jpg b.jpg
      vggsearch dups --action trash
      vggsearch dups --action move:../duplicates --protect best --yes
    """
    from vggsearch.image_index import ImageIndex

    if journal is not None:
        _undo(journal, root)
        return
    if photos and judgement is None:
        raise OptionError(f"What of {photos[0]}? Say --same, --not-duplicates or --undecided.")
    if action is None and (yes or raw_pairs):
        raise click.UsageError(f"{'--yes' if yes else '--raw-pairs'} is for --action: name one, such as trash.")
    with ImageIndex.open(directory or only_index(), root=root) as opened:
        if judgement is not None:
            decision = opened.decide(judgement, photos)
            click.echo(f"{len(decision.photos):,} photos are remembered as {judgement}.")
            return
        if imported is not None:
            click.echo(f"{opened.import_decisions(imported):,} decisions added.")
            return
        report, stopped = _found(opened, options, against)
        groups = report.in_review_order() if review_order else report.groups
        if page is not None:
            _write_page(page, groups, opened, report)
        if action is not None:
            _act(opened, report, action, options["protect"], raw_pairs=raw_pairs, yes=yes)
        elif explain_threshold:
            _explain(report, format)
        elif preview:
            _preview(opened, groups)
        elif page is None:
            _show(opened, groups, report, format, as_pairs=as_pairs)
    if stopped is not None:
        raise stopped
    if fail_if_found and groups:
        click.get_current_context().exit(1)


def _found(
    opened: "ImageIndex", options: dict[str, Any], against: Path | None
) -> "tuple[DuplicatesReport, Stopped | None]":
    from vggsearch.duplicates.find import DuplicatesReport
    from vggsearch.image_index import ImageIndex

    with ExitStack() as stack:
        stop = stack.enter_context(stopping_on_ctrl_c())
        progress = stack.enter_context(progress_bar())
        stack.enter_context(quiet_decoders())
        others = None
        if against is not None:
            others = stack.enter_context(
                ImageIndex.open(against if (against / MANIFEST).exists() else index_of(against))
            )
        try:
            return opened.duplicates(**options, against=others, progress=progress, stop=stop), None
        except Stopped as stopped:
            if isinstance(stopped.report, DuplicatesReport):
                return stopped.report, stopped
            raise


def _show(
    opened: "ImageIndex", groups: "tuple[Group, ...]", report: "DuplicatesReport", format: Format, *, as_pairs: bool
) -> None:
    from vggsearch.render.duplicates import duplicate_groups, duplicate_pairs
    from vggsearch.render.threshold import chosen_line, notes

    text = (
        duplicate_pairs(report.pairs, format, opened.root)
        if as_pairs
        else duplicate_groups(groups, format, opened.root)
    )
    if text:
        click.echo(text)
    for line in (chosen_line(report), *notes(report)):
        click.echo(line, err=True)


def _explain(report: "DuplicatesReport", format: Format) -> None:
    import json

    from vggsearch.render.threshold import as_values, explanation, notes

    if format in ("json", "jsonl"):
        click.echo(json.dumps(as_values(report), indent=2 if format == "json" else None))
        return
    click.echo(explanation(report))
    for line in notes(report):
        click.echo(line, err=True)


def _write_page(page: Path, groups: "tuple[Group, ...]", opened: "ImageIndex", report: "DuplicatesReport") -> None:
    from vggsearch.render.duplicates import summary
    from vggsearch.render.html.page import PageFacts, write_page
    from vggsearch.render.threshold import chosen_line, notes

    rows = (
        ("photos", str(opened.root)),
        ("chosen", chosen_line(report)),
        *(("note", note) for note in notes(report)),
    )
    title = f"Duplicates in {(opened.root or Path()).resolve().name}"
    facts = PageFacts(title, rows, ("vggsearch", "dups", "--index", str(opened.directory)))
    with counting_bar(f"writing {page}") as progress, quiet_decoders():
        write_page(page, groups, opened.root or Path(), facts, progress)
    click.echo(f"{page}: {summary(groups)}")


def _preview(opened: "ImageIndex", groups: "tuple[Group, ...]") -> None:
    from vggsearch.render.terminal_images import preview

    screen = picture_screen(sys.stdout)
    if screen is None:
        raise click.ClickException(
            "This terminal shows no pictures. Look at a page: vggsearch dups --html dups.html"
        )
    with quiet_decoders():
        preview(groups, opened.root or Path(), sys.stdout, screen)


def _act(
    opened: "ImageIndex",
    report: "DuplicatesReport",
    action: str,
    protect: tuple[str, ...],
    *,
    raw_pairs: bool,
    yes: bool,
) -> None:
    from vggsearch.removal.perform import RemovalReport
    from vggsearch.render.actions import done, planned

    plan = opened.plan_removal(report, action, protect=protect, raw_pairs=raw_pairs)
    click.echo(planned(plan), err=yes)
    if not yes:
        click.echo("Nothing was changed. Do it with --yes; it can be undone, but for what is said above.", err=True)
        return
    try:
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            performed = opened.remove(plan, progress=progress, stop=stop)
    except Stopped as stopped:
        if isinstance(stopped.report, RemovalReport):
            click.echo(done(stopped.report))
        raise
    click.echo(done(performed))


def _undo(journal: Path, root: Path | None) -> None:
    from vggsearch.removal.undo import UndoReport, undo
    from vggsearch.render.actions import undone

    try:
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            report = undo(journal, root, progress=progress, stop=stop)
    except Stopped as stopped:
        if isinstance(stopped.report, UndoReport):
            click.echo(undone(stopped.report))
        raise
    click.echo(undone(report))
    if report.refusals:
        click.get_current_context().exit(1)
