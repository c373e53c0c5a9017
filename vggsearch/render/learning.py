"""What was learned from labels, and which labels other photos get, to text."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.learning.classify import Classified, ClassifyReport, WrongLabel
from vggsearch.learning.learn import ROWS, LearnReport, Name
from vggsearch.learning.validation import Measured, Quality
from vggsearch.render.text import as_csv, as_paths, as_table, quantity

NO_LABEL = "none of these"


def learned(report: LearnReport, format: Format) -> str:
    """Render the quality before and after learning, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(report) | {"problem": report.problem, "note": report.note}, indent=2)
    rows = [*_rows("photos held out", report.held), *_rows("unseen labels", report.unseen)]
    table = as_table(("tested on", "embeddings", "mAP", "recall@1", "micro-AP"), rows, rule_before=len(report.held))
    counts = (
        f"Learned from {quantity(report.photos, 'photo')} with {quantity(report.labels, 'label')} and "
        f"{quantity(report.background, 'photo')} without: to {quantity(report.setting.dim, 'dimension')}, "
        f"shrinkage {report.setting.shrinkage:g}."
    )
    tested = f"Tested on {_queries(report.held)} and {_queries(report.unseen)}; ± is half of a 95% interval."
    stored = "Queries use it from now on." if report.is_saved else "It is not stored."
    notes = [f"Note: {report.note}."] if report.note is not None else []
    return "\n".join([table, "", counts, tested, *notes, stored])


def _rows(side: str, found: dict[Name, Quality]) -> list[tuple[str, ...]]:
    return [
        (side, ROWS[name], *map(_with_interval, (each.map, each.recall_at_1, each.pair_ap)))
        for name, each in found.items()
    ]


def _with_interval(figure: Measured) -> str:
    return f"{figure.value:.3f} ± {(figure.interval.high - figure.interval.low) / 2:.3f}"


def _queries(found: dict[Name, Quality]) -> str:
    return quantity(found["learned"].queries, "query", "queries")


def classified(report: ClassifyReport, format: Format) -> str:
    """Render the labels of the photos that had none, one row per photo."""
    if format != "table":
        return _records(report.photos, ("path", "label", "probability", "best", "nearest"), format)
    rows = [(each.path, each.label or NO_LABEL, f"{each.probability:.2f}", each.nearest) for each in report.photos]
    without = sum(each.label is None for each in report.photos)
    counts = (
        f"{quantity(len(rows) - without, 'photo')} labelled, {without:,} with none of the {len(report.labels):,} "
        f"labels; learned from {quantity(report.labelled, 'photo')}."
    )
    right = f"Of photos that were left out, {_with_interval(report.accuracy)} got their label."
    return as_table(("path", "label", "probability", "nearest"), rows, right=[2]) + f"\n\n{counts}\n{right}"


def wrong_labels(report: ClassifyReport, format: Format) -> str:
    """Render the labels that look wrong, one row per photo."""
    if format != "table":
        names = ("path", "label", "probability", "suggested", "suggested_probability")
        return _records(report.wrong, names, format)
    rows = [
        (each.path, each.label, f"{each.probability:.2f}", each.suggested, f"{each.suggested_probability:.2f}")
        for each in report.wrong
    ]
    counts = f"{quantity(len(rows), 'label')} of {report.labelled:,} may be wrong."
    head = ("path", "label", "probability", "suggested", "probability")
    return (as_table(head, rows, right=[2, 4]) + "\n\n" if rows else "") + counts


def _records(records: Sequence[Classified | WrongLabel], names: Sequence[str], format: Format) -> str:
    if format == "paths":
        return as_paths(each.path for each in records)
    if format == "csv":
        cells = ([getattr(each, name) for name in names] for each in records)
        return as_csv(names, [["" if cell is None else str(cell) for cell in row] for row in cells])
    values = [asdict(each) for each in records]
    if format == "json":
        return json.dumps(values, ensure_ascii=False, indent=2)
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in values)
