"""Local features: one unit vector per cell of the feature map before pool5, independent of the backend.

Those of a query are computed at two image sizes, so that a crop, in which things are larger, matches the whole
photo. Of a photo, one is enough. Networks other than VGG have none: what tells the same picture from another was
measured with VGG's maps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EMBEDDING
from vggsearch.model.layers import CELL_PIXELS
from vggsearch.model.poolings import Maps, Operations
from vggsearch.model.weights import Kernel

LoadKernels: TypeAlias = Callable[[], Mapping[str, Kernel]]  # of `modules_before_cells`
LEVELS = 2  # at most: of the image at its size, and at half of it

# sha256 of the weights -> the whitening that benchmarks/learn_local_whitening.py learned for them.
VGG16_WHITENING = Path(__file__).parent / "weights" / "vgg16_local_whitening.npz"
WHITENINGS = {
    "44a1e7d7bd5ed81479c75aa4a772e74ef8f062b1cc6a15dd59a67860c52a11ec": VGG16_WHITENING,
    # vgg16_half, whose maps approximate those of VGG16
    "88f86af75e45aecb04a229b7a6ea4da0f032c3fbc99f89c29431ee92fc119f68": VGG16_WHITENING,
}


@dataclass(frozen=True, eq=False)
class LocalWhitening:
    """PCA-whitening of cells, float32: subtract `mean` (channels,), apply `projection` (dimensions, channels)."""

    mean: NDArray[np.float32]
    projection: NDArray[np.float32]


def find_whitening(weights_sha256: str) -> LocalWhitening | None:
    """Return the whitening learned for the packaged weights; None for others, whose cells keep all channels."""
    if weights_sha256 not in WHITENINGS:
        return None
    with np.load(WHITENINGS[weights_sha256], allow_pickle=False) as stored:
        return LocalWhitening(stored["mean"].astype(np.float32), stored["projection"].astype(np.float32))


def half_size(size: int) -> int:
    """Return the side in pixels of the smaller image that cells are computed from."""
    return max(EMBEDDING.smallest_size, size // 2)


def no_cells(count: int, size: int, levels: int = LEVELS) -> tuple[NDArray[np.float32], ...]:
    """Return the local features of so many images for a network without any: they resemble nothing."""
    sides = [size, half_size(size)][:levels]
    return tuple(np.zeros((count, *[side // CELL_PIXELS] * 2, 1), np.float32) for side in sides)


def local_cells(maps: Maps, whitening: LocalWhitening | None, on: Operations) -> Maps:
    """Turn maps (n, channels, rows, columns) >= 0 into cells (n, rows, columns, dimensions) of unit length.

    Square root and L2 as in `spoc`; PCA-whitening after Jegou & Chum, "Negative evidences and co-occurences in
    image retrieval: the benefit of PCA and whitening", ECCV 2012, section 3.
    """
    cells = on.unit(on.power(maps, 0.5))
    if whitening is not None:
        cells = on.unit(on.project(cells, whitening.projection, -whitening.projection @ whitening.mean))
    return on.channels_last(cells)
