"""Find the position of one image in another: match the cells of their feature maps and estimate one transform.

A cell is one position of the feature map before pool5, described by a unit vector. Two cells that are each other's
nearest neighbour are a match. Matches vote for a scale, a rotation and a translation; those that agree with the
winner are its inliers. This is the weak geometric consistency of Jegou, Douze & Schmid, "Hamming embedding and weak
geometric consistency for large scale image search", ECCV 2008, section 4, except that the translation is voted for
too, as in Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, section 7.3.

The features of a network are not invariant to mirroring or right-angle rotations, and hardly to a factor of two in
scale. So a query is given in up to eight orientations, and at a second, coarser scale: things are larger in a crop.
A photo at a second scale, in which a collage would find its parts, found one of 25 collages more and nothing else.

In this module a point of an image is a complex number: x to the right, y down, from the centre, in units in which
the area of the image is 1. Whatever the two aspect ratios, an edited copy is then a * point + b: scaled by |a|,
rotated by arg a, translated by b.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.knn.vectors import unit_rows
from vggsearch.matching.alignment import MIN_INLIERS, Alignment

Cells: TypeAlias = NDArray[np.float32]
Levels: TypeAlias = tuple[Cells, ...]  # of one image at its size and, of a query, at half of it
Points: TypeAlias = NDArray[np.complex128]
Window: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom
Number = TypeVar("Number", bound=np.generic)

# (counter-clockwise quarter turns, mirrored first or not), most frequent first: callers may try only the first few.
ORIENTATIONS = (
    (0, False),
    (0, True),
    (1, False),
    (3, False),
    (2, False),
    (1, True),
    (3, True),
    (2, True),
)
FULL_IMAGE: Window = (0.0, 0.0, 1.0, 1.0)

SCALES = 2.0 ** (np.arange(-5, 6) / 3)  # 0.3 to 3.2; one step moves a cell at the border by about one cell
ROTATIONS = np.deg2rad([-10.0, 0.0, 10.0])  # besides right angles; features tolerate no more than these
TRANSFORMS = (SCALES[:, None] * np.exp(1j * ROTATIONS)).ravel()
BIN_SIZE = 4 / 3  # cells; each match votes for its four nearest bins, weighted by proximity
INLIER_RADIUS = 1.5  # cells between a point and its transformed partner; weight falls with the distance
ORIENTATIONS_TRIED = 2  # only the matches of the best-matching orientations vote
PEAKS_TRIED = 3  # pairs of scale and rotation with the most votes, which are fitted
REFINEMENTS = 2  # rounds of least squares, each on the inliers of the round before
MIN_STRENGTH = 2.0  # a lower strength occurs by chance
MIN_SCALE, MAX_SCALE = 0.2, 5.0  # of a plausible transform
QUANTISATION_LEVELS = 127  # int8 value of 1.0 in a stored cell
STRENGTH_OF_HALF_SCORE = 8.0  # one in a hundred unrelated but similar photos reaches it


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """The cells of one image, as given to the network.

    `levels` are float32 (rows, columns, d) of unit vectors, the finest first; the second, of a query, is computed
    from the image at half the size. `aspect` is the width of the photo divided by its height. `window` is the
    region of the photo that the square network input shows: left, top, right, bottom in fractions of the photo's
    width and height; outside 0..1 where it was padded.
    """

    levels: Levels
    aspect: float
    window: Window = FULL_IMAGE


@dataclass(frozen=True, eq=False)
class _View:
    """An image in one orientation: the cells of all levels (n, d), their points, and how many each level has."""

    cells: Cells
    points: Points
    counts: tuple[int, ...]
    side: float  # of a cell of the finest level, in the unit of points
    is_shown: NDArray[np.bool_]  # False for padding


@dataclass(frozen=True, eq=False)
class _Matches:
    """Cells that are each other's nearest neighbour: their points in query and candidate, and the match weights.

    The weight is the squared similarity, since chance matches are many but weak.
    """

    query: Points
    candidate: Points
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class _Fit:
    """The transform `rotation_scale` * point + `shift`, the number of its inliers, and the sum of their weights."""

    rotation_scale: complex
    shift: complex
    inliers: int
    strength: float


def apply_orientation(square: NDArray[Number], orientation: tuple[int, bool]) -> NDArray[Number]:
    """Bring an upright array (rows, columns, ...) into one of ORIENTATIONS: mirror it or not, then rotate it."""
    turns, is_mirrored = orientation
    return np.rot90(square[:, ::-1] if is_mirrored else square, turns)


def align_many(query: Sequence[LocalFeatures], candidates: Iterable[LocalFeatures]) -> list[Alignment | None]:
    """Return the position of the query in each candidate, None where too few cells agree.

    `query[i]` holds the cells of the query's square in ORIENTATIONS[i]; aspect and window are those of the upright
    query. One orientation finds upright copies, two also mirrored ones, four also copies rotated by 90 degrees to
    either side, eight all. Raises OptionError if the cells of query and candidate differ in dimensions.
    """
    views = [_view(*oriented) for oriented in zip(query, ORIENTATIONS, strict=False)]
    cells = np.concatenate([view.cells for view in views])
    return [_align(query[0].aspect, views, cells, candidate) for candidate in candidates]


def _align(aspect: float, views: Sequence[_View], cells: Cells, features: LocalFeatures) -> Alignment | None:
    candidate = _view(features, ORIENTATIONS[0])
    query_dimensions, candidate_dimensions = cells.shape[1], candidate.cells.shape[1]
    if query_dimensions != candidate_dimensions:
        raise OptionError(
            f"Cells of {query_dimensions} dimensions cannot be matched with cells of {candidate_dimensions}. "
            "Compute both with the same weights."
        )
    similarities = (cells @ candidate.cells.T).reshape(len(views), -1, len(candidate.cells))
    matches = _match(similarities, views, candidate)
    tried = sorted(range(len(views)), key=lambda index: -matches[index].weights.sum())[:ORIENTATIONS_TRIED]
    fits = [(_fit(matches[index], views[index].side, candidate.side), index) for index in tried]
    fit, best = max(fits, key=lambda pair: pair[0].strength)
    if fit.inliers < MIN_INLIERS or fit.strength < MIN_STRENGTH:
        return None
    return _alignment(fit, ORIENTATIONS[best], aspect, features.aspect)


def _view(features: LocalFeatures, orientation: tuple[int, bool]) -> _View:
    """Assign each cell its point. The image was brought into `orientation` before it was given to the network."""
    left, top, right, bottom = features.window
    sides = _sides(features.aspect)
    points, shown = [], []
    for level in features.levels:
        rows, columns = apply_orientation(level[:, :, 0], (-orientation[0] % 2, False)).shape
        x = left + (np.arange(columns) + 0.5) / columns * (right - left)
        y = top + (np.arange(rows) + 0.5) / rows * (bottom - top)
        upright = (x - 0.5) * sides[0] + 1j * (y[:, None] - 0.5) * sides[1]
        is_inside = (abs(x - 0.5) < 0.5) & (abs(y[:, None] - 0.5) < 0.5)
        points.append(_orient_points(apply_orientation(upright, orientation), orientation).ravel())
        shown.append(apply_orientation(is_inside, orientation).ravel())
    dimensions = features.levels[0].shape[2]
    return _View(
        cells=np.concatenate([level.reshape(-1, dimensions) for level in features.levels]),
        points=np.concatenate(points),
        counts=tuple(map(len, points)),
        side=float(np.sqrt((right - left) * (bottom - top) / len(points[0]))),
        is_shown=np.concatenate(shown),
    )


def _match(similarities: Cells, views: Sequence[_View], candidate: _View) -> list[_Matches]:
    """Return, for each view, the cells that are each other's nearest neighbour, over all pairs of levels."""
    found = []
    for rows, columns in _level_pairs(views[0].counts, candidate.counts):
        block = similarities[:, rows, columns]
        nearest, back = block.argmax(axis=2), block.argmax(axis=1)
        is_mutual = np.take_along_axis(back, nearest, axis=1) == np.arange(block.shape[1])
        of_view, row = np.nonzero(is_mutual)
        found.append((of_view, row + rows.start, nearest[is_mutual] + columns.start))
    of_view, of_query, of_candidate = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    weights = np.maximum(similarities[of_view, of_query, of_candidate], 0).astype(np.float64) ** 2
    matches = []
    for index, view in enumerate(views):
        its = np.flatnonzero((of_view == index) & (weights > 0))
        its = its[view.is_shown[of_query[its]] & candidate.is_shown[of_candidate[its]]]
        matches.append(_Matches(view.points[of_query[its]], candidate.points[of_candidate[its]], weights[its]))
    return matches


