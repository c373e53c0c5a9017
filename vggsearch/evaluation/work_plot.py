"""Save a chart of work against answers: the multiply-adds of the networks of several indexes, and their mAP."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vggsearch.errors import OptionError
from vggsearch.evaluation.compare import Compared, ComparisonReport
from vggsearch.evaluation.svg import Point, document, dot, line, start_of, text
from vggsearch.system.outputs import check_replaceable

LEFT, RIGHT, TOP, BOTTOM = 64, 700, 90, 420  # edges of the plot area, in pixels
LABEL = "Multiply-adds of a photo and mAP by index."
WORK_STEPS = (1, 2, 5)  # ticks in each decade
SHARE_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
MOST_TICKS = 8
GIGA = 1e9


def check_plot_file(file: Path) -> None:
    """Raise OptionError if the name does not end in .svg, or the file exists and is no such chart."""
    if file.suffix.lower() != ".svg":
        raise OptionError(f"Cannot save a chart as {file}: use a file name ending in .svg.")
    check_replaceable(file, start_of(LABEL))


def save_plot(report: ComparisonReport, file: Path) -> None:
    """Write the chart of the indexes of a report.

    Raises OptionError as `check_plot_file` does, if the work of a network is not known, and if the file cannot be
    written.
    """
    check_plot_file(file)
    shapes = _shapes(report.indexes)
    try:
        file.write_text(document(LABEL, shapes), encoding="utf-8", newline="")
    except OSError as error:
        raise OptionError(f"Cannot write {file}: {error.strerror}. Choose another file.") from error


def _shapes(indexes: Sequence[Compared]) -> list[str]:
    works = [_work(each) for each in indexes]
    first = indexes[0].figures.map
    bars = [(first + each.map_gain.interval.low, first + each.map_gain.interval.high) for each in indexes]
    across = _ticks_of_work(min(works), max(works))
    up = _ticks_of_shares(min(low for low, _ in bars), max(high for _, high in bars))
    shapes = [
        text((LEFT, 28), "Work of the network and quality of the answers", size=18),
        text((LEFT, 52), "Lines: 95% interval of the gain over the first index, paired by query."),
        text((16, TOP - 14), "mAP"),
        text(((LEFT + RIGHT) / 2, BOTTOM + 46), "multiply-adds of one photo", "middle"),
    ]
    for tick in up:
        y = _y(tick, up)
        shapes += [line(((LEFT, y), (RIGHT, y)), "faint"), text((LEFT - 8, y + 4), f"{tick:.2f}", "end")]
    for tick in across:
        x = _x(tick, across)
        shapes += [line(((x, BOTTOM), (x, BOTTOM + 5)), "text"), text((x, BOTTOM + 22), f"{tick:g}G", "middle")]
    for each, work, (low, high) in zip(indexes, works, bars, strict=True):
        x, y = _x(work, across), _y(each.figures.map, up)
        shapes += [line(((x, _y(low, up)), (x, _y(high, up))), "precision", 2), dot((x, y), "precision")]
        shapes.append(_name((x, y), Path(each.index).name))
    return shapes


def _work(each: Compared) -> float:
    if each.multiply_adds is None:
        raise OptionError(f"The work of {each.index}, made by a network of your own, is not known.")
    return each.multiply_adds / GIGA


def _name(at: Point, name: str) -> str:
    """Return the name of an index beside its dot, on the side with more room."""
    is_left = at[0] < (LEFT + RIGHT) / 2
    return text((at[0] + (9 if is_left else -9), at[1] - 6), escape(name), "start" if is_left else "end")


def _ticks_of_work(low: float, high: float) -> list[float]:
    """Return round numbers of which the first is at most `low` and the last more than `high`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    all_ticks = [step * 10.0**decade for decade in decades for step in WORK_STEPS]
    first = max(tick for tick in all_ticks if tick <= low * (1 + 1e-9))
    last = min(tick for tick in all_ticks if tick > high)
    return [tick for tick in all_ticks if first <= tick <= last]


def _ticks_of_shares(low: float, high: float) -> list[float]:
    step = next((each for each in SHARE_STEPS if high - low <= each * (MOST_TICKS - 2)), SHARE_STEPS[-1])
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [number * step for number in range(first, last + 1)]


def _x(work: float, ticks: Sequence[float]) -> float:
    return LEFT + (RIGHT - LEFT) * math.log(work / ticks[0]) / math.log(ticks[-1] / ticks[0])


def _y(share: float, ticks: Sequence[float]) -> float:
    return BOTTOM - (BOTTOM - TOP) * (share - ticks[0]) / (ticks[-1] - ticks[0])
