"""Region vectors: a few squares of a photo, each a vector, so that a picture finds the photos that contain it.

The regions are those of R-MAC (Tolias, Sicre & Jegou, "Particular object retrieval with integral max-pooling of CNN
activations", ICLR 2016, section 3.2), at four scales. Each is the mean of its cells, which are whitened already and
of either sign, where a maximum would say little.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vggsearch.model.poolings import rmac_regions

LEVELS = 4  # scales: the whole square, then 4, 9 and 16 squares of it
BLOCK = 4096  # photos that are compared at once, to bound memory


def region_vectors(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors of all regions of cells (rows, columns, d): float32 (30, d), rows of unit length."""
    rows, columns, _ = cells.shape
    means = [
        cells[top : top + side, left : left + side].mean(axis=(0, 1))
        for top, left, side in rmac_regions(rows, columns, LEVELS)
    ]
    return _unit(np.stack(means))


def part_vectors(levels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the vectors of a picture that may be a part of others, one for each array of its coarse cells.

    The cells are those of the picture at half the size, where things are about as large as in a photo that it is
    a part of. Returns float32 (n, d), rows of unit length.
    """
    return _unit(np.stack([cells.mean(axis=(0, 1)) for cells in levels]))


def best_regions(parts: NDArray[np.float32], regions: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return how similar each photo's most similar region is to any of some parts (m, d): float32 (n,).

    `regions` are the stored vectors (n, 30, d), which may be memory-mapped.
    """
    found = np.empty(len(regions), np.float32)
    for start in range(0, len(regions), BLOCK):
        block = regions[start : start + BLOCK].astype(np.float32)
        norms = np.maximum(np.linalg.norm(block, axis=2, keepdims=True), 1)
        found[start : start + BLOCK] = ((block / norms) @ parts.T).max(axis=(1, 2))
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
