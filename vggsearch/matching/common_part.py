"""The part of a picture that another one shows: a tile of a collage shows a photo that was cropped to fit.

Where a photo lies is found from what the tile shows, so all of the photo is laid on the collage, also over what is
beside the tile. There, the two agree by chance only. Around something that was put on a copy, they agree.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vggsearch.matching.alignment import Alignment
from vggsearch.matching.tones import Grey, Real, blurred

SIDE = 192  # pixels of the longer side in which pictures are compared
FIELD = 4  # pixels a side; statistics are of 3 x 3 fields
FEWEST = 6  # fields that agree, for a comparison of tones
NOISE = 16.0  # variance of grey levels, in a field without detail
AGREES, DIFFERS = 0.6, 0.4  # correlation from which fields agree, and up to which they differ
FLAT = 0.5  # weight of a field without detail
TONE = 30  # grey levels that fields without detail may differ by
HARDLY = 0.03  # of the common area, that may differ where all of a picture is shown
WHOLE = (0.0, 0.0, 1.0, 1.0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class CommonPart:
    """The part of a picture that another one shows, and how they agree in it and around it.

    `box` is left, top, right and bottom of the part in fractions, 0..1, of the width and height of the picture.
    `hidden`, 0..1, is the share of the area in which one lies on the other that is outside the box. `agreement`,
    -1..1, is the share of the fields in the box that agree, less that of fields that differ, and `by_chance`,
    0..1, the share of those outside that agree. Only fields with detail count.
    """

    box: Box = WHOLE
    hidden: float = 0.0
    agreement: float = 1.0
    by_chance: float = 0.0


def reduced(picture: Grey) -> Grey:
    """Return a picture with SIDE pixels on the longer side."""
    scale = SIDE / max(picture.shape)
    height, width = (max(3 * FIELD, round(side * scale)) for side in picture.shape)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def common_part(query: Grey, photo: Grey, alignment: Alignment) -> CommonPart:
    """Return the part of a query that a photo shows; both are grey, uint8 (height, width), the query `reduced`."""
    fields = _Fields(*_laid_on(query, photo, alignment))
    weights, inside = fields.weights(), fields.inside
    if np.count_nonzero(weights < 0) <= HARDLY * np.count_nonzero(inside):
        return CommonPart()
    top, bottom, left, right = _heaviest(weights)
    is_part = np.zeros(weights.shape, bool)
    is_part[top:bottom, left:right] = True
    rows, columns = weights.shape
    shown, hidden = fields.detailed & is_part, fields.detailed & ~is_part
    return CommonPart(
        (left / columns, top / rows, right / columns, bottom / rows),
        float(np.mean(~is_part[inside])),
        float(weights[shown].mean()) if shown.any() else 0.0,
        float(np.mean(weights[hidden] > 0)) if hidden.any() else 0.0,
    )


class _Fields:
    """Statistics of two pictures, one laid on the other, in fields of the area that is `common`, uint8, 0 or 255.

    `inside` are the fields of the common area, `detailed` those where one of the two shows any detail.
    """

    def __init__(self, first: Grey, second: Grey, common: Grey) -> None:
        filled = _means((common > 0).astype(np.float32))
        self.inside = filled > 0.6
        filled = np.maximum(filled, 1e-3)
        one, other = (cv2.copyTo(blurred(each, 1.0), common).astype(np.float32) for each in (first, second))
        products = one * one, other * other, one * other
        self._mean, self._its_mean, square, its_square, product = (
            _means(each) / filled for each in (one, other, *products)
        )
        variance = np.maximum(square - self._mean**2, 0)
        its_variance = np.maximum(its_square - self._its_mean**2, 0)
        covariance = product - self._mean * self._its_mean
        self._correlation = covariance / np.sqrt((variance + NOISE / 4) * (its_variance + NOISE / 4))
        self.detailed = self.inside & (np.maximum(variance, its_variance) > NOISE)

    def weights(self) -> Real:
        """Return 1 for fields that agree and -1 for those that differ, less for those without detail, else 0."""
        agrees = self.detailed & (self._correlation > AGREES)
        weights = agrees.astype(np.float32) - (self.detailed & (self._correlation < DIFFERS))
        if agrees.sum() < FEWEST:
            return weights
        ones, others = self._mean[agrees], self._its_mean[agrees]
        change = float(np.cov(ones, others, ddof=0)[0, 1]) / max(float(ones.var()), 1e-3)
        level = others.mean() - change * ones.mean()
        is_alike = np.abs(change * self._mean + level - self._its_mean) < TONE
        flat = np.where(is_alike, FLAT, -FLAT)
        return np.where(self.inside & ~self.detailed, flat, weights).astype(np.float32)


def _laid_on(query: Grey, photo: Grey, alignment: Alignment) -> tuple[Grey, Grey, Grey]:
    """Return a reduced query, what a photo shows in its place, and where the photo shows anything."""
    first, size = query, (query.shape[1], query.shape[0])
    corners = np.array(alignment.corners) * (photo.shape[1], photo.shape[0])
    coarseness = float(np.hypot(*(corners[1] - corners[0]))) / size[0]  # pixels of the photo in one of the query
    if coarseness > 1:
        width, height = (max(1, round(side / coarseness)) for side in photo.shape[::-1])
        photo = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        corners = np.array(alignment.corners) * (photo.shape[1], photo.shape[0])
    elif coarseness < 0.8:  # the photo cannot show the finest detail
        first = blurred(first, 0.5 * float(np.sqrt(1 / max(coarseness, 0.1) ** 2 - 1)))
    origin, right, _, below = corners
    matrix = np.column_stack([(right - origin) / size[0], (below - origin) / size[1], origin])
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # from the corners of pixels to their centres
    second = cv2.warpAffine(
        photo, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    everywhere = np.full(photo.shape, 255, np.uint8)
    common = cv2.warpAffine(everywhere, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return first, np.asarray(second, np.uint8), np.asarray(common, np.uint8)


def _heaviest(weights: Real) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the rectangle whose weights have the largest sum.

    The best columns are found for all tops and bottoms at once, by Kadane's algorithm: Bentley, "Programming
    pearls: algorithm design techniques", CACM 1984.
    """
    rows, columns = weights.shape
    above = np.vstack([np.zeros((1, columns), np.float32), weights.cumsum(axis=0)])
    tops, bottoms = np.triu_indices(rows + 1, 1)
    before = np.zeros((len(tops), columns + 1), np.float32)
    np.cumsum(above[bottoms] - above[tops], axis=1, out=before[:, 1:])
    gains = before - np.minimum.accumulate(before, axis=1)
    band, right = divmod(int(gains.argmax()), columns + 1)
    return int(tops[band]), int(bottoms[band]), int(before[band, :right].argmin()), right


def _means(values: NDArray[np.float32]) -> Real:
    """Return the means over 3 x 3 fields, one for each field."""
    rows, columns = (side // FIELD for side in values.shape)
    whole = values[: rows * FIELD, : columns * FIELD]
    fields = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.blur(fields, (3, 3), borderType=cv2.BORDER_REFLECT), np.float32)
