"""Compare the pixels of two photos, one laid on the other: is one a copy, or is it another shot or another page?

A copy shows what its original shows. What an edit changes is alike everywhere (tones, blur, compression) or lies in
one place (a caption, a sticker). Another shot has another viewpoint or moved parts, another page of one form has
other text in a few small places. A copy of a page shows all of it: captions and stickers are for photos.

The transform found by keypoints is refined to an affine one by Gauss-Newton steps with robust weights: Baker &
Matthews, "Lucas-Kanade 20 years on", IJCV 2004. The tones of one picture are mapped to those of the other by a
monotone curve, and the sharper one is blurred until both fit best. Statistics are taken in windows of 3 x 3 cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vggsearch.matching.alignment import Alignment, with_agreement
from vggsearch.matching.isotonic import isotonic
from vggsearch.matching.keypoints import Keypoints, align

FEWEST_INLIERS = 6  # with fewer, the position is too uncertain to tell other content from a wrong position
AGREEING = 0.7  # agreement of pixels that do, and
LARGEST_SHIFT = 1.6  # pixels that their parts are displaced: nine in ten copies are so, none of 500 pairs of views
LEAST_UNTOUCHED = 0.3  # of the parts with detail; the strongest edits leave 0.4
EXCHANGED = 0.22  # from which something has moved: frames of a burst have 0.3 to 0.5, captions up to 0.2
MOSTLY_UNTOUCHED = 0.5  # of the parts with detail, for that: a border and a sticker hide whose outlines are seen
LEAST_HIDDEN = 0.3  # exchanged, from which pixels do not agree, however much is hidden
OUTLINE = 20  # grey levels by which pixels differ inside the outline of a place that differs
GAP = 11  # pixels, at most, between parts of one such place
SMALLEST_PLACE = 60  # pixels inside such an outline; smaller ones are noise
LEAST_WINDOWS = 12  # with detail; fewer may agree by chance
FEWEST_EDGES = 6  # windows with clear edges, for a displacement
PAGE = 0.35  # share of one tone from which a picture is a page or a drawing; one photo in twenty has more
CLEAN_PAGE = 0.55  # the same, of a page without any background, on which no difference is overlooked
TONE = 4  # grey levels, to both sides, that count as one tone
CELL = 6  # pixels
GLANCE = 16  # pixels a side
ALIKE = 0.9  # correlation of pictures of that size, from which they look alike
SMALLEST = 24  # pixels of the common area across and down; a smaller one says nothing
EDGE = 2  # pixels at the edges of a picture, which its border or the interpolation may have changed
ENOUGH = 100  # pixels, at least, for a step of the refinement
CLOSE_ENOUGH = 0.03  # pixels of a step; no further one follows
TONES = 32  # samples of a tone curve
HALF = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])  # maps the centres of pixels to half the size
LARGEST_STEP = 12.0  # pixels; a larger one means that the pictures do not fit
BLURS = (0.0, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # pixels, standard deviations to try on the sharper picture
MISFIT = 3  # times the median difference of grey levels, from which a pixel does not fit, and
MISFIT_AT_LEAST = 10  # levels more than that
NOISE = 16.0  # variance of grey levels of which nothing can be said

# The alignment of a whole picture with another one, as if few keypoints had shown it.
WHOLE = Alignment(0.0, FEWEST_INLIERS, False, 0.0, 1.0, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))

Grey = NDArray[np.uint8]
Real = NDArray[np.float32]
Matrix = NDArray[np.float64]
Gradient = NDArray[np.int16]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Difference:
    """What differs between two pictures laid on each other, apart from tones and blur.

    `shift` and `largest_shift` are the median and the 95th percentile of how far parts are displaced, in pixels.
    `shared_detail`, about 0..1, is how much of the finest detail of the blurrier picture the other one has too.
    `places` is the number of separate places that differ, `largest` the share of the area with detail that the
    largest takes. `contrast` says how clearly the most different parts stand out from the noise. `one_sided`, 0..1,
    is 1 if all that differs was added to one picture, and `replaced`, 0..1, how much of it has detail in both.
    `agreement`, -1..1, is about the correlation in the median window: that of unrelated pictures is around 0.2.
    `least_agreement` is the correlation that four in five of the parts with detail exceed, 0 if there are few.
    `one_tone`, 0..1, is the share of the most frequent grey level, in the picture where it is less.
    `exchanged`, 0..0.5, is how evenly what differs was put into both pictures: 0 if all was put on one of them, as
    a caption or a sticker is, and 0.5 if each shows as much that the other lacks, as where something has moved.
    `untouched`, 0..1, is the share of the parts with detail that are away from any place that differs, and
    `untouched_agreement` and `untouched_shift` are `least_agreement` and `largest_shift` in these parts alone.
    """

    shift: float = 0.0
    largest_shift: float = 0.0
    shared_detail: float = 1.0
    places: int = 0
    largest: float = 0.0
    contrast: float = 0.0
    one_sided: float = 1.0
    replaced: float = 0.0
    agreement: float = 0.0
    least_agreement: float = 0.0
    one_tone: float = 0.0
    exchanged: float = 0.0
    untouched: float = 0.0
    untouched_agreement: float = 0.0
    untouched_shift: float = 0.0


@dataclass(frozen=True)
class Overlay:
    """A query laid on a photo: where it lies, and what differs there, None if they share too little to tell."""

    alignment: Alignment
    difference: Difference | None

    @property
    def shows_other_content(self) -> bool:
        """Whether it is clear that the two are other shots or pages."""
        if self.difference is None or self.alignment.inliers < FEWEST_INLIERS:
            return False
        return shows_other_content(self.difference, self.alignment.inliers)


def overlay(query: Keypoints, photo: Keypoints) -> Overlay | None:
    """Lay a query on a photo by keypoints and compare the pixels there; None if the keypoints do not match."""
    found = align(query, photo)
    return None if found is None else Overlay(found, difference(query.picture, photo.picture, found))


def align_copy(query: Keypoints, photo: Keypoints) -> Alignment | None:
    """Return the position of the query in the photo, and whether the pixels agree there, too.

    Returns None if the two do not match, or show other shots or pages. Pictures that look alike as a whole are also
    laid on each other as they are: a blurred one has few keypoints, those of a stretched one do not fit.
    """
    laid = overlay(query, photo)
    found = None if laid is None or laid.shows_other_content else _with_pixels(laid)
    if (found is not None and found.agreement) or not _look_alike(query.picture, photo.picture):
        return found
    whole = Overlay(WHOLE, difference(query.picture, photo.picture, WHOLE))
    agreeing = _with_pixels(whole)
    return agreeing if agreeing.agreement and not whole.shows_other_content else found


def _with_pixels(laid: Overlay) -> Alignment:
    """Return where a query lies, with the agreement of the pixels if they agree."""
    differs = laid.difference
    if differs is None or not agrees(differs):
        return laid.alignment
    return with_agreement(laid.alignment, differs.untouched_agreement)


def _look_alike(query: Grey, photo: Grey) -> bool:
    """Return whether two pictures look alike as a whole, squashed to GLANCE x GLANCE pixels."""
    one, other = (cv2.resize(each, (GLANCE, GLANCE), interpolation=cv2.INTER_AREA) for each in (query, photo))
    return _correlation(np.asarray(one), np.asarray(other), np.full((GLANCE, GLANCE), 255, np.uint8)) > ALIKE


def agrees(found: Difference) -> bool:
    """Return whether two pictures agree in every part that nothing was put on."""
    is_alike = found.untouched_agreement > AGREEING and found.untouched_shift < LARGEST_SHIFT
    return is_alike and found.untouched > LEAST_UNTOUCHED and found.exchanged < LEAST_HIDDEN


def shows_other_content(found: Difference, inliers: int) -> bool:
    """Return whether what differs between two pictures, aligned by so many inliers, is another shot or page."""
    is_other_shot = _is_other_view(found, inliers) or _shows_moved_things(found)
    return is_other_shot or _differs_in_small_places(found) or _is_other_page(found, inliers)


def _is_other_view(found: Difference, inliers: int) -> bool:
    """Return whether parts are displaced, as from another viewpoint.

    Parts of strong edits seem displaced, too, but these share detail or have few keypoints.
    """
    is_displaced = found.shift > 0.5 and found.largest_shift > 1.2 and found.shared_detail < 0.22
    return is_displaced or (found.shift > 1.05 and inliers >= 20 and found.shared_detail < 0.5)


def _shows_moved_things(found: Difference) -> bool:
    """Return whether each picture shows something that the other lacks, and the rest agrees, as in a burst."""
    is_in_place = found.untouched > MOSTLY_UNTOUCHED and found.untouched_agreement > 0.55
    return is_in_place and found.exchanged > EXCHANGED and found.contrast > 6


def _differs_in_small_places(found: Difference) -> bool:
    """Return whether small places differ, as in another page of one form: a caption or a sticker is larger."""
    if not found.places or found.largest >= 0.04 or found.exchanged < 0.1:
        return False
    was_replaced = found.places >= 5 and found.one_sided < 0.75 and found.replaced > 0.25 and found.contrast > 10
    return found.contrast > 60 or was_replaced or (found.places >= 20 and found.one_sided < 0.65)


def _is_other_page(found: Difference, inliers: int) -> bool:
    """Return whether pages have other content: each shows what the other lacks, or it is in several places."""
    if found.one_tone < PAGE or not found.places:
        return False
    was_exchanged = found.exchanged > 0.04 and found.one_sided < 0.8 and found.contrast > 4
    is_unlike = inliers < 12 and found.least_agreement < 0.5
    is_altered = found.one_tone > CLEAN_PAGE and (found.places >= 2 or found.contrast > 4)
    return was_exchanged or is_unlike or is_altered


def difference(query: Grey, photo: Grey, alignment: Alignment) -> Difference | None:
    """Return what differs where the query lies on the photo, None if they share too little to tell."""
    finer, coarser, matrix = _finer_onto_coarser(query, photo, alignment)
    if min(coarser.shape) < SMALLEST:
        return None
    inside = np.zeros(finer.shape, np.uint8)
    inside[EDGE:-EDGE, EDGE:-EDGE] = 255
    matrix = _refined(finer, coarser, inside, matrix)
    laid, common = _warped(finer, matrix, coarser), _warped_mask(inside, matrix, coarser)
    common[:EDGE], common[-EDGE:], common[:, :EDGE], common[:, -EDGE:] = 0, 0, 0, 0
    if cv2.countNonZero(common) < SMALLEST**2:
        return None
    fitting = _where_fitting(laid, coarser, common)
    first, second = _equally_sharp(laid, coarser, fitting)
    found = _Windows(first, second, common, fitting).difference(_high_pass(laid), _high_pass(coarser))
    if found is None:
        return None
    return replace(found, one_tone=min(_share_of_one_tone(each, common) for each in (laid, coarser)))


class _Windows:
    """Statistics of two pictures in overlapping windows of the area that is `common` to both, uint8, 0 or 255.

    Tones are mapped as they are where the pictures are `fitting`.
    """

    def __init__(self, first: Grey, second: Grey, common: Grey, fitting: Grey) -> None:
        self._common = common
        filled = _windowed(common.astype(np.float32)) / 255
        self._filled, self._inside = np.maximum(filled, 1e-3), filled > 0.6
        mapped = (
            (_with_tones(first, _tone_curve(first, second, fitting)), second),
            (first, _with_tones(second, _tone_curve(second, first, fitting))),
        )
        both = [self._moments(*pair) for pair in mapped]  # a tone curve loses what the other picture has clipped
        errors = [np.maximum(one + other - 2 * product, 0) for one, other, product in both]
        totals = [one + other for one, other, _ in both]
        relative = [error / (total + NOISE) for error, total in zip(errors, totals, strict=True)]
        best = int(np.mean(relative[1][self._inside]) < np.mean(relative[0][self._inside]))
        self._pictures, (self._one, self._other, _) = mapped[best], both[best]
        self._error = np.minimum(*errors)
        self._relative = np.minimum(*relative)
        self._has_detail = self._inside & (np.maximum(*totals) > NOISE)
        noise = max(float(np.quantile(self._error[self._inside], 0.3)), 0.5)
        self._outstanding = self._error / (4 * noise)
        self._differs = self._has_detail & (self._relative > 0.5) & (self._outstanding > 1)

    def difference(self, first_detail: Real, second_detail: Real) -> Difference | None:
        """Return what differs; the finest detail of both pictures is compared as it was before any blur."""
        if not self._has_detail.any():
            return None
        lengths, has_edges = self._displacements()
        untouched = self._has_detail & (cv2.dilate(self._differs.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
        areas = cv2.connectedComponentsWithStats(self._differs.astype(np.uint8), connectivity=8)[2][1:, 4]
        detailed = int(self._has_detail.sum())
        one, other = self._one[self._differs], self._other[self._differs]
        moved = lengths[has_edges] if has_edges.sum() >= FEWEST_EDGES else np.zeros(1, np.float32)
        return Difference(
            float(np.median(moved)),
            float(np.quantile(moved, 0.95)),
            self._shared(first_detail, second_detail),
            len(areas),
            float(areas.max()) / detailed if len(areas) else 0.0,
            float(np.quantile(self._outstanding[self._has_detail], 0.97)),
            float(abs((one - other).sum()) / (np.abs(one - other).sum() + 1e-3)) if len(areas) else 1.0,
            float((np.minimum(one, other) / (np.maximum(one, other) + 1e-3)).mean()) if len(areas) else 0.0,
            1 - float(np.median(self._relative[self._has_detail])),
            self._least_agreement(self._has_detail),
            exchanged=self._exchanged() if len(areas) else 0.0,
            untouched=float(untouched.sum() / detailed),
            untouched_agreement=self._least_agreement(untouched),
            untouched_shift=_largest(lengths[untouched & has_edges]),
        )

    def _least_agreement(self, chosen: NDArray[np.bool_]) -> float:
        """Return the correlation that four in five of some windows exceed, 0 if there are few."""
        return 1 - float(np.quantile(self._relative[chosen], 0.8)) if chosen.sum() >= LEAST_WINDOWS else 0.0

    def _exchanged(self) -> float:
        """Return how evenly what differs was put into both pictures, 0..0.5.

        The outline of what was put into one picture is an edge there, and none in the other, whose scene goes on.
        """
        outline = self._outlines()
        (x, y), (its_x, its_y) = (tuple(each.astype(np.float32) for each in _sobel(own)) for own in self._pictures)
        across, down = x - its_x, y - its_y
        own, its = (
            cv2.blur(cv2.copyTo(one * across + other * down, outline), (5, 5))
            for one, other in ((x, y), (-its_x, -its_y))
        )
        weight = cv2.copyTo(np.hypot(across, down), outline)
        put = float(weight[own > 2 * its].sum()), float(weight[its > 2 * own].sum())
        return min(put) / (sum(put) + 1e-3)

    def _outlines(self) -> Grey:
        """Return the outlines of the places that differ, uint8, not 0 on them."""
        rows, columns = self._differs.shape
        places = cv2.resize(
            self._differs.astype(np.uint8), (columns * CELL, rows * CELL), interpolation=cv2.INTER_NEAREST
        )
        first, second = self._pictures
        misfit = cv2.copyTo(cv2.absdiff(first, second), self._common)[: rows * CELL, : columns * CELL]
        closed = cv2.morphologyEx(places * (misfit > OUTLINE), cv2.MORPH_CLOSE, np.ones((GAP, GAP), np.uint8))
        outlines, _ = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        drawn = np.zeros(first.shape, np.uint8)
        cv2.drawContours(drawn, [each for each in outlines if cv2.contourArea(each) >= SMALLEST_PLACE], -1, (1,), 3)
        return drawn

    def _displacements(self) -> tuple[Real, NDArray[np.bool_]]:
        """Return how far each window is displaced, in pixels, and in which windows clear edges tell."""
        first, second = self._pictures
        x, y = (self._within(np.add(*each)) / 16 for each in zip(_sobel(first), _sobel(second), strict=True))
        change = self._within(cv2.subtract(second, first, dtype=cv2.CV_16S))
        xx, xy, yy, x_change, y_change = map(_windowed, (x * x, x * y, y * y, x * change, y * change))
        weaker = (xx + yy) / 2 - np.sqrt((xx - yy) ** 2 / 4 + xy**2)
        xx, yy = xx + 0.2, yy + 0.2
        across, down = yy * x_change - xy * y_change, xx * y_change - xy * x_change
        lengths = np.hypot(across, down) / np.maximum(xx * yy - xy**2, 1e-6)
        return lengths, self._inside & (weaker > 1) & (self._relative < 0.7)

    def _shared(self, first: Real, second: Real) -> float:
        """Return how much of the finest detail both have, where they do not differ otherwise."""
        chosen = self._has_detail & ~self._differs
        if not chosen.any():
            return 0.0
        first, second = self._within(first), self._within(second)
        ones, others, shared = (
            float(_windowed(each)[chosen].mean()) for each in (first * first, second * second, first * second)
        )
        return shared / (min(ones, others) + 0.01)

    def _moments(self, first: Grey, second: Grey) -> tuple[Real, Real, Real]:
        """Return the variances of both and their covariance in each window."""
        one, other = self._within(first), self._within(second)
        means = (_windowed(each) / self._filled for each in (one, other, one * one, other * other, one * other))
        mean, other_mean, first_square, second_square, product = means
        variances = np.maximum(first_square - mean**2, 0), np.maximum(second_square - other_mean**2, 0)
        return variances[0], variances[1], np.asarray(product - mean * other_mean, np.float32)

    def _within(self, values: NDArray[np.integer | np.floating]) -> Real:
        """Return values of the common area, and 0 elsewhere."""
        return cv2.copyTo(values, self._common).astype(np.float32)


def _largest(lengths: Real) -> float:
    """Return the 95th percentile of displacements, infinite if there are few."""
    return float(np.quantile(lengths, 0.95)) if len(lengths) >= FEWEST_EDGES else np.inf


def _finer_onto_coarser(query: Grey, photo: Grey, alignment: Alignment) -> tuple[Grey, Grey, Matrix]:
    """Return the picture with finer pixels, the common part of the other, and the (2, 3) matrix between them."""
    height, width = query.shape
    top_left, top_right, _, bottom_left = np.array(alignment.corners) * (photo.shape[1], photo.shape[0])
    matrix = np.column_stack([(top_right - top_left) / width, (bottom_left - top_left) / height, top_left])
    finer, coarser = query, photo
    if abs(np.linalg.det(matrix[:, :2])) > 1:
        finer, coarser, matrix = photo, query, np.array(cv2.invertAffineTransform(matrix))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.8:  # fewer pixels cannot show the finest detail
        finer = _blurred(finer, 0.5 * float(np.sqrt(1 / scale**2 - 1)))
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]]) * (finer.shape[1], finer.shape[0], 1)
    placed = corners @ matrix.T
    size = (coarser.shape[1], coarser.shape[0])
    left, top = np.clip(np.floor(placed.min(axis=0)), 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(placed.max(axis=0)), 0, size).astype(int).tolist()
    matrix[:, 2] -= (left, top)
    return finer, np.ascontiguousarray(coarser[top:bottom, left:right]), matrix


def _refined(finer: Grey, coarser: Grey, inside: Grey, matrix: Matrix) -> Matrix:
    """Return the affine matrix that fits best, found on pictures of half the size and then on these."""
    if min(coarser.shape) < 100:
        return _fitted(finer, coarser, inside, matrix, rounds=6, stride=1)
    small, large = _halved(finer), _halved(coarser)
    everywhere = np.full(small.shape, 255, np.uint8)
    halved = _fitted(small, large, everywhere, _conjugated(HALF, matrix), rounds=6, stride=2)
    return _fitted(finer, coarser, inside, _conjugated(np.linalg.inv(HALF), halved), rounds=2, stride=3)


def _fitted(finer: Grey, coarser: Grey, inside: Grey, matrix: Matrix, rounds: int, stride: int) -> Matrix:
    """Return the matrix after some Gauss-Newton steps that use every `stride`-th pixel across and down."""
    finer, target = _blurred(finer, 1.0), _Target(_blurred(coarser, 1.0), stride)
    for number in range(rounds):
        chosen = target.sample(inside, matrix, cv2.INTER_NEAREST)
        if cv2.countNonZero(chosen) < ENOUGH:
            return matrix
        if number in (0, 2):
            toned = _with_tones(finer, _tone_curve(target.sample(finer, matrix), target.tones, chosen))
        step = target.step(_warped(toned, matrix, coarser), chosen)
        if step is None:
            return matrix
        matrix = (step @ np.vstack([matrix, [0, 0, 1]]))[:2]
        if number >= 2 and np.abs(step - np.eye(3)).max() < CLOSE_ENOUGH:
            return matrix
    return matrix


class _Target:
    """The picture onto which another is fitted, of which every `stride`-th pixel across and down is used.

    `tones` are those of these pixels: uint8 (rows, columns).
    """

    def __init__(self, picture: Grey, stride: int) -> None:
        self._height, self._width = picture.shape
        self._stride = stride
        self.tones = self._every(picture)
        self._x, self._y = map(self._every, _sobel(picture))
        rows, columns = (np.arange(count, dtype=np.float32) for count in self.tones.shape)
        self._across, self._down = np.meshgrid(
            columns * np.float32(stride / self._width) - np.float32(0.5),
            rows * np.float32(stride / self._height) - np.float32(0.5),
        )

    def sample(self, picture: Grey, matrix: Matrix, interpolation: int = cv2.INTER_LINEAR) -> Grey:
        """Return the pixels of another picture that lie on those that are used."""
        inverse = cv2.invertAffineTransform(matrix)
        inverse[:, :2] *= self._stride
        flags = interpolation | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_CONSTANT if interpolation == cv2.INTER_NEAREST else cv2.BORDER_REPLICATE
        size = self.tones.shape[::-1]
        return np.asarray(cv2.warpAffine(picture, inverse, size, flags=flags, borderMode=border), np.uint8)

    def step(self, laid: Grey, chosen: Grey) -> Matrix | None:
        """Return a (3, 3) correction of the transform, None if the pictures do not fit."""
        where = np.flatnonzero(chosen)
        x, y = (
            (own + self._every(other)).take(where).astype(np.float32) / 16
            for own, other in zip((self._x, self._y), _sobel(laid), strict=True)
        )
        across, down = self._across.take(where), self._down.take(where)
        levels = np.subtract(self.tones, self._every(laid), dtype=np.int16).take(where)
        sizes, error = np.abs(levels), levels.astype(np.float32)
        edges = sizes[x * x + y * y > 4]
        scale = np.float32(1.5 * _median(edges if len(edges) > ENOUGH / 2 else sizes) + 1)
        jacobian = np.stack([x, x * across, x * down, y, y * across, y * down])
        weights = 1 / np.square(1 + np.square(error / scale))  # Geman & McClure's ignore a caption or a sticker
        weighted = jacobian * weights
        normal = (weighted @ jacobian.T).astype(np.float64)
        damping = np.diag([1.0, 5, 5, 1, 5, 5]) * (1e-3 * np.trace(normal) / 6 + 1e-3)
        a, b, c, d, e, f = np.linalg.solve(normal + damping, (weighted @ error).astype(np.float64)).tolist()
        if abs(a) + abs(d) + (abs(b) + abs(c) + abs(e) + abs(f)) / 2 > LARGEST_STEP:
            return None
        first, second = [1 + b / self._width, c / self._height], [e / self._width, 1 + f / self._height]
        moved = [[*first, a - (b + c) / 2], [*second, d - (e + f) / 2], [0, 0, 1]]
        inverse: Matrix = np.linalg.inv(np.array(moved))
        return inverse

    def _every(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        return np.ascontiguousarray(values[:: self._stride, :: self._stride])


def _median(levels: NDArray[np.int16]) -> float:
    """Return the median of grey levels, which are few: counting them takes less time than sorting."""
    up_to = np.bincount(levels).cumsum()
    middle = [(up_to[-1] - 1) // 2, up_to[-1] // 2]
    return float(np.searchsorted(up_to, middle, "right").mean())


def _tone_curve(tones: Grey, wanted: Grey, chosen: Grey) -> Grey:
    """Return the monotone curve, uint8 (256,), that maps tones to those of the other picture at the same places.

    Only places that are not 0 in `chosen` count.
    """
    step = 256 // TONES
    sizes, ranges = [TONES, 256], [0, 256, 0, 256]
    counts = cv2.calcHist([tones, wanted], [0, 1], chosen, sizes, ranges).astype(np.int64)
    up_to = counts.cumsum(axis=1)
    total = up_to[:, -1]
    used = np.flatnonzero(total)
    medians = (2 * up_to >= total[:, None]).argmax(axis=1)[used]
    rising = isotonic(medians.astype(np.float64), total[used].astype(np.float64))
    curve: Grey = np.rint(np.interp(np.arange(256), used * step + (step - 1) / 2, rising)).astype(np.uint8)
    return curve


def _where_fitting(first: Grey, second: Grey, common: Grey) -> Grey:
    """Return the part of the common area where the pictures fit, without what was put on one: a border, a sticker.

    Otherwise, the tones and the blur that fit best would be those that make up for it.
    """
    first, second, fitting = _blurred(first, 2.0), _blurred(second, 2.0), common
    for _ in range(2):
        misfit = np.asarray(cv2.absdiff(_with_tones(first, _tone_curve(first, second, fitting)), second), np.uint8)
        typical = _median(misfit[fitting > 0].astype(np.int16))
        fitting = np.where(misfit <= MISFIT * typical + MISFIT_AT_LEAST, common, 0).astype(np.uint8)
    return fitting


def _share_of_one_tone(picture: Grey, common: Grey) -> float:
    """Return the largest share of pixels, 0..1, whose grey levels differ by TONE from one level at most."""
    counts = cv2.calcHist([picture], [0], common, [256], [0, 256]).ravel()
    return float(np.convolve(counts, np.ones(2 * TONE + 1), "valid").max() / counts.sum())


def _equally_sharp(first: Grey, second: Grey, common: Grey) -> tuple[Grey, Grey]:
    """Return both pictures, the sharper one blurred until they correlate best."""
    first, second = _blurred(first, 0.8), _blurred(second, 0.8)
    toned = _with_tones(first, _tone_curve(first, second, common))
    is_first_sharper = _energy(toned, common) > _energy(second, common)
    best, chosen = -np.inf, (first, second)
    for pair in _blurs(first, second, is_first_sharper=is_first_sharper):
        correlation = _correlation(*pair, common)
        if correlation <= best + 1e-4:
            break
        best, chosen = correlation, pair
    return chosen


def _blurs(first: Grey, second: Grey, *, is_first_sharper: bool) -> Iterator[tuple[Grey, Grey]]:
    for deviation in BLURS:
        yield ((_blurred(first, deviation), second) if is_first_sharper else (first, _blurred(second, deviation)))


def _correlation(first: Grey, second: Grey, common: Grey) -> float:
    count = cv2.countNonZero(common)
    ones, others = (cv2.mean(picture, common)[0] for picture in (first, second))
    squares, other_squares = (cv2.norm(picture, cv2.NORM_L2SQR, common) for picture in (first, second))
    products = (squares + other_squares - cv2.norm(first, second, cv2.NORM_L2SQR, common)) / 2
    variances = (squares / count - ones**2) * (other_squares / count - others**2)
    return float((products / count - ones * others) / np.sqrt(max(variances, 0) + 1e-9))


def _energy(picture: Grey, common: Grey) -> float:
    return sum(cv2.norm(gradient, cv2.NORM_L2SQR, common) for gradient in _sobel(picture))


def _sobel(picture: Grey) -> tuple[Gradient, Gradient]:
    """Return eight times the change of grey levels across and down."""
    x, y = (cv2.Sobel(picture, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(x, np.int16), np.asarray(y, np.int16)


def _high_pass(picture: Grey) -> Real:
    values = picture.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), 1.2), np.float32)


def _windowed(values: NDArray[np.floating]) -> Real:
    """Return the means over windows of 3 x 3 cells, one for each cell."""
    rows, columns = (side // CELL for side in values.shape)
    whole = np.asarray(values[: rows * CELL, : columns * CELL], np.float32)
    cells = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.blur(cells, (3, 3), borderType=cv2.BORDER_REFLECT), np.float32)


def _warped(picture: Grey, matrix: Matrix, onto: Grey) -> Grey:
    size = (onto.shape[1], onto.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _warped_mask(inside: Grey, matrix: Matrix, onto: Grey) -> Grey:
    size = (onto.shape[1], onto.shape[0])
    return np.asarray(cv2.warpAffine(inside, matrix, size, flags=cv2.INTER_NEAREST), np.uint8)


def _with_tones(picture: Grey, curve: Grey) -> Grey:
    return np.asarray(cv2.LUT(picture, curve), np.uint8)


def _blurred(picture: Grey, deviation: float) -> Grey:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), deviation), np.uint8) if deviation else picture


def _halved(picture: Grey) -> Grey:
    height, width = (side // 2 for side in picture.shape)
    whole = picture[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _conjugated(change: Matrix, matrix: Matrix) -> Matrix:
    """Return the matrix between pictures of which both were resized by `change`."""
    changed: Matrix = (change @ np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(change))[:2]
    return changed
