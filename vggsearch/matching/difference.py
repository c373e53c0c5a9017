"""Measure what differs between two pictures, one laid on the other, apart from tones and blur.

The tones of one picture are mapped to those of the other by a monotone curve, and the sharper one is blurred until
both fit best. Statistics are taken in windows of 3 x 3 cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from vggsearch.matching.alignment import Alignment
from vggsearch.matching.registration import finer_onto_coarser, refined, warped, warped_mask
from vggsearch.matching.tones import Grey, Real, blurred, correlation, median, sobel, tone_curve, with_tones

OUTLINE = 20  # grey levels by which pixels differ inside the outline of a place that differs
GAP = 11  # pixels, at most, between parts of one such place
SLIGHT = 12  # the same, of a thing that may have moved
SMALLEST_PLACE = 60  # pixels inside such an outline; smaller ones are noise
LEAST_WINDOWS = 12  # with detail; fewer may agree by chance
FEWEST_EDGES = 6  # windows with clear edges, for a displacement
TONE = 4  # grey levels, to both sides, that count as one tone
CLIPPED = 16  # grey levels at both ends that a camera may have lost the detail of
REDUCED = 3  # pixels, of which one is made to look for things that have moved
FEWEST_MOVED = 8  # such pixels that differ; fewer say nothing
LEAST_MOVED = 0.2  # share of what differs that a thing has at both of its places; half, if they do not overlap
AROUND = 19  # pixels across, with which a place is dilated to what is around it
MOST_AROUND = 0.2  # share of what is around a place that may have the tone of what was put there
CELL = 6  # pixels
NEAR = 5  # cells across, with which a place that differs is dilated to where nothing is fitted
INDEPENDENT = 25  # pixels of the 324 of a window whose noise is independent: both are blurred, one is enlarged
LEAST_REST = 0.5  # variance of grey levels that no displacement explains, at least
PRECISE = 0.8  # pixels: twice the standard error of a displacement, up to which it is known well
SMALLEST = 24  # pixels of the common area across and down; a smaller one says nothing
EDGE = 2  # pixels at the edges of a picture, which its border or the interpolation may have changed
BLURS = (0.0, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # pixels, standard deviations to try on the sharper picture
MISFIT = 3  # times the median difference of grey levels, from which a pixel does not fit, and
MISFIT_AT_LEAST = 10  # levels more than that
NOISE = 16.0  # variance of grey levels of which nothing can be said


Contour = MatLike  # OpenCV's points of an outline


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
    `plain`, 0..1, is the share of all that differs which has one tone, in one place of one picture, that is not
    around it: a sticker has much of it, what a camera has seen little.
    `moved`, 0..1, is how well a part of what one picture shows there is found in the other one where that differs,
    too, in another place: 1 for a thing that has moved, up to 0.3 for what was put on a copy.
    `untouched`, 0..1, is the share of the parts with detail that are away from any place that differs, and
    `untouched_agreement` and `untouched_shift` are `least_agreement` and `largest_shift` in these parts alone.
    `certain_shift` is the 95th percentile of how far these parts are displaced, in pixels, beyond what the rest of
    the difference there may make up, and `precise` the number of windows in which clear edges tell it to PRECISE.
    `blur` is the standard deviation, in pixels, by which the sharper picture was blurred to resemble the other.
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
    plain: float = 0.0
    moved: float = 0.0
    untouched: float = 0.0
    untouched_agreement: float = 0.0
    untouched_shift: float = 0.0
    certain_shift: float = 0.0
    precise: int = 0
    blur: float = 0.0


def looks(query: Grey, photo: Grey, alignment: Alignment) -> Iterator[Difference]:
    """Yield what differs where the query lies on the photo, then what differs at a closer look.

    For the closer look, position, tones and sharpness are fitted again, where nothing differed at the first one: a
    border and a sticker that hide much of a picture pull them away. Ends early if the two share too little to tell.
    """
    finer, coarser, matrix = finer_onto_coarser(query, photo, alignment)
    if min(coarser.shape) < SMALLEST:
        return
    inside = np.zeros(finer.shape, np.uint8)
    inside[EDGE:-EDGE, EDGE:-EDGE] = 255
    fitted, unchanged = inside, np.full(coarser.shape, 255, np.uint8)
    for is_closer in (False, True):
        matrix = refined(finer, coarser, fitted, matrix)
        laid, common = warped(finer, matrix, coarser), warped_mask(inside, matrix, coarser)
        common[:EDGE], common[-EDGE:], common[:, :EDGE], common[:, -EDGE:] = 0, 0, 0, 0
        fitting = np.asarray(cv2.bitwise_and(common, unchanged), np.uint8)
        if cv2.countNonZero(fitting) < SMALLEST**2:
            return
        if not is_closer:
            fitting = _where_fitting(laid, coarser, common)
        first, second, blur = _equally_sharp(laid, coarser, fitting)
        windows = _Windows(first, second, common, fitting)
        found = windows.difference(_high_pass(laid), _high_pass(coarser))
        if found is None:
            return
        one_tone = min(_share_of_one_tone(each, common) for each in (laid, coarser))
        yield replace(found, one_tone=one_tone, plain=_plain(windows.places, laid, coarser), blur=blur)
        unchanged = windows.unchanged
        fitted = np.asarray(
            cv2.bitwise_and(inside, warped_mask(unchanged, np.array(cv2.invertAffineTransform(matrix)), finer)),
            np.uint8,
        )


class _Windows:
    """Statistics of two pictures in overlapping windows of the area that is `common` to both, uint8, 0 or 255.

    Tones are mapped as they are where the pictures are `fitting`.
    """

    def __init__(self, first: Grey, second: Grey, common: Grey, fitting: Grey) -> None:
        self._common = common
        filled = _windowed(common.astype(np.float32)) / 255
        self._filled, self._inside = np.maximum(filled, 1e-3), filled > 0.6
        mapped = (
            (with_tones(first, tone_curve(first, second, fitting)), second),
            (first, with_tones(second, tone_curve(second, first, fitting))),
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
        lengths, errors, has_edges = self._displacements()
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
            moved=_moved(*self._pictures, self._misfitting(2, SLIGHT)),
            untouched=float(untouched.sum() / detailed),
            untouched_agreement=self._least_agreement(untouched),
            untouched_shift=_largest(lengths[untouched & has_edges]),
            certain_shift=_largest(np.maximum(lengths - 2 * errors, 0)[untouched & self._inside]),
            precise=int(np.count_nonzero(2 * errors[untouched & has_edges] < PRECISE)),
        )

    def _least_agreement(self, chosen: NDArray[np.bool_]) -> float:
        """Return the correlation that four in five of some windows exceed, 0 if there are few."""
        return 1 - float(np.quantile(self._relative[chosen], 0.8)) if chosen.sum() >= LEAST_WINDOWS else 0.0

    def _exchanged(self) -> float:
        """Return how evenly what differs was put into both pictures, 0..0.5.

        The outline of what was put into one picture is an edge there, and none in the other, whose scene goes on.
        """
        outline = np.zeros(self._common.shape, np.uint8)
        cv2.drawContours(outline, self.places, -1, (1,), 3)
        (x, y), (its_x, its_y) = (tuple(each.astype(np.float32) for each in sobel(own)) for own in self._pictures)
        across, down = x - its_x, y - its_y
        own, its = (
            cv2.blur(cv2.copyTo(one * across + other * down, outline), (5, 5))
            for one, other in ((x, y), (-its_x, -its_y))
        )
        weight = cv2.copyTo(np.hypot(across, down), outline)
        put = float(weight[own > 2 * its].sum()), float(weight[its > 2 * own].sum())
        return min(put) / (sum(put) + 1e-3)

    @cached_property
    def places(self) -> list[Contour]:
        """The outlines of the places that differ, without small ones; of holes in them, too."""
        closed = cv2.morphologyEx(self._misfitting(1, OUTLINE), cv2.MORPH_CLOSE, np.ones((GAP, GAP), np.uint8))
        outlines, _ = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        return [each for each in outlines if cv2.contourArea(each) >= SMALLEST_PLACE]

    def _misfitting(self, reach: int, levels: int) -> Grey:
        """Return 1 for pixels that differ by more than `levels`, in windows up to `reach` from any that does."""
        rows, columns = self._differs.shape
        near = cv2.dilate(self._differs.astype(np.uint8), np.ones((2 * reach - 1, 2 * reach - 1), np.uint8))
        places = cv2.resize(near, (columns * CELL, rows * CELL), interpolation=cv2.INTER_NEAREST)
        misfit = cv2.copyTo(cv2.absdiff(*self._pictures), self._common)[: rows * CELL, : columns * CELL]
        return np.asarray(places * (misfit > levels), np.uint8)

    @property
    def unchanged(self) -> Grey:
        """Where the pictures do not differ, away from where they do: 255, elsewhere 0."""
        rows, columns = self._differs.shape
        near = cv2.dilate(self._differs.astype(np.uint8), np.ones((NEAR, NEAR), np.uint8))
        unchanged = np.zeros(self._common.shape, np.uint8)
        unchanged[: rows * CELL, : columns * CELL] = np.repeat(np.repeat(255 * (1 - near), CELL, 0), CELL, 1)
        return unchanged

    def _displacements(self) -> tuple[Real, Real, NDArray[np.bool_]]:
        """Return how far each window is displaced, the standard error of that, and in which ones clear edges tell.

        Lengths are in pixels. The error follows from what still differs in a window after it is displaced.
        """
        first, second = self._pictures
        x, y = (self._within(np.add(*each)) / 16 for each in zip(sobel(first), sobel(second), strict=True))
        change = self._within(cv2.subtract(second, first, dtype=cv2.CV_16S))
        xx, xy, yy, x_change, y_change, changes = map(
            _windowed, (x * x, x * y, y * y, x * change, y * change, change * change)
        )
        weaker = (xx + yy) / 2 - np.sqrt((xx - yy) ** 2 / 4 + xy**2)
        xx, yy = xx + 0.2, yy + 0.2
        across, down = yy * x_change - xy * y_change, xx * y_change - xy * x_change
        determinant = np.maximum(xx * yy - xy**2, 1e-6)
        across, down = across / determinant, down / determinant
        lengths = np.hypot(across, down)
        rest = np.maximum(changes - across * x_change - down * y_change, LEAST_REST)
        along = (yy * across**2 - 2 * xy * across * down + xx * down**2) / np.maximum(lengths, 1e-6) ** 2
        errors = np.sqrt(rest * along / determinant / INDEPENDENT)
        return lengths, errors, self._inside & (weaker > 1) & (self._relative < 0.7)

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


def _where_fitting(first: Grey, second: Grey, common: Grey) -> Grey:
    """Return the part of the common area where the pictures fit, without what was put on one: a border, a sticker.

    Otherwise, the tones and the blur that fit best would be those that make up for it.
    """
    first, second, fitting = blurred(first, 2.0), blurred(second, 2.0), common
    for _ in range(2):
        misfit = np.asarray(cv2.absdiff(with_tones(first, tone_curve(first, second, fitting)), second), np.uint8)
        typical = median(misfit[fitting > 0].astype(np.int16))
        fitting = np.where(misfit <= MISFIT * typical + MISFIT_AT_LEAST, common, 0).astype(np.uint8)
    return fitting


def _share_of_one_tone(picture: Grey, common: Grey) -> float:
    """Return the largest share of pixels, 0..1, whose grey levels differ by TONE from one level at most."""
    counts = cv2.calcHist([picture], [0], common, [256], [0, 256]).ravel()
    return float(np.convolve(counts, np.ones(2 * TONE + 1), "valid").max() / counts.sum())


def _plain(places: list[Contour], first: Grey, second: Grey) -> float:
    """Return Difference.plain. Black and white do not count: shadows and skies have lost their detail there."""
    if not places:
        return 0.0
    largest = max(places, key=cv2.contourArea)
    inside, all_places = np.zeros(first.shape, np.uint8), np.zeros(first.shape, np.uint8)
    cv2.drawContours(inside, [largest], -1, (255,), cv2.FILLED)
    for each in places:  # one by one: holes are places, too
        cv2.drawContours(all_places, [each], -1, (255,), cv2.FILLED)
    left, top, width, height = cv2.boundingRect(largest)
    near = np.s_[max(0, top - AROUND) : top + height + AROUND, max(0, left - AROUND) : left + width + AROUND]
    inside = inside[near]
    around = np.asarray(cv2.dilate(inside, np.ones((AROUND, AROUND), np.uint8)) - inside, np.uint8)
    of_tone = max(_tone_put_on(each[near], inside, around) for each in (first, second))
    return of_tone / cv2.countNonZero(all_places)


def _moved(first: Grey, second: Grey, misfit: Grey) -> float:
    """Return Difference.moved, where 1 in `misfit` marks the pixels that differ.

    For every displacement, the squared difference of those pixels of one picture from those of the other on which
    they then lie is a sum of correlations (Padfield, "Masked object registration in the Fourier domain", IEEE
    Trans. Image Processing 2012).
    """
    size = tuple(side // REDUCED for side in misfit.shape[::-1])
    chosen = (cv2.resize(misfit.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.6).astype(np.float32)
    count = float(chosen.sum())
    if count < FEWEST_MOVED:
        return 0.0
    whole = np.s_[: misfit.shape[0], : misfit.shape[1]]
    left, top, width, height = cv2.boundingRect(chosen.astype(np.uint8))
    within = np.s_[top : top + height, left : left + width]
    chosen = chosen[within]
    reduced = [
        cv2.resize(each[whole], size, interpolation=cv2.INTER_AREA)[within].astype(np.float32)
        for each in (first, second)
    ]
    mean = sum(float((each * chosen).sum()) for each in reduced) / (2 * count)
    one, other = ((each - np.float32(mean)) * chosen for each in reduced)
    padded = [cv2.getOptimalDFTSize(2 * side) for side in chosen.shape]
    at, ones, squares, others, its_squares = (
        np.fft.rfft2(each, padded) for each in (chosen, one, one * one, other, other * other)
    )
    shared = np.fft.irfft2(np.conj(at) * at, padded)
    errors = np.fft.irfft2(np.conj(squares) * at + np.conj(at) * its_squares - 2 * np.conj(ones) * others, padded)
    down, across = (np.fft.fftfreq(length, 1 / length) for length in padded)
    is_elsewhere = (shared >= LEAST_MOVED * count) & (np.hypot(down[:, None], across) >= 2)
    shared, errors = shared[is_elsewhere], np.maximum(errors[is_elsewhere], 0)
    in_place = float(((one - other) ** 2).sum())
    unlike = errors / (in_place + 1e-3) * (count / shared) ** 3  # for each pixel, and less the more of them fit
    return max(0.0, 1 - float(unlike.min(initial=1)))


def _tone_put_on(picture: Grey, inside: Grey, around: Grey) -> float:
    """Return how many pixels inside have the most frequent tone, 0 if it is around them, too."""
    counts, others = (cv2.calcHist([picture], [0], each, [256], [0, 256]).ravel() for each in (inside, around))
    of_tones, around_of_tones = (np.convolve(each, np.ones(2 * TONE + 1), "same") for each in (counts, others))
    tone = CLIPPED + int(of_tones[CLIPPED:-CLIPPED].argmax())
    return float(of_tones[tone]) if around_of_tones[tone] < MOST_AROUND * others.sum() else 0.0


def _equally_sharp(first: Grey, second: Grey, common: Grey) -> tuple[Grey, Grey, float]:
    """Return both pictures, the sharper one blurred until they correlate best, and by how many pixels it was."""
    first, second = blurred(first, 0.8), blurred(second, 0.8)
    toned = with_tones(first, tone_curve(first, second, common))
    is_first_sharper = _energy(toned, common) > _energy(second, common)
    best, chosen = -np.inf, (first, second, 0.0)
    for deviation in BLURS:
        one, other = (
            (blurred(first, deviation), second) if is_first_sharper else (first, blurred(second, deviation))
        )
        fit = correlation(one, other, common)
        if fit <= best + 1e-4:
            break
        best, chosen = fit, (one, other, deviation)
    return chosen


def _energy(picture: Grey, common: Grey) -> float:
    return sum(cv2.norm(gradient, cv2.NORM_L2SQR, common) for gradient in sobel(picture))


def _high_pass(picture: Grey) -> Real:
    values = picture.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), 1.2), np.float32)


def _windowed(values: NDArray[np.floating]) -> Real:
    """Return the means over windows of 3 x 3 cells, one for each cell."""
    rows, columns = (side // CELL for side in values.shape)
    whole = np.asarray(values[: rows * CELL, : columns * CELL], np.float32)
    cells = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.blur(cells, (3, 3), borderType=cv2.BORDER_REFLECT), np.float32)
