"""What was learned from labels to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.learning.learn import ROWS, LearnReport, Name
from vggsearch.learning.validation import Measured, Quality
from vggsearch.render.text import as_table, quantity


def learned(report: LearnReport, format: Format) -> str:
    """Render the quality before and after learning, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(report) | {"problem": report.problem}, indent=2)
    rows = [*_rows("photos held out", report.held), *_rows("unseen labels", report.unseen)]
    table = as_table(("tested on", "embeddings", "mAP", "recall@1", "micro-AP"), rows, rule_before=len(report.held))
    counts = (
        f"Learned from {quantity(report.photos, 'photo')} with {quantity(report.labels, 'label')} and "
        f"{quantity(report.background, 'photo')} without: to {quantity(report.setting.dim, 'dimension')}, "
        f"shrinkage {report.setting.shrinkage:g}."
    )
    tested = f"Tested on {_queries(report.held)} and {_queries(report.unseen)}; ± is half of a 95% interval."
    stored = "Queries use it from now on." if report.is_saved else "It is not stored."
    return f"{table}\n\n{counts}\n{tested}\n{stored}"


def _rows(side: str, found: dict[Name, Quality]) -> list[tuple[str, ...]]:
    return [
        (side, ROWS[name], *map(_with_interval, (each.map, each.recall_at_1, each.pair_ap)))
        for name, each in found.items()
    ]


def _with_interval(figure: Measured) -> str:
    return f"{figure.value:.3f} ± {(figure.interval.high - figure.interval.low) / 2:.3f}"


def _queries(found: dict[Name, Quality]) -> str:
    return quantity(found["learned"].queries, "query", "queries")
