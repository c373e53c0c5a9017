"""The layers of a network to text."""

from collections.abc import Sequence

from vggsearch.model.layers import check_layer, parts
from vggsearch.model.modules import ModuleReport
from vggsearch.model.networks import describe
from vggsearch.render.text import as_table


def model(name: str, layer: str, size: int) -> str:
    """Render a network layer by layer, for inputs of `size` pixels; the feature layers in `layer` are marked.

    Raises OptionError for a layer that the network does not have.
    """
    check_layer(name, layer)
    chosen = parts(layer)
    reports = describe(name, size)
    deepest = max(number for number, report in enumerate(reports) if report.module.name in chosen)
    marks = [
        "<- embedding" if report.module.name in chosen else "" if number <= deepest else "not loaded"
        for number, report in enumerate(reports)
    ]
    rows = [_row(report, mark) for report, mark in zip(reports, marks, strict=True)]
    sums = [_sum(f"up to {reports[deepest].module.name}", reports[: deepest + 1]), _sum("whole network", reports)]
    head = ("layer", f"output at {size}", "parameters", "M mult-adds", "sees (px)", layer)
    return as_table(head, [*rows, *sums], right=range(1, 5), rule_before=len(rows))


def _row(report: ModuleReport, mark: str) -> tuple[str, ...]:
    shape = " x ".join(map(str, report.shape))
    parameters = f"{report.module.parameters:,}" if report.module.parameters else ""
    work = f"{report.multiply_adds / 1e6:,.1f}" if report.multiply_adds else ""
    return report.module.name, shape, parameters, work, str(report.receptive_field), mark


def _sum(title: str, reports: Sequence[ModuleReport]) -> tuple[str, ...]:
    parameters = f"{sum(report.module.parameters for report in reports):,}"
    return title, "", parameters, f"{sum(report.multiply_adds for report in reports) / 1e6:,.1f}", "", ""
