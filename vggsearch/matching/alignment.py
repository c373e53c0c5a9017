"""Where in a found photo a query lies."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Alignment:
    """Where in the found photo the query lies.

    `score` is 0..1: how much the two pictures agree there. `inliers` is how many pairs of cells say so. The query
    is the found photo or a part of it, `mirrored` first, then `turned` counter-clockwise by degrees in -180..180.
    `scale` is its side there, measured by area: 0.5 is a quarter of the found photo, 2 four times as much.
    `corners` are its top-left, top-right, bottom-right and bottom-left corner there, each (x, y) in fractions of
    the found photo's width and height; outside 0..1 where the query shows more.
    """

    score: float
    inliers: int
    mirrored: bool
    turned: float
    scale: float
    corners: tuple[tuple[float, float], ...]


def inverted(alignment: Alignment) -> Alignment:
    """Return where in the query the found photo lies."""
    left_top, right_top, _, left_bottom = (np.array(corner) for corner in alignment.corners)
    matrix = np.stack([right_top - left_top, left_bottom - left_top], axis=1)
    corners = np.linalg.solve(matrix, (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - left_top).T).T
    return replace(
        alignment,
        turned=alignment.turned if alignment.mirrored else -alignment.turned,
        scale=1 / alignment.scale,
        corners=tuple((float(x), float(y)) for x, y in corners),
    )
