"""Find the position of one photo in another by matching SIFT keypoints.

SIFT: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004. Descriptors are compared as in
Arandjelovic & Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012, section 3
(RootSIFT). The transform is a scaling, a rotation and a translation, found by RANSAC: Fischler & Bolles, CACM 1981.
The method needs no network, is invariant to rotation and scale, and hardly ever finds twenty inliers in two
unrelated photos.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import KEYPOINTS
from vggsearch.matching.alignment import MIN_INLIERS, Alignment, score_of
from vggsearch.photos.resize import small_grey

GLANCE = 16  # pixels a side
CLEAR_INLIERS = 20  # with so many, the mirror image is not tried
# A descriptor has 4 x 4 fields of 8 directions (rows, columns, directions), relative to the keypoint's orientation.
MIRRORED_DESCRIPTOR = np.arange(128).reshape(4, 4, 8)[::-1, :, -np.arange(8) % 8].ravel()

Matches = tuple[NDArray[np.int64], NDArray[np.int64]]  # indices of keypoints of the query and of the photo


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of a photo that was resized to `width` x `height` pixels.

    `points`, float32 (n, 2), are x and y in pixels of the resized photo; `descriptors`, uint8 (n, 128), are SIFT's.
    `shapes`, float32 (n, 2), are their size in pixels and their orientation in degrees, clockwise. `picture`, uint8
    (height, width), is the resized photo in grey.
    """

    points: NDArray[np.float32]
    shapes: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    width: int
    height: int
    picture: NDArray[np.uint8]

    @cached_property
    def glance(self) -> NDArray[np.uint8]:
        """The picture squashed to GLANCE x GLANCE pixels."""
        return np.asarray(cv2.resize(self.picture, (GLANCE, GLANCE), interpolation=cv2.INTER_AREA), np.uint8)

    @cached_property
    def sharpness(self) -> float:
        """How much of the contrast of the picture, 0..4, is that of neighbouring pixels."""
        deviation = float(cv2.meanStdDev(self.picture)[1][0, 0])
        edges = cv2.Laplacian(self.picture, cv2.CV_16S)
        return float(cv2.norm(edges, cv2.NORM_L1)) / edges.size / max(deviation, 1.0)


def detect_keypoints(image: Image.Image) -> Keypoints:
    """Return the strongest keypoints, at most KEYPOINTS.count, of an upright RGB image.

    The image is first resized to KEYPOINTS.pixels on the longer side. Keypoints are detected in a smaller one.
    """
    return keypoints_of(small_grey(image, KEYPOINTS.pixels))


def keypoints_of(grey: NDArray[np.uint8]) -> Keypoints:
    """Return the keypoints of a grey picture, uint8 (height, width), as `detect_keypoints` does of an image."""
    ways = ((KEYPOINTS.detected_pixels, KEYPOINTS.contrast), (0, KEYPOINTS.contrast), (0, KEYPOINTS.faint))
    for longer, contrast in ways:
        keypoints = _detected(grey, longer or max(grey.shape), contrast)
        if len(keypoints.points) >= KEYPOINTS.few:
            break
    return keypoints


def _detected(grey: NDArray[np.uint8], longer: int, contrast: float) -> Keypoints:
    """Return the keypoints of a picture, detected with `longer` pixels on its longer side."""
    height, width = grey.shape
    scale = max(grey.shape) / longer
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    found, descriptors = _sift(contrast).detectAndCompute(
        cv2.resize(grey, size, interpolation=cv2.INTER_AREA), None
    )
    found = found[: KEYPOINTS.count]  # OpenCV also returns all that are as strong as the last one
    ratios = (np.array([width, height]) / size).astype(np.float32)
    points = (np.asarray(cv2.KeyPoint.convert(found), np.float32).reshape(-1, 2) + 0.5) * ratios - 0.5
    shapes = np.array([(scale * each.size, each.angle) for each in found], np.float32).reshape(-1, 2)
    if not found:  # OpenCV then returns None for the descriptors
        return Keypoints(points, shapes, np.empty((0, 128), np.uint8), width, height, grey)
    return Keypoints(points, shapes, descriptors[: len(found)].astype(np.uint8), width, height, grey)


def mirrored_keypoints(keypoints: Keypoints) -> Keypoints:
    """Return the keypoints of the mirror image, without detecting them again.

    Since a descriptor is relative to the orientation of its keypoint, mirroring only permutes its values.
    """
    points = np.stack([keypoints.width - 1 - keypoints.points[:, 0], keypoints.points[:, 1]], axis=1)
    shapes = np.stack([keypoints.shapes[:, 0], 180 - keypoints.shapes[:, 1]], axis=1)
    descriptors = keypoints.descriptors[:, MIRRORED_DESCRIPTOR]
    return Keypoints(points, shapes, descriptors, keypoints.width, keypoints.height, keypoints.picture[:, ::-1])


