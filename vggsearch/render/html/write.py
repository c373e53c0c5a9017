"""Write a report on duplicates as a page."""

import os
from collections.abc import Sequence
from pathlib import Path

from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.results import Group
from vggsearch.photos.addresses import address_of
from vggsearch.progress import OnProgress, Stop
from vggsearch.render.calibration import chosen_line, notes
from vggsearch.render.html.page import PageFacts, write_page
from vggsearch.system.places import from_home


def write_html(
    report: DuplicatesReport,
    file: str | os.PathLike[str],
    *,
    groups: Sequence[Group] | None = None,
    selection: Sequence[str] | None = None,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> None:
    """Write groups of duplicates as one HTML file, with thumbnails, to look through and to mark in a browser.

    `groups` are those to show, in this order; by default all of the report. `selection` are the options by which
    `vggsearch dups` finds the same ones: with them, the page composes commands that remove what it shows.

    The file is written completely or not at all. Raises OptionError if `file` exists and was not written by
    vggsearch, OSError if it cannot be written, and Stopped.

    >>> write_html(index.duplicates(), "dups.html")
    """
    rows = (
        ("Photo folder", "" if report.root is None else address_of(report.root)),
        ("Pairs", chosen_line(report)),
        *(("Note", note) for note in notes(report)),
    )
    root, index = report.root or Path(), ("--index", str(report.directory))
    may_remove = selection is not None and not report.is_against
    facts = PageFacts(
        f"Duplicates in {root.resolve().name}",
        rows,
        ("vggsearch", "dups", "decide", *index),
        ("vggsearch", "dups", "remove", "trash", *index, *(selection or ())) if may_remove else None,
    )
    shown = report.groups if groups is None else groups
    write_page(from_home(file), shown, root, facts, progress=progress, stop=stop)
