"""Save precision and recall over the threshold: numbers as CSV, or a drawing as PNG or HTML.

A drawing is a list of lines, texts and dots, which both formats draw.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vggsearch.errors import OptionError
from vggsearch.evaluation.metrics import Curve

Ink = Literal["paper", "text", "faint", "precision", "recall"]
Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]

WIDTH, HEIGHT = 760, 480  # units: pixels of an HTML page, two pixels of a PNG
LEFT, RIGHT, TOP, BOTTOM = 64, 730, 120, 420  # of the plane that the curves are in
TICK_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MOST_TICKS = 10
PNG_SCALE, FINER = 2, 2  # drawn finer, then reduced, for smooth lines
DASH = 6
ANCHORS: dict[Anchor, str] = {"start": "ls", "middle": "ms", "end": "rs"}  # as Pillow calls them, on the base line
INKS: dict[Ink, tuple[str, str]] = {  # on light, on dark; blue and vermilion differ for the colour-blind too
    "paper": ("#ffffff", "#16181c"),
    "text": ("#1f2328", "#e6e6e6"),
    "faint": ("#d4d7db", "#3a3f47"),
    "precision": ("#0072b2", "#56b4e9"),
    "recall": ("#d55e00", "#f0894a"),
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Precision and recall</title>
<style>
:root {{ color-scheme: light dark; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); }}
svg {{ width: 100%; height: auto; font-family: system-ui, sans-serif; }}
</style>
</head>
<body>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">
{shapes}
</svg>
</body>
</html>
"""


@dataclass(frozen=True)
class Line:
    """From point to point, `width` units thick."""

    points: tuple[Point, ...]
    ink: Ink
    width: float = 1.0


@dataclass(frozen=True)
class Text:
    """One line, whose start, middle or end is at a point on its base line."""

    at: Point
    text: str
    anchor: Anchor = "start"
    size: int = 13


@dataclass(frozen=True)
class Dot:
    """A filled circle of `radius` units."""

    at: Point
    ink: Ink
    radius: float = 4.5


Shape = Line | Text | Dot


def check_curve_file(file: Path) -> None:
    """Raise OptionError where the name of a curve's file does not say its format."""
    if file.suffix.lower() not in _FORMATS:
        raise OptionError(f"{file} is no name for a curve: let it end in {', '.join(_FORMATS)}.")


def save_curve(curve: Curve, file: Path) -> None:
    """Write the curve as the name of the file says: `.csv` every threshold, `.png` and `.html` a drawing.

    The page is whole in itself. Raises OptionError where the file has another name or cannot be written.
    """
    check_curve_file(file)
    data = _FORMATS[file.suffix.lower()](curve)
    try:
        file.write_bytes(data)
    except OSError as error:
        raise OptionError(f"{file} cannot be written: {error.strerror}. Name another file.") from error


def _csv(curve: Curve) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["threshold", "precision", "recall"])
    writer.writerows(zip(curve.threshold.tolist(), curve.precision.tolist(), curve.recall.tolist(), strict=True))
    return text.getvalue().encode()


def _png(curve: Curve) -> bytes:
    scale = PNG_SCALE * FINER
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), INKS["paper"][0])
    pen = ImageDraw.Draw(image)
    for shape in _drawing(curve):
        match shape:
            case Line(points, ink, width):
                scaled = [(x * scale, y * scale) for x, y in points]
                pen.line(scaled, INKS[ink][0], round(width * scale), joint="curve")
            case Text((x, y), words, anchor, size):
                font = ImageFont.load_default(size * scale)
                pen.text((x * scale, y * scale), words, INKS["text"][0], font, ANCHORS[anchor])
            case Dot((x, y), ink, radius):
                pen.circle((x * scale, y * scale), radius * scale, INKS[ink][0])
    file = io.BytesIO()
    image.reduce(FINER).save(file, "PNG", optimize=True)
    return file.getvalue()