def align(query: Keypoints, photo: Keypoints) -> Alignment | None:
    """Return the position of the query, or of its mirror image, in the photo; None if too little matches."""
    query_roots, photo_roots = root_sift(query.descriptors), root_sift(photo.descriptors)
    upright = _align(query, photo, _nearest(query_roots, photo_roots), is_mirrored=False)
    if upright is not None and upright.inliers >= CLEAR_INLIERS:
        return upright
    nearest = _nearest(query_roots[:, MIRRORED_DESCRIPTOR], photo_roots)
    mirrored = _align(mirrored_keypoints(query), photo, nearest, is_mirrored=True)
    return max(filter(None, (upright, mirrored)), key=lambda alignment: alignment.inliers, default=None)


def _align(query: Keypoints, photo: Keypoints, matches: Matches, *, is_mirrored: bool) -> Alignment | None:
    of_query, of_photo = matches
    if len(of_query) < MIN_INLIERS:
        return None
    matrix, is_inlier = _transform(query.points[of_query], photo.points[of_photo])
    if matrix is None:
        return None
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 1 / KEYPOINTS.largest_scale < scale < KEYPOINTS.largest_scale:
        return None  # maps all of one image to about one point of the other
    fit = np.flatnonzero(is_inlier)
    inliers = max(_covered_fields(query, of_query[fit]), _covered_fields(photo, of_photo[fit]))
    if inliers < MIN_INLIERS:
        return None
    left, right = (query.width, 0.0) if is_mirrored else (0.0, query.width)
    upright = np.array([[left, 0], [right, 0], [right, query.height], [left, query.height]])
    corners = (upright @ matrix[:, :2].T + matrix[:, 2]) / (photo.width, photo.height)
    turned = -float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    areas = (query.width * query.height) / (photo.width * photo.height)
    return Alignment(
        score=score_of(inliers),
        inliers=inliers,
        mirrored=is_mirrored,
        turned=turned,
        scale=scale * float(np.sqrt(areas)),
        corners=tuple((float(x), float(y)) for x, y in corners),
    )


def _covered_fields(keypoints: Keypoints, chosen: NDArray[np.int64]) -> int:
    """Return how many fields of a grid over the image hold chosen keypoints; 0 if all lie in a narrow strip.

    Each field counts once and a strip counts nothing, since two photos may share a caption, a logo or a frame.
    """
    size = (keypoints.width, keypoints.height)
    columns, rows = (keypoints.points[chosen] * KEYPOINTS.grid / size).astype(np.int64).T
    fields = np.zeros((KEYPOINTS.grid, KEYPOINTS.grid), bool)
    fields[rows, columns] = True
    if min(np.count_nonzero(fields.any(axis=axis)) for axis in (0, 1)) < KEYPOINTS.across:
        return 0
    return int(np.count_nonzero(fields))


def _transform(
    query: NDArray[np.float32], photo: NDArray[np.float32]
) -> tuple[NDArray[np.float64] | None, NDArray[np.uint8]]:
    """Return the (2, 3) matrix found by RANSAC, None if none exists, and which matches are its inliers."""
    result: Any = cv2.estimateAffinePartial2D(
        query, photo, ransacReprojThreshold=KEYPOINTS.reach, maxIters=KEYPOINTS.rounds
    )
    return result[0], result[1]


def matching_points(query: Keypoints, photo: Keypoints) -> Matches:
    """Return the indices of keypoints that are each other's nearest neighbour and pass Lowe's ratio test."""
    return _nearest(root_sift(query.descriptors), root_sift(photo.descriptors))


def _nearest(query: NDArray[np.float32], photo: NDArray[np.float32]) -> Matches:
    """Return the same of descriptors as `root_sift` returns them."""
    if len(query) < MIN_INLIERS or len(photo) < MIN_INLIERS:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    similarities = query @ photo.T
    nearest = similarities.argmax(axis=1)
    rows = np.arange(len(nearest))
    best = similarities[rows, nearest]
    is_mutual = best == similarities.max(axis=0)[nearest]  # several times faster than argmax down the columns
    similarities[rows, nearest] = -1
    next_best = similarities.max(axis=1)
    is_clear = 1 - best < KEYPOINTS.ratio**2 * (1 - next_best)  # half the squared distances of unit vectors
    chosen = np.flatnonzero(is_mutual & is_clear)
    _, first = np.unique(nearest[chosen], return_index=True)  # of several that are equally near
    chosen = chosen[np.sort(first)]
    return chosen, nearest[chosen]


def root_sift(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the square roots of L1-normalised descriptors: their dot products are the Hellinger kernel."""
    values = descriptors.astype(np.float32)
    roots: NDArray[np.float32] = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))
    return roots


def _sift(contrast: float) -> cv2.SIFT:
    """Return a new detector: OpenCV does not document that threads may share one."""
    return cv2.SIFT.create(nfeatures=KEYPOINTS.count, contrastThreshold=contrast)
