"""The result of an integrity check to text."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.filesize import decimal

from vggsearch.defaults import Format
from vggsearch.indexing.integrity import Finding, VerifyReport
from vggsearch.render.text import as_csv, one_line, quantity


def verified(result: VerifyReport, format: Format) -> str:
    """Render the result of a check. `paths` lists the photos that are lost until they are indexed again."""
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
        lines.append(f"  and {len(photos) - most:,} more; list all: vggsearch verify --format paths")
    return lines


def _verdict(result: VerifyReport) -> str:
    problems = quantity(len(result.findings), "problem")
    if not result.findings:
        state = "no damage"
    else:
        state = f"{problems} repaired" if result.is_repaired else f"damaged, {problems}"
    contents = f"{quantity(result.photos, 'photo')}, {quantity(result.parts, 'part')}"
    return f"{result.directory}: {state}; {contents}, {decimal(result.bytes)} read in {result.seconds:.1f} s"
