"""What a photo shows around the area in which another image lies: more of the scene, a frame, or other pictures.

A crop continues beyond its edges in the photo that it was cut from. The edges of a photo that somebody put into a
collage, a frame or a screenshot are a seam: grey levels change more across them than across any parallel line.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import SURROUNDINGS
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.common_part import CommonPart

BESIDE = SURROUNDINGS.margin + 1  # pixels from an edge, at which what is on both sides of it is compared

Corner = tuple[float, float]


class Around(Enum):
    """What a photo shows around an area."""

    NOTHING = "nothing"
    SCENE = "more of the scene"
    FRAME = "a frame"
    DRAWN = "something drawn, perhaps a frame"
    OTHERS = "other pictures"
    UNCLEAR = "unclear"


def around(photo: NDArray[np.uint8], alignment: Alignment) -> Around:
    """Return what a photo shows around the image that lies in it.

    `photo`, uint8 (height, width), is grey, with SURROUNDINGS.pixels on the longer side.
    """
    height, width = photo.shape
    corners = np.array(alignment.corners, np.float32) * np.array([width, height], np.float32)
    if _covers(corners, width, height):
        return Around.NOTHING
    outside = _outside(photo, corners)
    share = cv2.countNonZero(outside) / outside.size
    if share < SURROUNDINGS.least_share:
        return Around.NOTHING
    edges = list(_across_edges(photo, corners))
    continuity = _continuity(edges)
    if continuity >= SURROUNDINGS.surely_goes_on:
        return Around.SCENE  # also where something in it, such as a pole, is parallel to an edge, as a seam is
    textured, plain = _textured_and_plain(photo, outside)
    seam = _seam(edges)
    is_drawn = plain >= SURROUNDINGS.plain  # a photo has noise, even in the sky
    is_other = textured >= SURROUNDINGS.textured and share >= SURROUNDINGS.share_of_others
    if continuity >= SURROUNDINGS.goes_on and not (is_other and seam >= SURROUNDINGS.seam):
        return Around.SCENE
    is_beside_another = continuity < SURROUNDINGS.hardly_goes_on and _texture_changes(edges)
    if is_other and is_beside_another:
        return Around.OTHERS
    breaks_off = is_other and continuity < SURROUNDINGS.breaks_off and _goes_on_beside(edges)
    if is_other and (is_drawn or seam >= SURROUNDINGS.seam or (breaks_off and seam > -SURROUNDINGS.no_seam)):
        return Around.OTHERS
    if seam >= SURROUNDINGS.seam:
        is_frame = is_drawn or textured < SURROUNDINGS.textured or continuity < SURROUNDINGS.breaks_off
        return Around.FRAME if is_frame else Around.UNCLEAR  # the edge of something in a scene is a seam, too
    if textured <= SURROUNDINGS.flat:
        return Around.NOTHING
    if is_drawn:
        return Around.DRAWN  # a dark photo on a dark screen has no seam
    return Around.SCENE if seam <= SURROUNDINGS.no_seam and not breaks_off else Around.UNCLEAR


def show_others(query: NDArray[np.uint8], photo: NDArray[np.uint8], alignment: Alignment, part: CommonPart) -> bool:
    """Return whether a query was cropped to fit where it lies in a photo, and other pictures are around it there.

    Both are as for `around`, and `part` is what the photo shows of the query. The other pictures may also be in
    the query, around a part of the photo: their edge is a seam, or what is around the part is much of both, and
    differs.
    """
    is_clear = part.agreement > SURROUNDINGS.agreement and part.by_chance <= SURROUNDINGS.by_chance
    if part.hidden <= SURROUNDINGS.hardly_hidden or not is_clear:
        return False
    left, top, right, bottom = part.box
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    origin, across, _, down = np.array(alignment.corners, np.float32)
    placed = origin + box @ np.stack([across - origin, down - origin])
    places = [(each, np.asarray(at * each.shape[::-1], np.float32)) for each, at in ((query, box), (photo, placed))]
    with_others = [place for place in places if _has_others_around(*place)]
    if len(with_others) == len(places) and part.hidden > SURROUNDINGS.hidden:
        return True
    return any(
        _seam(_across_edges(*place, SURROUNDINGS.reach_of_part), SURROUNDINGS.margin_of_part)
        >= SURROUNDINGS.seam_of_part
        for place in with_others
    )


def _has_others_around(photo: NDArray[np.uint8], corners: NDArray[np.float32]) -> bool:
    """Return whether much of a photo is outside an area and has texture."""
    outside = _outside(photo, corners)
    is_large = cv2.countNonZero(outside) >= SURROUNDINGS.share_of_others * outside.size
    return bool(is_large and _textured_and_plain(photo, outside)[0] >= SURROUNDINGS.textured)


def _covers(corners: NDArray[np.float32], width: int, height: int) -> bool:
    """Return whether an area holds all of a photo but a margin, so that nothing is outside: most copies do."""
    margin = SURROUNDINGS.margin - 1  # corners are rounded to pixels
    right, bottom = width - 1 - margin, height - 1 - margin
    places = np.array([(margin, margin), (right, margin), (right, bottom), (margin, bottom)], np.float32)
    edges, offsets = np.roll(corners, -1, axis=0) - corners, places[:, None] - corners
    sides = edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0]
    return bool((sides >= 0).all() or (sides <= 0).all())


def _outside(photo: NDArray[np.uint8], corners: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return which pixels lie outside an area, 255 or 0, without a margin where an alignment may be wrong."""
    mask = np.full(photo.shape, 255, np.uint8)
    # Coordinates far outside overflow in OpenCV.
    bounded = np.clip(np.rint(corners), -10 * SURROUNDINGS.pixels, 10 * SURROUNDINGS.pixels).astype(np.int32)
    cv2.fillConvexPoly(mask, bounded, (0,))
    side = 2 * SURROUNDINGS.margin + 1
    return np.asarray(cv2.erode(mask, np.ones((side, side), np.uint8)), np.uint8)


