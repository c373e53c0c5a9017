"""Binary codes of keypoints: the signs of random projections of their descriptors.

Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002; the projections are a Hadamard
matrix with random signs, as in Ailon & Chazelle, "The fast Johnson-Lindenstrauss transform", SIAM J. Comput. 2009.
They are taken of the sums and of the differences of the values that mirroring swaps. So the code of a mirrored
keypoint is the code itself with the bits of the differences inverted.
"""

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import VOTES
from vggsearch.knn.keypoint_votes import CodedKeypoints
from vggsearch.matching.keypoints import MIRRORED_DESCRIPTOR, Keypoints, root_sift

HALF = len(MIRRORED_DESCRIPTOR) // 2
ONES = np.flatnonzero(np.arange(2 * HALF) < MIRRORED_DESCRIPTOR)  # values that mirroring swaps with others,
OTHERS = MIRRORED_DESCRIPTOR[ONES]  # which are these


def code_keypoints(keypoints: Keypoints) -> CodedKeypoints:
    """Return the keypoints of a photo with codes of VOTES.bytes bytes."""
    values = root_sift(keypoints.descriptors)
    values -= values.mean(axis=1, keepdims=True)
    sums, differences = values[:, ONES] + values[:, OTHERS], values[:, ONES] - values[:, OTHERS]
    bits = np.concatenate([(sums * SIGNS[0]) @ PROJECTIONS > 0, (differences * SIGNS[1]) @ PROJECTIONS > 0], axis=1)
    sizes, angles = keypoints.shapes.T
    return CodedKeypoints(np.packbits(bits, axis=1), angles, sizes)


def mirrored_codes(keypoints: CodedKeypoints) -> CodedKeypoints:
    """Return the keypoints of the mirror image."""
    return CodedKeypoints(keypoints.codes ^ MIRRORED, 180 - keypoints.angles, keypoints.sizes)


def _hadamard(size: int) -> NDArray[np.float32]:
    """Return Sylvester's Hadamard matrix of a size that is a power of two."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


PROJECTIONS = _hadamard(HALF)
SIGNS = 2 * np.random.default_rng(0).integers(0, 2, (2, HALF)).astype(np.float32) - 1
MIRRORED = np.repeat(np.array([0, 255], np.uint8), VOTES.bytes // 2)
NO_KEYPOINTS = CodedKeypoints(
    np.empty((0, VOTES.bytes), np.uint8), np.empty(0, np.float32), np.empty(0, np.float32)
)
