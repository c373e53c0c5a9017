"""Find the picture inside a frame, such as a white border, black bars, or the screen around it in a screenshot."""

import numpy as np
from numpy.typing import NDArray

FLAT = 7.0  # grey levels, standard deviation along a row or column of a frame, at most; JPEG leaves less
# Share of the area that the picture takes; with less there is no picture, with more no frame.
LEAST_SHARE, MOST_SHARE = 0.1, 0.93
ROUNDS = 2  # of rows and columns: columns may be of a frame only between the rows of the picture

Window = tuple[float, float, float, float]  # left, top, right, bottom, in fractions of width and height


def inside_frame(grey: NDArray[np.uint8]) -> Window | None:
    """Return where the picture lies inside its frame, None if it has no frame.

    It is the longest run of rows that are not of one grey level, and of columns within these. Rows with text or
    buttons are separated from it by the frame. In a photo with plain parts, it is what is between them.
    """
    top, bottom, left, right = 0, grey.shape[0], 0, grey.shape[1]
    for _ in range(ROUNDS):
        start, end = _longest_run(grey[top:bottom, left:right].std(axis=1) > FLAT)
        if start == end:
            return None
        top, bottom = top + start, top + end
        start, end = _longest_run(grey[top:bottom, left:right].std(axis=0) > FLAT)
        if start == end:
            return None
        left, right = left + start, left + end
    height, width = grey.shape
    share = (bottom - top) * (right - left) / (height * width)
    if not LEAST_SHARE <= share <= MOST_SHARE:
        return None
    return left / width, top / height, right / width, bottom / height


def _longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """Return start and end of the longest run of True, twice 0 if there is none."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    if not len(edges):
        return 0, 0
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return int(edges[2 * longest]), int(edges[2 * longest + 1])
