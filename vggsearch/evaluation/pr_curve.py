"""Save precision and recall over the threshold: the values as CSV, or a chart as HTML or SVG."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.evaluation.svg import NAMESPACE, Ink, Point, document, dot, line, start_of, text
from vggsearch.measures.metrics import Curve
from vggsearch.system.outputs import check_replaceable

LEFT, RIGHT, TOP, BOTTOM = 64, 730, 120, 420  # edges of the plot area
COLUMNS = ("threshold", "precision", "recall")
LABEL = "Precision and recall by threshold."
TICK_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MOST_TICKS = 10
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Precision and recall</title>
<style>
body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); }}
svg {{ width: 100%; height: auto; }}
</style>
</head>
<body>
{svg}
</body>
</html>
"""


def check_curve_file(file: Path) -> None:
    """Raise OptionError if the suffix of the file is not that of a format, or if it exists and is no such curve."""
    if file.suffix.lower() not in _FORMATS:
        raise OptionError(f"Cannot save a curve as {file}: use a file name ending in .csv, .html or .svg.")
    _, start = _FORMATS[file.suffix.lower()]
    check_replaceable(file, start)


def save_curve(curve: Curve, file: Path) -> None:
    """Write the curve in the format of the file's suffix: `.csv` all thresholds, `.html` and `.svg` a chart.

    Both charts are self-contained. Raises OptionError as `check_curve_file` does, and where it cannot be written.
    """
    check_curve_file(file)
    render, _ = _FORMATS[file.suffix.lower()]
    try:
        file.write_text(render(curve), encoding="utf-8", newline="")
    except OSError as error:
        raise OptionError(f"Cannot write {file}: {error.strerror}. Choose another file.") from error


def _csv(curve: Curve) -> str:
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(curve.threshold.tolist(), curve.precision.tolist(), curve.recall.tolist(), strict=True))
    return rows.getvalue()


def _html(curve: Curve) -> str:
    return PAGE.format(svg=_svg(curve, namespace=""))


def _svg(curve: Curve, namespace: str = NAMESPACE) -> str:
    return document(f"{LABEL} {_note(curve)}", _shapes(curve), namespace)


_FORMATS = {  # how a curve is rendered, and how every such file begins
    ".csv": (_csv, ",".join(COLUMNS)),
    ".html": (_html, PAGE.partition("<style>")[0]),
    ".svg": (_svg, start_of(LABEL)),
}


@dataclass(frozen=True)
class _Axis:
    """The thresholds from left to right, and the ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, threshold: float) -> float:
        return LEFT + (RIGHT - LEFT) * (threshold - self.low) / (self.high - self.low)


def _axis(curve: Curve) -> _Axis:
    """Return the thresholds worth showing, down to the one that finds every right pair."""
    low, high = 0.0, 1.0
    if len(curve.threshold):
        low = float(curve.threshold[np.argmax(curve.recall == curve.recall[-1])])
        high = float(curve.threshold[0])
    step = next((step for step in TICK_STEPS if high - low <= step * (MOST_TICKS - 2)), TICK_STEPS[-1])
    last = int(np.ceil(high / step - 1e-9))
    first = min(int(np.floor(low / step + 1e-9)), last - 1)
    ticks = tuple(round(number * step, 4) for number in range(first, last + 1))
    return _Axis(ticks[0], ticks[-1], ticks)


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _shapes(curve: Curve) -> list[str]:
    axis = _axis(curve)
    shapes = [
        text((LEFT, 28), "Precision and recall over all pairs", size=18),
        text((LEFT, 52), _note(curve)),
        *_legend(LEFT, "precision", "precision: share of found pairs that are right"),
        *_legend(LEFT + 330, "recall", "recall: share of right pairs that are found"),
        *_grid(axis),
        text((16, TOP - 14), "share of pairs"),
        text(((LEFT + RIGHT) / 2, BOTTOM + 46), "threshold: minimum similarity of a found pair", "middle"),
    ]
    if len(curve.threshold) == 0:
        return shapes
    at = curve.at_p99()
    if at is not None:
        x = axis.x(curve.threshold[at])
        shapes.append(line(((x, TOP), (x, BOTTOM)), "text", more=' stroke-dasharray="6"'))
    shapes += [
        line(_points(curve, curve.recall, axis), "recall", 2.5),
        line(_points(curve, curve.precision, axis), "precision", 2.5),
    ]
    if at is not None:
        shapes += [dot((x, _y(curve.recall[at])), "recall"), dot((x, _y(curve.precision[at])), "precision")]
    return shapes


def _note(curve: Curve) -> str:
    at = curve.at_p99()
    if at is None:
        return "No threshold reaches a precision of 99%."
    percent = 100 * curve.recall[at]
    return f"At threshold {curve.threshold[at]:.4f}, precision is 99% or more and recall is {percent:.1f}%."


def _legend(x: float, ink: Ink, words: str) -> list[str]:
    return [line(((x, 74), (x + 24, 74)), ink, 2.5), text((x + 32, 78), words)]


def _grid(axis: _Axis) -> list[str]:
    shapes: list[str] = []
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        shapes += [line(((LEFT, y), (RIGHT, y)), "faint"), text((LEFT - 8, y + 4), f"{percent}%", "end")]
    decimals = max(len(f"{tick:g}".partition(".")[2]) for tick in axis.ticks)
    for tick in axis.ticks:
        x = axis.x(tick)
        shapes.append(line(((x, BOTTOM), (x, BOTTOM + 5)), "text"))
        shapes.append(text((x, BOTTOM + 22), f"{tick:.{decimals}f}", "middle"))
    return shapes


def _points(curve: Curve, shares: NDArray[np.float64], axis: _Axis) -> tuple[Point, ...]:
    """Return the points of a curve, one per pixel, from the left to the highest threshold that finds any pair."""
    thresholds = np.linspace(axis.low, axis.high, RIGHT - LEFT + 1)
    place = np.searchsorted(-curve.threshold, -(thresholds - 1e-9), side="right") - 1
    return tuple((axis.x(t), _y(shares[at])) for t, at in zip(thresholds, place, strict=True) if at >= 0)
