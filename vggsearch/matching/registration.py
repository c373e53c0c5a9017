"""Find the affine transform that lays one picture on another exactly, from about where it lies.

The transform found by keypoints is refined by Gauss-Newton steps with robust weights: Baker & Matthews,
"Lucas-Kanade 20 years on", IJCV 2004.
"""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vggsearch.matching.alignment import Alignment
from vggsearch.matching.tones import Grey, Matrix, blurred, median, sobel, tone_curve, with_tones

ENOUGH = 100  # pixels, at least, for a step of the refinement
CLOSE_ENOUGH = 0.03  # pixels of a step; no further one follows
HALF = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])  # maps the centres of pixels to half the size
LARGEST_STEP = 12.0  # pixels; a larger one means that the pictures do not fit

Scalar = TypeVar("Scalar", bound=np.generic)


def finer_onto_coarser(query: Grey, photo: Grey, alignment: Alignment) -> tuple[Grey, Grey, Matrix]:
    """Return the picture with finer pixels, the common part of the other, and the (2, 3) matrix between them."""
    height, width = query.shape
    top_left, top_right, _, bottom_left = np.array(alignment.corners) * (photo.shape[1], photo.shape[0])
    matrix = np.column_stack([(top_right - top_left) / width, (bottom_left - top_left) / height, top_left])
    finer, coarser = query, photo
    if abs(np.linalg.det(matrix[:, :2])) > 1:
        finer, coarser, matrix = photo, query, np.array(cv2.invertAffineTransform(matrix))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.8:  # fewer pixels cannot show the finest detail
        finer = blurred(finer, 0.5 * float(np.sqrt(1 / scale**2 - 1)))
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]]) * (finer.shape[1], finer.shape[0], 1)
    placed = corners @ matrix.T
    size = (coarser.shape[1], coarser.shape[0])
    left, top = np.clip(np.floor(placed.min(axis=0)), 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(placed.max(axis=0)), 0, size).astype(int).tolist()
    matrix[:, 2] -= (left, top)
    return finer, np.ascontiguousarray(coarser[top:bottom, left:right]), matrix


def refined(finer: Grey, coarser: Grey, inside: Grey, matrix: Matrix) -> Matrix:
    """Return the affine matrix that fits best, found on pictures of half the size and then on these.

    `inside` is not 0 where the finer picture shall fit.
    """
    if min(coarser.shape) < 100:
        return _fitted(finer, coarser, inside, matrix, rounds=6, stride=1)
    small, large = halved(finer), halved(coarser)
    wholly_inside = np.where(halved(inside) == 255, 255, 0).astype(np.uint8)
    found = _fitted(small, large, wholly_inside, _conjugated(HALF, matrix), rounds=6, stride=2)
    return _fitted(finer, coarser, inside, _conjugated(np.linalg.inv(HALF), found), rounds=2, stride=3)


def _fitted(finer: Grey, coarser: Grey, inside: Grey, matrix: Matrix, rounds: int, stride: int) -> Matrix:
    """Return the matrix after some Gauss-Newton steps that use every `stride`-th pixel across and down."""
    finer, target = blurred(finer, 1.0), _Target(blurred(coarser, 1.0), stride)
    for number in range(rounds):
        chosen = target.sample(inside, matrix, cv2.INTER_NEAREST)
        if cv2.countNonZero(chosen) < ENOUGH:
            return matrix
        if number in (0, 2):
            toned = with_tones(finer, tone_curve(target.sample(finer, matrix), target.tones, chosen))
        step = target.step(warped(toned, matrix, coarser), chosen)
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
        self._x, self._y = map(self._every, sobel(picture))
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
            for own, other in zip((self._x, self._y), sobel(laid), strict=True)
        )
        across, down = self._across.take(where), self._down.take(where)
        levels = np.subtract(self.tones, self._every(laid), dtype=np.int16).take(where)
        sizes, error = np.abs(levels), levels.astype(np.float32)
        edges = sizes[x * x + y * y > 4]
        scale = np.float32(1.5 * median(edges if len(edges) > ENOUGH / 2 else sizes) + 1)
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


def warped(picture: Grey, matrix: Matrix, onto: Grey) -> Grey:
    """Return a picture as it lies on another one, its edges repeated around it."""
    size = (onto.shape[1], onto.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def warped_mask(inside: Grey, matrix: Matrix, onto: Grey) -> Grey:
    """Return where a part of a picture lies on another one, 0 around it."""
    size = (onto.shape[1], onto.shape[0])
    return np.asarray(cv2.warpAffine(inside, matrix, size, flags=cv2.INTER_NEAREST), np.uint8)


def halved(picture: Grey) -> Grey:
    """Return a picture at half the size, without an odd last row or column."""
    height, width = (side // 2 for side in picture.shape)
    whole = picture[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _conjugated(change: Matrix, matrix: Matrix) -> Matrix:
    """Return the matrix between pictures of which both were resized by `change`."""
    changed: Matrix = (change @ np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(change))[:2]
    return changed
