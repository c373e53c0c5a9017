"""What a check of an index found to text."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.indexing.integrity import Finding, VerifyReport
from vggsearch.render.text import as_csv, bytes_text, one_line


def verified(result: VerifyReport, format: Format) -> str:
    """Render what a check found. `paths` lists the photos that are lost until they are indexed again."""
    if format == "json":
        values = asdict(result) | {"directory": str(result.directory), "is_whole": result.is_whole}
        return json.dumps(values, ensure_ascii=False, indent=2)
    if format == "jsonl":
        return "\n".join(json.dumps(asdict(finding), ensure_ascii=False) for finding in result.findings)
    rows = [(finding.file, finding.problem, finding.way_out) for finding in result.findings]
    if format == "csv":
        return as_csv(("file", "problem", "way_out"), rows)
    if format == "paths":
        return "\n".join(path for finding in result.findings for path in finding.photos)
    lines = [f"{one_line(file)} {one_line(problem)}: {way_out}." for file, problem, way_out in rows]
    return "\n".join([*lines, *_lost_photos(result.findings), *result.notes, _verdict(result)])


def _lost_photos(findings: Sequence[Finding], most: int = 10) -> list[str]:
    photos = [path for finding in findings for path in finding.photos]
    lines = [f"  {one_line(path)}" for path in photos[:most]]
    if len(photos) > most:
        lines.append(f"  and {len(photos) - most:,} more: vggsearch verify --format paths lists all")
    return lines


def _verdict(result: VerifyReport) -> str:
    found = len(result.findings)
    problems = f"{found:,} problem{'' if found == 1 else 's'}"
    state = "whole" if not found else f"{problems} repaired" if result.is_repaired else f"damaged, {problems}"
    held = f"{result.photos:,} photos, {result.parts:,} part{'' if result.parts == 1 else 's'}"
    read = f"{bytes_text(result.bytes)} read in {result.seconds:.1f} s"
    return f"{result.directory}: {state}; {held}, {read}"
