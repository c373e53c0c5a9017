"""The position of a query image in a photo."""

from dataclasses import dataclass, replace

import numpy as np

from vggsearch.defaults import KEYPOINTS

INLIERS_OF_HALF_SCORE = 10  # an alignment with so much evidence scores 0.5
EVIDENCE_OF_PIXELS = KEYPOINTS.grid**2  # that agree: more than keypoints alone can give
MIN_INLIERS = 4  # two matches determine a transform, so fewer are no evidence


@dataclass(frozen=True)
class Alignment:
    """The similarity transform that maps a query image onto a photo.

    `score` is in 0..1: how well the two images agree. `inliers` is the number of matches that agree with the
    transform. Between duplicates, `agreement` is the correlation, 0..1, of the pixels where nothing was put on one
    of the two, see matching.pixels; it is 0 if they do not agree everywhere there, or were not compared. The query
    is a copy of the photo, or of a region of it, that was first mirrored if `mirrored`, then rotated
    counter-clockwise by `turned` degrees, -180..180. `scale` is the square root of the query's area in the photo
    relative to the photo's area: 0.5 covers a quarter of the photo, 2 covers four times the photo. `corners` are
    the query's top-left, top-right, bottom-right and bottom-left corner in the photo, each (x, y) in fractions of
    the photo's width and height; they lie outside 0..1 where the query shows more than the photo.

    >>> match = index.query("photos/a.jpg", crop=(0, 0, 160, 120)).matches[0]
    >>> match.alignment is None or match.alignment.scale > 0
    True
    """

    score: float
    inliers: int
    mirrored: bool
    turned: float
    scale: float
    corners: tuple[tuple[float, float], ...]
    agreement: float = 0.0

    @property
    def evidence(self) -> int:
        """The weight of the evidence for a copy: the inliers, and EVIDENCE_OF_PIXELS more if the pixels agree."""
        return self.inliers + (EVIDENCE_OF_PIXELS if self.agreement else 0)


def score_of(evidence: int) -> float:
    """Return the score, 0..1, of an alignment with so much evidence."""
    return evidence / (evidence + INLIERS_OF_HALF_SCORE)


def with_agreement(alignment: Alignment, agreement: float) -> Alignment:
    """Return the same position with pixels that agree, and the score of that."""
    agreeing = replace(alignment, agreement=agreement)
    return replace(agreeing, score=score_of(agreeing.evidence))


def inverted(alignment: Alignment) -> Alignment:
    """Return the inverse: the position of the photo in the query."""
    left_top, right_top, _, left_bottom = (np.array(corner) for corner in alignment.corners)
    matrix = np.stack([right_top - left_top, left_bottom - left_top], axis=1)
    corners = np.linalg.solve(matrix, (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - left_top).T).T
    return replace(
        alignment,
        turned=alignment.turned if alignment.mirrored else -alignment.turned,
        scale=1 / alignment.scale,
        corners=tuple((float(x), float(y)) for x, y in corners),
    )
