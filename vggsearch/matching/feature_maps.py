"""Where in another photo a picture lies: cells of two feature maps matched, and one transform that most agree on.

A cell is one place of the map before pool5, a unit vector of a few numbers. Cells that are each other's nearest are
a match; matches vote for a scale, a turn and a shift; those that agree with the winner are its inliers. It is the
weak geometric consistency of Jegou, Douze & Schmid, "Hamming embedding and weak geometric consistency for large
scale image search", ECCV 2008, section 4, with the shift voted for too, as in Lowe, "Distinctive image features
from scale-invariant keypoints", IJCV 2004, section 7.3.

A network knows a thing neither mirrored nor lying on its side, and hardly at twice its size. So a query comes in up
to eight orientations, and both pictures may come at a second, coarser scale.

Within, a place in a picture is a complex number: x to the right, y down, from its centre, in units in which its
area is 1. There, whatever the shapes of the two, an edited copy is a * place + b: scaled by |a|, turned by arg a.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.matching.alignment import Alignment

Cells: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.complex128]
Window: TypeAlias = tuple[float, float, float, float]
Number = TypeVar("Number", bound=np.generic)

# Quarter turns to the left, after a mirroring or none. Likeliest first, since a few may do.
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
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)

SCALES = 2.0 ** (np.arange(-5, 6) / 3)  # 0.3 to 3.2: steps that a cell at the rim feels as one cell
TURNS = np.deg2rad([-10.0, 0.0, 10.0])  # left over after a right-angle turn; a network knows no more than that
GRID = (SCALES[:, None] * np.exp(1j * TURNS)).ravel()
BIN = 4 / 3  # cells; a match votes for the four nearest, by how near they are
REACH = 1.5  # cells from where the transform puts it that an inlier may lie; the further, the less it counts
VIEWS_TRIED = 2  # orientations with the strongest matches that get to vote
PEAKS_TRIED = 3  # scales and turns with the most votes that are fitted
FITS = 2  # rounds of least squares, each on the inliers of the last
FEWEST = 4  # inliers; two fix a transform, so fewer would be no evidence
WEAKEST = 2.0  # strength; less is chance
SMALLEST, LARGEST = 0.2, 5.0  # scale of a transform that is believed
LEVELS = 127  # of a stored number, which is -1..1
HALF = 8.0  # strength that scores 0.5; one in a hundred unrelated photos that look alike has it


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """The cells of one picture as the network saw it.

    `levels` are float32 (rows, columns, d) of unit vectors, the finest first; a second one may come from the
    picture at half the size. `aspect` is the photo's width over its height. `window` is what the square shows of
    the photo: left, top, right, bottom in fractions of its width and height; outside 0..1 where it was padded.
    """

    levels: tuple[Cells, ...]
    aspect: float
    window: Window = WHOLE


@dataclass(frozen=True, eq=False)
class _View:
    """A picture in one orientation: the cells of all levels (n, d), their places, and how many each level has."""

    cells: Cells
    places: Places
    counts: tuple[int, ...]
    side: float  # of a cell of the finest level, as places are measured
    is_shown: NDArray[np.bool_]  # what is padding is not


@dataclass(frozen=True, eq=False)
class _Matches:
    """Cells that are each other's nearest: their places in query and candidate, and what each match weighs.

    That is the square of the similarity: matches by chance are many, and weak.
    """

    query: Places
    candidate: Places
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class _Fit:
    """The transform `turn_scale` * place + `shift`, how many matches agree, and the sum of their weights."""

    turn_scale: complex
    shift: complex
    inliers: int
    strength: float


def orient(square: NDArray[Number], orientation: tuple[int, bool]) -> NDArray[Number]:
    """Return a picture (rows, columns, ...) mirrored or not, then turned left by quarters, as ORIENTATIONS says."""
    turns, is_mirrored = orientation
    return np.rot90(square[:, ::-1] if is_mirrored else square, turns)


def align_many(query: Sequence[LocalFeatures], candidates: Iterable[LocalFeatures]) -> list[Alignment | None]:
    """Say of each candidate where in it the query lies; None where too few cells agree.

    `query[i]` holds the cells of the query's square in ORIENTATIONS[i]; aspect and window are the upright query's.
    One finds upright copies, two also mirrored ones, four those that lie on a side, eight all.
    Raises OptionError where the cells of the two have not as many numbers.
    """
    views = [_view(*oriented) for oriented in zip(query, ORIENTATIONS, strict=False)]
    cells = np.concatenate([view.cells for view in views])
    return [_align(query[0].aspect, views, cells, candidate) for candidate in candidates]


def _align(aspect: float, views: Sequence[_View], cells: Cells, features: LocalFeatures) -> Alignment | None:
    candidate = _view(features, ORIENTATIONS[0])
    asked, held = cells.shape[1], candidate.cells.shape[1]
    if asked != held:
        raise OptionError(f"Cells of {asked} numbers cannot be matched with cells of {held}. Make both alike.")
    similarities = (cells @ candidate.cells.T).reshape(len(views), -1, len(candidate.cells))
    matches = _match(similarities, views, candidate)
    tried = sorted(range(len(views)), key=lambda number: -matches[number].weights.sum())[:VIEWS_TRIED]
    fits = [(_fit(matches[number], views[number].side, candidate.side), number) for number in tried]
    fit, number = max(fits, key=lambda found: found[0].strength)
    if fit.inliers < FEWEST or fit.strength < WEAKEST:
        return None
    return _alignment(fit, ORIENTATIONS[number], aspect, features.aspect)


def _view(features: LocalFeatures, orientation: tuple[int, bool]) -> _View:
    """Lay the cells of a picture that was oriented before the network saw it over the places where they are."""
    left, top, right, bottom = features.window
    sides = _sides(features.aspect)
    places, shown = [], []
    for level in features.levels:
        rows, columns = orient(level[:, :, 0], (-orientation[0] % 2, False)).shape
        x = left + (np.arange(columns) + 0.5) / columns * (right - left)
        y = top + (np.arange(rows) + 0.5) / rows * (bottom - top)
        upright = (x - 0.5) * sides[0] + 1j * (y[:, None] - 0.5) * sides[1]
        is_inside = (abs(x - 0.5) < 0.5) & (abs(y[:, None] - 0.5) < 0.5)
        places.append(_oriented(orient(upright, orientation), orientation).ravel())
        shown.append(orient(is_inside, orientation).ravel())
    numbers = features.levels[0].shape[2]
    return _View(
        cells=np.concatenate([level.reshape(-1, numbers) for level in features.levels]),
        places=np.concatenate(places),
        counts=tuple(len(of_level) for of_level in places),
        side=float(np.sqrt((right - left) * (bottom - top) / len(places[0]))),
        is_shown=np.concatenate(shown),
    )


def _match(similarities: Cells, views: Sequence[_View], candidate: _View) -> list[_Matches]:
    """Find, in each view, the cells that are each other's nearest: finest to finest, and to coarser either way."""
    found = []
    for rows, columns in _level_pairs(views[0].counts, candidate.counts):
        block = similarities[:, rows, columns]
        nearest, back = block.argmax(axis=2), block.argmax(axis=1)
        is_mutual = np.take_along_axis(back, nearest, axis=1) == np.arange(block.shape[1])
        number, row = np.nonzero(is_mutual)
        found.append((number, row + rows.start, nearest[is_mutual] + columns.start))
    numbers, ones, others = (np.concatenate(part) for part in zip(*found, strict=True))
    weights = np.maximum(similarities[numbers, ones, others], 0).astype(np.float64) ** 2
    matches = []
    for position, view in enumerate(views):
        its = np.flatnonzero((numbers == position) & (weights > 0))
        its = its[view.is_shown[ones[its]] & candidate.is_shown[others[its]]]
        matches.append(_Matches(view.places[ones[its]], candidate.places[others[its]], weights[its]))
    return matches


