"""Region vectors: one vector for each of several square regions of a photo, to find photos that contain an image.

The regions are those of R-MAC (Tolias, Sicre & Jegou, "Particular object retrieval with integral max-pooling of CNN
activations", ICLR 2016, section 3.2), at four scales. A region's vector is the mean of its cells. R-MAC takes their
maximum, but these cells are whitened, so their values have either sign and a maximum carries little information.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.vectors import unit_rows
from vggsearch.model.poolings import rmac_regions

REGION_SCALES = 4  # the whole square, then 4, 9 and 16 overlapping squares of it
PHOTOS_PER_BLOCK = 4096  # compared at once, to bound memory


def region_vectors(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors of all regions of cells (rows, columns, d): float32 (30, d), each of unit length."""
    rows, columns, dimensions = cells.shape
    return unit_rows(_sums(rows, columns) @ cells.reshape(-1, dimensions))


@cache
def _sums(rows: int, columns: int) -> NDArray[np.float32]:
    """Return the matrix (30, rows * columns) that sums the cells of each region, in the direction of their mean."""
    regions = rmac_regions(rows, columns, REGION_SCALES)
    sums = np.zeros((len(regions), rows, columns), np.float32)
    for of_region, (top, left, side) in zip(sums, regions, strict=True):
        of_region[top : top + side, left : left + side] = 1
    return sums.reshape(len(regions), -1)


def query_vectors(levels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the vectors of an image that other photos may contain, one per array of cells: float32 (n, d), unit.

    Each array, (rows, columns, d), is one orientation of the image at half the size, in which objects are about as
    large as in a photo that contains the image.
    """
    return unit_rows(np.stack([cells.mean(axis=(0, 1)) for cells in levels]))


def best_similarities(queries: NDArray[np.float32], regions: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the largest similarity of any region of each photo to any of the `queries` (m, d): float32 (n,).

    `regions` are the stored vectors (n, 30, d), which may be memory-mapped.
    """
    best = np.empty(len(regions), np.float32)
    for start in range(0, len(regions), PHOTOS_PER_BLOCK):
        block = unit_rows(regions[start : start + PHOTOS_PER_BLOCK])
        best[start : start + PHOTOS_PER_BLOCK] = (block @ queries.T).max(axis=(1, 2))
    return best
