"""Where in one photo another one lies, by keypoints: small things that both show, at places that fit together.

SIFT: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004; its descriptors compared as in
Arandjelovic & Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012, section 3.
The transform is a scaling, a turn and a shift, found by RANSAC: Fischler & Bolles, CACM 1981. It takes no network,
knows any turn and scale, and hardly ever finds twenty keypoints that fit in two photos that have nothing in common.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from vggsearch.defaults import KEYPOINTS
from vggsearch.matching.alignment import Alignment

FEWEST = 4  # matches; two fix a transform, so fewer would be no evidence
HALF = 10  # inliers that score 0.5
SURE = 20  # inliers from which it is not looked at mirrored, too
# A descriptor is 4 x 4 fields of 8 directions: rows, columns, directions, along the keypoint's own.
MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of a photo: `places`, float32 (n, 2), x and y in pixels of a picture of `width` x `height`.

    `descriptors`, uint8 (n, 128), say what is around each.
    """

    places: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    width: int
    height: int


def keypoints(picture: Image.Image) -> Keypoints:
    """Return the KEYPOINTS.count clearest keypoints of a picture, upright RGB, seen at KEYPOINTS.pixels a side."""
    scale = KEYPOINTS.pixels / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    grey = np.asarray(picture.convert("L").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0))
    found, descriptors = _sift().detectAndCompute(grey, None)
    found = found[: KEYPOINTS.count]  # OpenCV adds all that are as clear as the last one
    places = np.array([each.pt for each in found], np.float32).reshape(-1, 2)
    if not found:  # then there are no descriptors either, but None
        return Keypoints(places, np.empty((0, 128), np.uint8), width, height)
    return Keypoints(places, descriptors[: len(found)].astype(np.uint8), width, height)


@contextmanager
def each_in_one_thread() -> Iterator[None]:
    """Let products of matrices take one thread each, where pairs are compared in several.

    Ours are small: threads that wait for each other's part of one take ten times as long.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def mirrored(seen: Keypoints) -> Keypoints:
    """Return the keypoints of the mirror image, which need not be looked for again.

    What is around a keypoint is described along its own direction, and so is turned over across it.
    """
    places = np.stack([seen.width - 1 - seen.places[:, 0], seen.places[:, 1]], axis=1)
    return Keypoints(places, seen.descriptors[:, MIRRORED], seen.width, seen.height)


def align(query: Keypoints, photo: Keypoints) -> Alignment | None:
    """Say where in a photo a query lies, as it is or mirrored; None where nothing of it does."""
    upright = _align(query, photo, is_mirrored=False)
    if upright is not None and upright.inliers >= SURE:
        return upright
    turned_over = _align(mirrored(query), photo, is_mirrored=True)
    return max(filter(None, (upright, turned_over)), key=lambda alignment: alignment.inliers, default=None)


def _align(query: Keypoints, photo: Keypoints, *, is_mirrored: bool) -> Alignment | None:
    ones, others = _matches(query, photo)
    if len(ones) < FEWEST:
        return None
    matrix, is_inlier = _transform(query.places[ones], photo.places[others])
    if matrix is None:
        return None
    size = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 1 / KEYPOINTS.largest_scale < size < KEYPOINTS.largest_scale:
        return None  # all of one picture in a point of the other
    fit = np.flatnonzero(is_inlier)
    inliers = max(_fields(query, ones[fit]), _fields(photo, others[fit]))
    if inliers < FEWEST:
        return None
    left, right = (query.width, 0.0) if is_mirrored else (0.0, query.width)
    upright = np.array([[left, 0], [right, 0], [right, query.height], [left, query.height]])
    corners = (upright @ matrix[:, :2].T + matrix[:, 2]) / (photo.width, photo.height)
    turned = -float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    areas = (query.width * query.height) / (photo.width * photo.height)
    return Alignment(
        score=inliers / (inliers + HALF),
        inliers=inliers,
        mirrored=is_mirrored,
        turned=turned,
        scale=size * float(np.sqrt(areas)),
        corners=tuple((float(x), float(y)) for x, y in corners),
    )


def _fields(seen: Keypoints, chosen: NDArray[np.int64]) -> int:
    """Return in how many fields of a grid over a picture some keypoints lie; 0 where they lie in a strip of it.

    One in each counts, and a strip is none: what two photos share may be a caption, a logo, or a frame.
    """
    columns, rows = (seen.places[chosen] * KEYPOINTS.grid / (seen.width, seen.height)).astype(np.int64).T
    if min(len(np.unique(rows)), len(np.unique(columns))) < KEYPOINTS.across:
        return 0
    return len(np.unique(rows * KEYPOINTS.grid + columns))


def _transform(
    some: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float64] | None, NDArray[np.uint8]]:
    """Return the matrix (2, 3) that most places agree on, None for none, and which do; OpenCV's types say less."""
    found: Any = cv2.estimateAffinePartial2D(
        some, others, ransacReprojThreshold=KEYPOINTS.reach, maxIters=KEYPOINTS.rounds
    )
    return found[0], found[1]


def _matches(query: Keypoints, photo: Keypoints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which keypoints are each other's most similar, clearly more than the next: Lowe's ratio."""
    if len(query.places) < FEWEST or len(photo.places) < FEWEST:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    similarities = _unit(query.descriptors) @ _unit(photo.descriptors).T
    nearest = similarities.argmax(axis=1)
    ones = np.arange(len(nearest))
    best = similarities[ones, nearest]
    is_mutual = similarities.argmax(axis=0)[nearest] == ones
    similarities[ones, nearest] = -1
    next_best = similarities.max(axis=1)
    is_clear = 1 - best < KEYPOINTS.ratio**2 * (1 - next_best)  # squared distances of unit vectors, halved
    chosen = np.flatnonzero(is_mutual & is_clear)
    return chosen, nearest[chosen]


def _unit(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the square roots of descriptors that sum to one: their products are the Hellinger kernel."""
    numbers = descriptors.astype(np.float32)
    unit: NDArray[np.float32] = np.sqrt(numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1))
    return unit


def _sift() -> cv2.SIFT:
    """Return a new one: it is not said that several threads may use one."""
    return cv2.SIFT.create(nfeatures=KEYPOINTS.count, contrastThreshold=KEYPOINTS.contrast)
