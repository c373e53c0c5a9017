"""The result of an integrity check to text."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.indexing.findings import Finding
from vggsearch.indexing.integrity import VerifyReport
from vggsearch.photos.walk import one_line
from vggsearch.render.text import as_csv, as_paths, quantity
from vggsearch.system.units import decimal


def verified(result: VerifyReport, format: Format) -> str:
    """Render the result of a check. `paths` lists the photos that are lost until they are indexed again."""
    if format == "json":
        return json.dumps(_values(result), ensure_ascii=False, indent=2)
    if format == "jsonl":
        return "\n".join(json.dumps(_finding_values(finding), ensure_ascii=False) for finding in result.findings)
    rows = [(finding.file, finding.problem, finding.way_out.shell) for finding in result.findings]
    if format == "csv":
        return as_csv(("file", "problem", "way_out"), rows)
    if format == "paths":
        return as_paths(path for finding in result.findings for path in finding.photos)
    lines = [f"{one_line(file)} {one_line(problem)}: {way_out}." for file, problem, way_out in rows]
    notes = [note.shell for note in result.notes]
    return "\n".join([*lines, *_lost_photos(result.findings), *notes, _verdict(result)])


def _values(result: VerifyReport) -> dict[str, object]:
    return asdict(result) | {
        "directory": str(result.directory),
        "findings": [_finding_values(finding) for finding in result.findings],
        "notes": [note.shell for note in result.notes],
        "is_repaired": result.is_repaired,
        "is_whole": result.is_whole,
    }


def _finding_values(finding: Finding) -> dict[str, object]:
    return asdict(finding) | {"way_out": finding.way_out.shell}


def _lost_photos(findings: Sequence[Finding], most: int = 10) -> list[str]:
    photos = [path for finding in findings for path in finding.photos]
    lines = [f"  {one_line(path)}" for path in photos[:most]]
    if len(photos) > most:
        lines.append(f"  and {len(photos) - most:,} more; list all: vggsearch verify --format paths")
    return lines


def _verdict(result: VerifyReport) -> str:
    problems, repaired = (
        quantity(len(result.findings), "problem"),
        sum(each.is_repaired for each in result.findings),
    )
    if not result.findings:
        state = "no damage"
    elif result.is_repaired:
        state = f"{problems} repaired"
    else:
        state = f"damaged, {problems}" + (f", {repaired:,} repaired" if repaired else "")
    contents = f"{quantity(result.photos, 'photo')}, {quantity(result.parts, 'part')}"
    read = f"{decimal(result.bytes)} read in {result.seconds:.1f} s"
    return f"{one_line(str(result.directory))}: {state}; {contents}, {read}"