def _level_pairs(query: Sequence[int], candidate: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return the rows and columns of each pair of levels to match; two coarse ones say nothing new."""
    rows, columns = (
        [slice(end - count, end) for count, end in zip(counts, np.cumsum(counts).tolist(), strict=True)]
        for counts in (query, candidate)
    )
    return [(row, columns[0]) for row in rows] + [(rows[0], column) for column in columns[1:]]


def _fit(matches: _Matches, query_side: float, candidate_side: float) -> _Fit:
    """Return the transform that the heaviest matches agree on: voted for, then fitted."""

    def agreeing(turn_scale: complex, shift: complex) -> tuple[_Fit, NDArray[np.float64]]:
        reach = REACH * max(candidate_side, abs(turn_scale) * query_side)
        missed = np.abs(turn_scale * matches.query + shift - matches.candidate) / reach
        weights = matches.weights * np.maximum(1 - missed**2, 0)
        return _Fit(turn_scale, shift, int((missed < 1).sum()), float(weights.sum())), weights

    best = _Fit(1.0, 0.0, 0, 0.0)
    for peak in _peaks(matches, candidate_side):
        fit, weights = agreeing(*peak)
        for _ in range(FITS):
            better, its_weights = agreeing(*_least_squares(matches, weights, peak))
            if better.strength <= fit.strength:
                break
            fit, weights = better, its_weights
        best = max(best, fit, key=lambda found: found.strength)
    return best


def _peaks(matches: _Matches, side: float) -> list[tuple[complex, complex]]:
    """Let each match vote, at every scale and turn, for the shift it implies; return the best transforms."""
    reach = BIN * side * np.maximum(1, np.abs(GRID))
    shifts = (matches.candidate - GRID[:, None] * matches.query) / reach[:, None]
    half = int(np.abs(shifts.view(np.float64)).max(initial=0)) + 2
    width = 2 * half
    shifts += half * (1 + 1j)
    x, y = shifts.real.astype(np.int64), shifts.imag.astype(np.int64)
    right, below = shifts.real - x, shifts.imag - y
    bins = (np.arange(len(GRID))[:, None] * width + y) * width + x
    share = matches.weights * right
    rest = matches.weights - share
    votes = np.bincount(
        np.concatenate([bins, bins + 1, bins + width, bins + width + 1], axis=None),
        np.concatenate([rest * (1 - below), share * (1 - below), rest * below, share * below], axis=None),
        len(GRID) * width * width,
    )
    votes = votes.reshape(len(GRID), -1)
    places = votes.argmax(axis=1)
    number = np.argsort(-votes[np.arange(len(GRID)), places], kind="stable")[:PEAKS_TRIED]
    row, column = np.divmod(places[number], width)
    found = ((column - half) + 1j * (row - half)) * reach[number]
    return list(zip(GRID[number].tolist(), found.tolist(), strict=True))


def _least_squares(
    matches: _Matches, weights: NDArray[np.float64], otherwise: tuple[complex, complex]
) -> tuple[complex, complex]:
    """Return the transform nearest to the weighted matches: Umeyama, TPAMI 1991, in the plane, unmirrored."""
    total = weights.sum()
    if total == 0:
        return otherwise
    of_query, of_candidate = weights @ matches.query / total, weights @ matches.candidate / total
    centred = matches.query - of_query
    spread = weights @ np.abs(centred) ** 2
    if spread == 0:
        return otherwise
    turn_scale = complex(weights @ (centred.conj() * (matches.candidate - of_candidate)) / spread)
    if not SMALLEST < abs(turn_scale) < LARGEST:
        return otherwise
    return turn_scale, complex(of_candidate - turn_scale * of_query)


def encode(cells: Cells) -> NDArray[np.int8]:
    """Return cells in a quarter of the bytes, to be stored: 64 a cell with the packaged weights, 9 kB a photo."""
    return np.rint(cells * LEVELS).astype(np.int8)


def decode(stored: NDArray[np.int8]) -> Cells:
    """Return stored cells as float32 of unit length; zero stays zero."""
    cells = stored.astype(np.float32)
    cells /= np.maximum(np.linalg.norm(cells, axis=-1, keepdims=True), 1)
    return cells


def _alignment(fit: _Fit, orientation: tuple[int, bool], query_aspect: float, aspect: float) -> Alignment:
    turns, is_mirrored = orientation
    width, height = _sides(query_aspect)
    upright = np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j])
    upright = (upright.real * width + 1j * upright.imag * height) / 2
    corners = fit.turn_scale * _oriented(upright, orientation) + fit.shift
    width, height = _sides(aspect)
    turned = np.angle(fit.turn_scale * (-1j) ** turns, deg=True)
    return Alignment(
        score=fit.strength / (fit.strength + HALF),
        inliers=fit.inliers,
        mirrored=is_mirrored,
        turned=float(-turned if is_mirrored else turned),
        scale=abs(fit.turn_scale),
        corners=tuple((float(z.real / width + 0.5), float(z.imag / height + 0.5)) for z in corners),
    )


def _sides(aspect: float) -> tuple[float, float]:
    """Return width and height of a picture of area 1."""
    width = float(np.sqrt(aspect))
    return width, 1 / width


def _oriented(places: Places, orientation: tuple[int, bool]) -> Places:
    """Return where places of an upright picture are once it is oriented."""
    turns, is_mirrored = orientation
    oriented: Places = (-places.conj() if is_mirrored else places) * (-1j) ** turns
    return oriented
