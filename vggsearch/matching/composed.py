"""The position of one photo in another that follows from where both lie in a third one."""

import cv2
import numpy as np

from vggsearch.matching.alignment import Alignment, inverted, score_of, with_agreement

LEAST_AGREEMENT = 0.7  # product of both agreements, from which their pixels agree, too; see pixels.AGREEING
LEAST_COMMON = 0.5  # share of the smaller one that both show
MOSTLY = 0.97  # share of what both show that the third one shows, too: only that was compared
UNIT = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)  # corners of a photo, in fractions


def laid_by_common(query: Alignment, photo: Alignment) -> Alignment | None:
    """Return where a query lies in a photo, given where both lie in a third photo; None if that is not certain.

    It is certain if the pixels of both agree with those of the third, which shows all that the two have in common:
    what two screenshots show around one photo may differ.
    """
    agreement = query.agreement * photo.agreement
    if agreement < LEAST_AGREEMENT or not _is_common_inside(query, photo):
        return None
    return with_agreement(composed(query, inverted(photo)), agreement)


def composed(first: Alignment, then: Alignment) -> Alignment:
    """Return where a query lies in a photo, given where it lies in a third one, and the third one in the photo."""
    corners = np.array(then.corners)
    across, down = corners[1] - corners[0], corners[3] - corners[0]
    placed = np.array(first.corners) @ np.stack([across, down]) + corners[0]
    turned = then.turned + (-first.turned if then.mirrored else first.turned)
    inliers = min(first.inliers, then.inliers)
    return Alignment(
        score=score_of(inliers),
        inliers=inliers,
        mirrored=first.mirrored != then.mirrored,
        turned=(turned + 180) % 360 - 180,
        scale=first.scale * then.scale,
        corners=tuple((float(x), float(y)) for x, y in placed),
    )


def _is_common_inside(one: Alignment, other: Alignment) -> bool:
    """Return whether two areas have much in common, nearly all of it in the photo in which they lie."""
    areas = [cv2.convexHull(np.array(each.corners, np.float32)) for each in (one, other)]
    common, outline = cv2.intersectConvexConvex(areas[0], areas[1])
    if common < LEAST_COMMON * min(map(cv2.contourArea, areas)) or outline is None:
        return False
    inside, _ = cv2.intersectConvexConvex(cv2.convexHull(outline), UNIT)
    return inside >= MOSTLY * common
