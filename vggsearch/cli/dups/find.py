"""vggsearch dups find"""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from vggsearch.cli.dups.selection import Selection, find_duplicates, given_words, selection_options
from vggsearch.cli.options import FILE, FOLDER, index_option, root_option
from vggsearch.cli.output import Output, output_options, say, show
from vggsearch.cli.pictures import show_pictures
from vggsearch.cli.terminal import quiet_decoders, stopping_on_ctrl_c
from vggsearch.defaults import Format
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.results import Group
from vggsearch.image_index import ImageIndex
from vggsearch.photos.walk import one_line
from vggsearch.progress import progress_bar
from vggsearch.render.calibration import as_values, chosen_line, explanation, notes
from vggsearch.render.duplicates import duplicate_groups, duplicate_pairs, summary
from vggsearch.render.html.write import write_html
from vggsearch.render.terminal_images import group_strips
from vggsearch.store.locate import only_index


@click.command()
@index_option
@selection_options
@click.option("--similar", is_flag=True, help="Also show similar photos; they are never removed.")
@click.option(
    "--against",
    type=FOLDER,
    metavar="DIR",
    help="Find photos that also exist in another index or photo folder.",
)
@click.option("--explain-threshold", is_flag=True, help="Show how pairs were classified.")
@click.option("--pairs", "as_pairs", is_flag=True, help="Print pairs instead of groups.")
@click.option("--review-order", is_flag=True, help="Least certain groups first.")
@output_options
@click.option("--html", "page", type=FILE, metavar="FILE", help="Write an HTML page to review the groups.")
@click.option("--preview", is_flag=True, help="Show the photos in the terminal.")
@click.option("--fail-if-found", is_flag=True, help="Exit with status 1 if there are duplicates.")
@root_option
def find(
    directory: Path | None,
    selection: Selection,
    similar: bool,
    against: Path | None,
    explain_threshold: bool,
    as_pairs: bool,
    review_order: bool,
    output: Output,
    page: Path | None,
    preview: bool,
    fail_if_found: bool,
    root: Path | None,
) -> None:
    """Find duplicates and edited copies, and suggest which to keep. Changes nothing.

    \b
    Example:
      vggsearch dups find
      vggsearch dups find --html dups.html
      vggsearch dups find --against ~/Pictures --format paths
    """
    with ImageIndex.open(directory or only_index(), root=root) as opened:
        report, stopped = find_duplicates(opened, selection, similar=similar, against=against)
        groups = report.in_review_order() if review_order else report.groups
        if page is not None:
            _write_page(page, groups, report)
        if explain_threshold:
            _explain(report, output.format)
        elif preview:
            _preview(opened, groups)
        elif page is None:
            _show(opened, groups, report, output, as_pairs=as_pairs)
    if stopped is not None:
        raise stopped
    if fail_if_found and groups:
        click.get_current_context().exit(1)


def _show(
    opened: ImageIndex, groups: Sequence[Group], report: DuplicatesReport, output: Output, *, as_pairs: bool
) -> None:
    if as_pairs:
        text = duplicate_pairs(report.pairs, output.format, opened.root)
    else:
        text = duplicate_groups(groups, output.format, opened.root)
    try:
        output.show(text)
    finally:
        _show_notes(report, chosen_line(report))


def _explain(report: DuplicatesReport, format: Format) -> None:
    if format in ("json", "jsonl"):
        show(json.dumps(as_values(report), ensure_ascii=False, indent=2 if format == "json" else None), format)
        return
    say(explanation(report))
    _show_notes(report)


def _show_notes(report: DuplicatesReport, *lines: str) -> None:
    for line in (*lines, *notes(report)):
        say(line, err=True)


def _write_page(page: Path, groups: Sequence[Group], report: DuplicatesReport) -> None:
    with progress_bar() as progress, stopping_on_ctrl_c() as stop, quiet_decoders():
        words = given_words(click.get_current_context())
        write_html(report, page, groups=groups, selection=words, progress=progress, stop=stop)
    say(f"{one_line(str(page))}: {summary(groups)}")


def _preview(opened: ImageIndex, groups: Sequence[Group]) -> None:
    show_pictures(group_strips(groups, opened.root or Path()), "vggsearch dups --html dups.html")
    say(summary(groups))