def _textured_and_plain(photo: NDArray[np.uint8], outside: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the share of the square fields outside that have texture, and of those without even noise."""
    side = SURROUNDINGS.field
    rows, columns = photo.shape[0] // side, photo.shape[1] // side
    if not rows or not columns:
        return 0.0, 0.0
    whole = np.s_[: rows * side, : columns * side]
    chosen = cv2.resize(outside[whole], (columns, rows), interpolation=cv2.INTER_AREA) > 0.9 * 255
    fields = photo[whole].reshape(rows, side, columns, side).transpose(0, 2, 1, 3)[chosen]
    if not len(fields):
        return 0.0, 0.0
    deviations = fields.reshape(len(fields), -1).astype(np.float32).std(axis=1)
    return float(np.mean(deviations > SURROUNDINGS.deviation)), float(np.mean(deviations < SURROUNDINGS.noise))


def share_outside(alignment: Alignment) -> float:
    """Return the share of a photo, 0..1, outside the image that lies in it."""
    corners = np.array(alignment.corners, np.float32)
    hull = cv2.convexHull(np.clip(corners, -100, 100))
    covered, _ = cv2.intersectConvexConvex(hull, np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32))
    return 1 - float(covered)


def _seam(edges: Iterable[NDArray[np.float32]], margin: int = SURROUNDINGS.margin) -> float:
    """Return how much more grey levels change across the edges of an area than across lines parallel to them.

    The edges, see `_across_edges`, may be wrong by `margin` pixels. It is the natural logarithm of the ratio, the
    mean over the edges by length; 0 if there are none.
    """
    ratios, lengths = [], []
    for levels in edges:
        steps = np.abs(np.diff(levels, axis=0)).mean(axis=1)
        middle = len(steps) // 2
        near = steps[middle - margin : middle + margin].max()
        far = np.concatenate([steps[: middle - margin - 2], steps[middle + margin + 2 :]]).max()
        ratios.append(np.log(max(near, 1.0) / max(far, 1.0)))
        lengths.append(levels.shape[1])
    return float(np.average(ratios, weights=lengths)) if ratios else 0.0


def _texture_changes(edges: Sequence[NDArray[np.float32]]) -> bool:
    """Return whether the texture differs on both sides of the edges of an area, in the mean by their length."""
    near, far = SURROUNDINGS.beside
    ratios, lengths = [], []
    for levels in edges:
        steps = np.abs(np.diff(levels, axis=0)).mean(axis=1)
        middle = len(steps) // 2
        before, beyond = steps[middle - far : middle - near].mean(), steps[middle + near : middle + far].mean()
        ratios.append(abs(float(np.log(max(before, 1.0) / max(beyond, 1.0)))))
        lengths.append(levels.shape[1])
    return bool(ratios) and bool(np.average(ratios, weights=lengths) >= SURROUNDINGS.other_texture)


def _continuity(edges: Iterable[NDArray[np.float32]], one: int = -BESIDE, other: int = BESIDE) -> float:
    """Return the correlation of what is on two lines along an edge, the highest of all edges where both vary.

    The lines are so many pixels from the edge, by default on both sides of it. It is -1 if there is none.
    """
    highest = -1.0
    for levels in edges:
        lines = levels[[len(levels) // 2 + one, len(levels) // 2 + other]]
        if lines.shape[1] > 2 and lines.std(axis=1).min() >= SURROUNDINGS.deviation:
            highest = max(highest, float(np.asarray(np.corrcoef(lines))[0, 1]))
    return highest


def _goes_on_beside(edges: Iterable[NDArray[np.float32]]) -> bool:
    """Return whether on any side of an edge, what is there goes on as far as across it: fine texture does not."""
    return any(_continuity(edges, side * BESIDE, side * 3 * BESIDE) >= SURROUNDINGS.breaks_off for side in (-1, 1))


def _across_edges(
    photo: NDArray[np.uint8], corners: NDArray[np.float32], reach: int = SURROUNDINGS.reach
) -> Iterator[NDArray[np.float32]]:
    """Yield the grey levels along lines across each edge that is inside the photo: (offset, place on the edge)."""
    (height, width), levels = photo.shape, photo.astype(np.float32)
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = end - start
        length = float(np.hypot(*edge))
        if not 1 < length < 100 * SURROUNDINGS.pixels:
            continue
        normal = np.array([-edge[1], edge[0]], np.float32) / length
        places = np.linspace(0.05, 0.95, SURROUNDINGS.places, dtype=np.float32)
        points = start + places[:, None] * edge + offsets[:, None, None] * normal
        is_inside = ((points >= 1) & (points <= (width - 2, height - 2))).all(axis=(0, 2))
        if is_inside.mean() >= SURROUNDINGS.least_edge:
            at = points[:, is_inside]
            yield cv2.remap(levels, at[..., 0], at[..., 1], cv2.INTER_LINEAR).astype(np.float32)
