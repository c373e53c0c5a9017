"""A network, layer by layer, to text."""

from vggsearch.model.layers import parts
from vggsearch.model.vgg import describe
from vggsearch.render.text import as_table


def model(name: str, layer: str, size: int) -> str:
    """Render a network layer by layer; what `layer` cuts is marked."""
    wanted = parts(layer)
    reports = describe(name, size)
    deepest = max(number for number, report in enumerate(reports) if report.module.name in wanted)
    rows = []
    for number, report in enumerate(reports):
        module = report.module
        shape = " x ".join(str(side) for side in report.shape)
        mark = "<- embedding" if module.name in wanted else "" if number <= deepest else "not built"
        field = str(report.receptive_field)
        work = f"{report.multiply_adds / 1e6:,.1f}" if report.multiply_adds else ""
        parameters = f"{module.parameters:,}" if module.parameters else ""
        rows.append((module.name, shape, parameters, work, field, mark))
    built, whole = reports[: deepest + 1], reports
    for title, part in ((f"up to {reports[deepest].module.name}", built), ("whole network", whole)):
        parameters = f"{sum(report.module.parameters for report in part):,}"
        rows.append((title, "", parameters, f"{sum(report.multiply_adds for report in part) / 1e6:,.1f}", "", ""))
    head = ("module", f"output at {size}", "parameters", "M multiply-adds", "sees, pixels", layer)
    return as_table(head, rows, right=range(1, 5), rule_before=len(reports))
