"""What an update did, and which files it skipped, to text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggsearch.defaults import Format
from vggsearch.indexing.merge import MergeReport
from vggsearch.indexing.update import UpdateReport
from vggsearch.photos.walk import Skipped, one_line
from vggsearch.render.text import as_csv, as_paths, as_table, quantity

if TYPE_CHECKING:  # an update needs nothing of it
    from vggsearch.published.publish import PublishReport


def update_line(report: UpdateReport, directory: Path) -> str:
    """Return the closing line of an update: what was done, how fast, and where the index is."""
    others = sum(skipped.kind == "not a picture" for skipped in report.skipped)
    counts = [
        f"{report.indexed:,} indexed",
        f"{report.reused:,} renamed or copied" if report.reused else "",
        f"{report.unchanged:,} unchanged",
        f"{report.gone:,} deleted" if report.gone else "",
        f"{len(report.skipped) - others:,} skipped",
        quantity(others, "other file") if others else "",
    ]
    rate = f" ({report.indexed / report.seconds:.1f} photos/s)" if report.indexed else ""
    done = ", ".join(filter(None, counts))
    return (
        f"{done} in {report.seconds:.1f} s{rate}: {quantity(report.photos, 'photo')} in {one_line(str(directory))}"
    )


def merge_line(report: MergeReport) -> str:
    """Return the closing line of a merge."""
    indexes, photos = quantity(report.indexes, "index", "indexes"), quantity(report.photos, "photo")
    return f"{indexes} merged: {photos} in {one_line(str(report.directory))}"


def publish_line(report: "PublishReport") -> str:
    """Return the closing line of a publish: what was done, and where the photos are."""
    counts = [f"{report.added:,} added", f"{report.removed:,} removed" if report.removed else ""]
    done = f"{', '.join(filter(None, counts))} in {report.seconds:.1f} s{' (all anew)' if report.is_new else ''}"
    return f"{done}: {quantity(report.photos, 'photo')} in {one_line(report.place)}"


def skipped_files(skipped: Sequence[Skipped], format: Format) -> str:
    """Render the files that were skipped, with their reasons."""
    rows = [{"path": row.path, "kind": row.kind, "reason": row.reason} for row in skipped]
    if format == "json":
        return json.dumps(rows, ensure_ascii=False, indent=2)
    if format == "jsonl":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if format == "csv":
        return as_csv(("path", "kind", "reason"), [tuple(row.values()) for row in rows])
    if format == "paths":
        return as_paths(row.path for row in skipped)
    return as_table(("path", "kind", "reason"), [tuple(row.values()) for row in rows])


def skipped_lines(skipped: Sequence[Skipped], most: int = 10) -> list[str]:
    """Return a line for each of the first pictures that were skipped, and one for the rest."""
    pictures = [row for row in skipped if row.kind != "not a picture"]
    lines = [f"skipped {one_line(row.path)}: {one_line(row.reason)}" for row in pictures[:most]]
    if len(pictures) > most:
        lines.append(f"skipped {len(pictures) - most:,} more; list all: vggsearch info --skipped")
    return lines
