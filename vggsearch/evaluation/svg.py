"""Charts as SVG: the document with colours for light and dark, lines, words and dots."""

from collections.abc import Iterable
from typing import Literal

Ink = Literal["paper", "text", "faint", "precision", "recall"]
Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]

WIDTH, HEIGHT = 760, 480  # pixels
INKS: dict[Ink, tuple[str, str]] = {  # light, dark; blue and vermilion differ for the colour-blind, too
    "paper": ("#ffffff", "#16181c"),
    "text": ("#1f2328", "#e6e6e6"),
    "faint": ("#d4d7db", "#3a3f47"),
    "precision": ("#0072b2", "#56b4e9"),
    "recall": ("#d55e00", "#f0894a"),
}
SVG = """<svg{namespace} viewBox="0 0 {width} {height}" role="img" aria-label="{label}">
<style>
:root {{ color-scheme: light dark; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
svg {{ font-family: system-ui, sans-serif; background: var(--paper); }}
</style>
{shapes}
</svg>"""
NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # required in a file of its own, not within HTML


def document(label: str, shapes: Iterable[str], namespace: str = NAMESPACE) -> str:
    """Return a chart of WIDTH x HEIGHT; `label`, escaped, says what it shows."""
    light, dark = (" ".join(f"--{name}: {inks[side]};" for name, inks in INKS.items()) for side in (0, 1))
    lines = "\n".join(shapes)
    return SVG.format(
        namespace=namespace, width=WIDTH, height=HEIGHT, label=label, light=light, dark=dark, shapes=lines
    )


def start_of(label: str) -> str:
    """Return how every file begins whose label begins with `label`."""
    return SVG.partition('{label}"')[0].format(namespace=NAMESPACE, width=WIDTH, height=HEIGHT) + label


def line(points: tuple[Point, ...], ink: Ink, width: float = 1.0, more: str = "") -> str:
    """Return a line through points, with `more` attributes."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="var(--{ink})" stroke-width="{width}"{more}/>'


def text(at: Point, words: str, anchor: Anchor = "start", size: int = 13) -> str:
    """Return words, escaped, at a point of their base line."""
    place = f'x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="var(--text)">{words}</text>'


def dot(at: Point, ink: Ink) -> str:
    """Return a dot."""
    return f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4.5" fill="var(--{ink})"/>'
