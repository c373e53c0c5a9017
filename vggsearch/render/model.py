"""The layers of a network, and networks side by side, to text."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from vggsearch.defaults import EMBEDDING, Format
from vggsearch.evaluation.networks import NetworkReport
from vggsearch.model.layers import check_layer, parts
from vggsearch.model.modules import ModuleReport
from vggsearch.model.networks import describe
from vggsearch.render.text import as_table


def model(name: str, layer: str, size: int, format: Format) -> str:
    """Render a network layer by layer, for inputs of `size` pixels; in a table, those of `layer` are marked.

    Raises OptionError for a layer that the network does not have.
    """
    check_layer(name, layer)
    chosen = parts(layer)
    reports = describe(name, size)
    if format == "json":
        return json.dumps([_as_json(report) for report in reports], indent=2)
    deepest = max(number for number, report in enumerate(reports) if report.module.name in chosen)
    marks = [
        "<- embedding" if report.module.name in chosen else "" if number <= deepest else "not loaded"
        for number, report in enumerate(reports)
    ]
    rows = [_row(report, mark) for report, mark in zip(reports, marks, strict=True)]
    sums = [_sum(f"up to {reports[deepest].module.name}", reports[: deepest + 1]), _sum("whole network", reports)]
    head = ("layer", f"output at {size}", "parameters", "M mult-adds", "sees (px)", layer)
    return as_table(head, [*rows, *sums], right=range(1, 5), rule_before=len(rows))


def _as_json(report: ModuleReport) -> dict[str, object]:
    figures = {each: getattr(report, each) for each in ("shape", "multiply_adds", "receptive_field")}
    return {"name": report.module.name, "parameters": report.module.parameters, **figures}


def _row(report: ModuleReport, mark: str) -> tuple[str, ...]:
    shape = " x ".join(map(str, report.shape))
    parameters = f"{report.module.parameters:,}" if report.module.parameters else ""
    work = f"{report.multiply_adds / 1e6:,.1f}" if report.multiply_adds else ""
    return report.module.name, shape, parameters, work, str(report.receptive_field), mark


def _sum(title: str, reports: Sequence[ModuleReport]) -> tuple[str, ...]:
    parameters = f"{sum(report.module.parameters for report in reports):,}"
    return title, "", parameters, f"{sum(report.multiply_adds for report in reports) / 1e6:,.1f}", "", ""


def networks(reports: Sequence[NetworkReport], format: Format) -> str:
    """Render networks side by side, as a table or as JSON."""
    if format == "json":
        return json.dumps([asdict(report) for report in reports], ensure_ascii=False, indent=2)
    head = ["network", "layers", "params", "in fc", "m-adds", "embed", "sees", "dims", "MB", "photos/s"]
    rows = [_network(report) for report in reports]
    columns = len(head) if reports[0].engine else len(head) - 1
    table = as_table(head[:columns], [row[:columns] for row in rows], right=range(1, columns))
    return f"{table}\n\n{_explained(reports)}"


def _network(report: NetworkReport) -> tuple[str, ...]:
    return (
        report.model,
        str(report.depth),
        f"{report.parameters / 1e6:.1f}M",
        f"{report.connected_share:.0%}",
        f"{report.multiply_adds / 1e9:.2f}G",
        f"{report.embedding_multiply_adds / 1e9:.2f}G",
        str(report.receptive_field),
        f"{report.dimensions:,}",
        f"{report.weight_bytes / 1e6:.0f}",
        f"{report.photos_per_s:.1f}" if report.photos_per_s is not None else "",
    )


def _explained(reports: Sequence[NetworkReport]) -> str:
    embeddings: dict[str, list[str]] = {}
    for report in reports:
        embeddings.setdefault(f"{report.layer} at {report.size}", []).append(report.model)
    lines = [
        "layers: with weights, one after another. in fc: share of the parameters in fully",
        f"connected layers. m-adds: multiply-adds of the whole network at {EMBEDDING.trained_size} pixels.",
        "The rest is of the default embedding: multiply-adds, receptive field (pixels),",
        "dimensions, weights in float32.",
        *(f"  {embedding}: {', '.join(models)}" for embedding, models in embeddings.items()),
    ]
    if reports[0].engine:
        lines.append(f"photos/s: {reports[0].engine}, with random weights.")
    return "\n".join(lines)
