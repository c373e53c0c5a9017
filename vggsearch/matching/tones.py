"""Tones, gradients, blur and correlation of grey pictures, uint8 (height, width)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vggsearch.matching.isotonic import isotonic

TONES = 32  # samples of a tone curve

Grey = NDArray[np.uint8]
Real = NDArray[np.float32]
Matrix = NDArray[np.float64]
Gradient = NDArray[np.int16]


def tone_curve(tones: Grey, wanted: Grey, chosen: Grey) -> Grey:
    """Return the monotone curve, uint8 (256,), that maps tones to those of the other picture at the same places.

    Only places that are not 0 in `chosen` count. Tones beyond those that occur there keep their distance to them.
    """
    step = 256 // TONES
    sizes, ranges = [TONES, 256], [0, 256, 0, 256]
    counts = cv2.calcHist([tones, wanted], [0, 1], chosen, sizes, ranges).astype(np.int64)
    up_to = counts.cumsum(axis=1)
    total = up_to[:, -1]
    used = np.flatnonzero(total)
    medians = (2 * up_to >= total[:, None]).argmax(axis=1)[used]
    rising = isotonic(medians.astype(np.float64), total[used].astype(np.float64))
    levels, known = np.arange(256), used * step + (step - 1) / 2
    beyond = levels - np.clip(levels, known[0], known[-1])
    curve: Grey = np.rint(np.clip(np.interp(levels, known, rising) + beyond, 0, 255)).astype(np.uint8)
    return curve


def with_tones(picture: Grey, curve: Grey) -> Grey:
    """Return a picture with each grey level replaced by that of a curve."""
    return np.asarray(cv2.LUT(picture, curve), np.uint8)


def median(levels: NDArray[np.int16]) -> float:
    """Return the median of grey levels, which are few: counting them takes less time than sorting."""
    up_to = np.bincount(levels).cumsum()
    middle = [(up_to[-1] - 1) // 2, up_to[-1] // 2]
    return float(np.searchsorted(up_to, middle, "right").mean())


def blurred(picture: Grey, deviation: float) -> Grey:
    """Return a picture blurred by a Gaussian of so many pixels, unchanged for 0."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), deviation), np.uint8) if deviation else picture


def sobel(picture: Grey) -> tuple[Gradient, Gradient]:
    """Return eight times the change of grey levels across and down."""
    x, y = (cv2.Sobel(picture, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(x, np.int16), np.asarray(y, np.int16)


def correlation(first: Grey, second: Grey, common: Grey) -> float:
    """Return the correlation, -1..1, of two pictures where `common` is not 0."""
    count = cv2.countNonZero(common)
    ones, others = (cv2.mean(picture, common)[0] for picture in (first, second))
    squares, other_squares = (cv2.norm(picture, cv2.NORM_L2SQR, common) for picture in (first, second))
    products = (squares + other_squares - cv2.norm(first, second, cv2.NORM_L2SQR, common)) / 2
    variances = (squares / count - ones**2) * (other_squares / count - others**2)
    return float((products / count - ones * others) / np.sqrt(max(variances, 0) + 1e-9))