def _html(curve: Curve) -> bytes:
    light, dark = (" ".join(f"--{name}: {inks[side]};" for name, inks in INKS.items()) for side in (0, 1))
    shapes = "\n".join(_svg(shape) for shape in _drawing(curve))
    label = f"Precision and recall over the threshold. {_note(curve)}"
    page = PAGE.format(light=light, dark=dark, width=WIDTH, height=HEIGHT, label=label, shapes=shapes)
    return page.encode()


def _svg(shape: Shape) -> str:
    match shape:
        case Line(points, ink, width):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            return f'<polyline points="{path}" fill="none" stroke="var(--{ink})" stroke-width="{width}"/>'
        case Text((x, y), words, anchor, size):
            place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
            return f'<text {place} fill="var(--text)">{words}</text>'
        case Dot((x, y), ink, radius):
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="var(--{ink})"/>'


_FORMATS = {".csv": _csv, ".png": _png, ".html": _html}


@dataclass(frozen=True)
class _Axis:
    """Thresholds from left to right, and where ticks are."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, threshold: float) -> float:
        return LEFT + (RIGHT - LEFT) * (threshold - self.low) / (self.high - self.low)


def _axis(curve: Curve) -> _Axis:
    """Return the thresholds worth showing: those below which no right pair is left to be found are not."""
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


def _drawing(curve: Curve) -> list[Shape]:
    axis = _axis(curve)
    shapes: list[Shape] = [
        Text((LEFT, 28), "Precision and recall of all pairs", size=18),
        Text((LEFT, 52), _note(curve)),
        *_legend(LEFT, "precision", "precision: found pairs that are right"),
        *_legend(LEFT + 280, "recall", "recall: right pairs that are found"),
        *_grid(axis),
        Text((16, TOP - 14), "share of pairs"),
        Text(
            ((LEFT + RIGHT) / 2, BOTTOM + 46), "threshold: similarity from which a pair counts as found", "middle"
        ),
    ]
    if len(curve.threshold) == 0:
        return shapes
    at = curve.at_p99()
    if at is not None:
        shapes += _dashed(axis.x(curve.threshold[at]))
    shapes += [
        Line(_points(curve, curve.recall, axis), "recall", 2.5),
        Line(_points(curve, curve.precision, axis), "precision", 2.5),
    ]
    if at is not None:
        x = axis.x(curve.threshold[at])
        shapes += [Dot((x, _y(curve.recall[at])), "recall"), Dot((x, _y(curve.precision[at])), "precision")]
    return shapes


def _note(curve: Curve) -> str:
    at = curve.at_p99()
    if at is None:
        return "No threshold reaches a precision of 99 %."
    percent = 100 * curve.recall[at]
    return f"At threshold {curve.threshold[at]:.4f}, precision is 99 % or more and recall {percent:.1f} %."


def _legend(x: float, ink: Ink, words: str) -> list[Shape]:
    return [Line(((x, 74), (x + 24, 74)), ink, 2.5), Text((x + 32, 78), words)]


def _grid(axis: _Axis) -> list[Shape]:
    shapes: list[Shape] = []
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        shapes += [Line(((LEFT, y), (RIGHT, y)), "faint"), Text((LEFT - 8, y + 4), f"{percent} %", "end")]
    decimals = max(len(f"{tick:g}".partition(".")[2]) for tick in axis.ticks)
    for tick in axis.ticks:
        x = axis.x(tick)
        shapes += [Line(((x, BOTTOM), (x, BOTTOM + 5)), "text")]
        shapes += [Text((x, BOTTOM + 22), f"{tick:.{decimals}f}", "middle")]
    return shapes


def _dashed(x: float) -> list[Shape]:
    return [Line(((x, y), (x, min(y + DASH, BOTTOM))), "text") for y in range(TOP, BOTTOM, 2 * DASH)]


def _points(curve: Curve, shares: NDArray[np.float64], axis: _Axis) -> tuple[Point, ...]:
    """Return where a curve goes, one point a unit, from the left to where nothing is found."""
    thresholds = np.linspace(axis.low, axis.high, RIGHT - LEFT + 1)
    place = np.searchsorted(-curve.threshold, -(thresholds - 1e-9), side="right") - 1
    return tuple((axis.x(t), _y(shares[at])) for t, at in zip(thresholds, place, strict=True) if at >= 0)