def _level_pairs(query: Sequence[int], candidate: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return rows and columns of each pair of levels to match: all but two coarse levels, which add nothing."""
    rows, columns = (
        [slice(end - count, end) for count, end in zip(counts, np.cumsum(counts).tolist(), strict=True)]
        for counts in (query, candidate)
    )
    return [(row, columns[0]) for row in rows] + [(rows[0], column) for column in columns[1:]]


def _fit(matches: _Matches, query_side: float, candidate_side: float) -> _Fit:
    """Return the transform with the greatest inlier strength: voted for, then refined by least squares."""

    def evaluate(rotation_scale: complex, shift: complex) -> tuple[_Fit, NDArray[np.float64]]:
        radius = INLIER_RADIUS * max(candidate_side, abs(rotation_scale) * query_side)
        errors = np.abs(rotation_scale * matches.query + shift - matches.candidate) / radius
        weights = matches.weights * np.maximum(1 - errors**2, 0)
        return _Fit(rotation_scale, shift, int((errors < 1).sum()), float(weights.sum())), weights

    best = _Fit(1.0, 0.0, 0, 0.0)
    for peak in _peaks(matches, candidate_side):
        fit, weights = evaluate(*peak)
        for _ in range(REFINEMENTS):
            refined, refined_weights = evaluate(*_least_squares(matches, weights, peak))
            if refined.strength <= fit.strength:
                break
            fit, weights = refined, refined_weights
        best = max(best, fit, key=lambda each: each.strength)
    return best


def _peaks(matches: _Matches, side: float) -> list[tuple[complex, complex]]:
    """Let each match vote, at every scale and rotation, for the shift it implies; return the best transforms."""
    bin_side = BIN_SIZE * side * np.maximum(1, np.abs(TRANSFORMS))
    shifts = (matches.candidate - TRANSFORMS[:, None] * matches.query) / bin_side[:, None]
    half = int(np.abs(shifts.view(np.float64)).max(initial=0)) + 2
    width = 2 * half
    shifts += half * (1 + 1j)
    x, y = shifts.real.astype(np.int64), shifts.imag.astype(np.int64)
    right, below = shifts.real - x, shifts.imag - y
    bins = (np.arange(len(TRANSFORMS))[:, None] * width + y) * width + x
    share = matches.weights * right
    rest = matches.weights - share
    votes = np.bincount(
        np.concatenate([bins, bins + 1, bins + width, bins + width + 1], axis=None),
        np.concatenate([rest * (1 - below), share * (1 - below), rest * below, share * below], axis=None),
        len(TRANSFORMS) * width * width,
    )
    votes = votes.reshape(len(TRANSFORMS), -1)
    fullest = votes.argmax(axis=1)
    best = np.argsort(-votes[np.arange(len(TRANSFORMS)), fullest], kind="stable")[:PEAKS_TRIED]
    row, column = np.divmod(fullest[best], width)
    best_shifts = ((column - half) + 1j * (row - half)) * bin_side[best]
    return list(zip(TRANSFORMS[best].tolist(), best_shifts.tolist(), strict=True))


def _least_squares(
    matches: _Matches, weights: NDArray[np.float64], fallback: tuple[complex, complex]
) -> tuple[complex, complex]:
    """Return the weighted least-squares similarity transform without reflection: Umeyama, TPAMI 1991, in the plane.

    Returns `fallback` where the matches do not determine one or its scale is implausible.
    """
    total = weights.sum()
    if total == 0:
        return fallback
    query_mean, candidate_mean = weights @ matches.query / total, weights @ matches.candidate / total
    centred = matches.query - query_mean
    variance = weights @ np.abs(centred) ** 2
    if variance == 0:
        return fallback
    rotation_scale = complex(weights @ (centred.conj() * (matches.candidate - candidate_mean)) / variance)
    if not MIN_SCALE < abs(rotation_scale) < MAX_SCALE:
        return fallback
    return rotation_scale, complex(candidate_mean - rotation_scale * query_mean)


def encode(cells: Cells) -> NDArray[np.int8]:
    """Quantise cells to int8 for storage: with the packaged weights, 64 bytes per cell and 9 kB per photo."""
    return np.rint(cells * QUANTISATION_LEVELS).astype(np.int8)


def decode(stored: NDArray[np.int8]) -> Cells:
    """Return stored cells as float32 unit vectors; a zero vector stays zero."""
    return unit_rows(stored)


def _alignment(fit: _Fit, orientation: tuple[int, bool], query_aspect: float, aspect: float) -> Alignment:
    turns, is_mirrored = orientation
    width, height = _sides(query_aspect)
    upright = np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j])
    upright = (upright.real * width + 1j * upright.imag * height) / 2
    corners = fit.rotation_scale * _orient_points(upright, orientation) + fit.shift
    width, height = _sides(aspect)
    turned = np.angle(fit.rotation_scale * (-1j) ** turns, deg=True)
    return Alignment(
        score=fit.strength / (fit.strength + STRENGTH_OF_HALF_SCORE),
        inliers=fit.inliers,
        mirrored=is_mirrored,
        turned=float(-turned if is_mirrored else turned),
        scale=abs(fit.rotation_scale),
        corners=tuple((float(z.real / width + 0.5), float(z.imag / height + 0.5)) for z in corners),
    )


def _sides(aspect: float) -> tuple[float, float]:
    """Return the width and height of an image of area 1."""
    width = float(np.sqrt(aspect))
    return width, 1 / width


def _orient_points(points: Points, orientation: tuple[int, bool]) -> Points:
    """Return the points of an upright image after it was brought into `orientation`."""
    turns, is_mirrored = orientation
    oriented: Points = (-points.conj() if is_mirrored else points) * (-1j) ** turns
    return oriented
