"""Vectors that have neighbours, as photos have, and indexes of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.build import Extended, build, build_from_previous, whitened_blocks
from vggsearch.knn.edges import SIMILARITY_STEPS
from vggsearch.knn.keys import NO_KEY, ROW_MASK
from vggsearch.knn.recipes import plan
from vggsearch.knn.vector_index import Tuning, VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import Whitening
from vggsearch.progress import SILENT

DIM = 32
DEAD_SLOTS_TUNING = Tuning(16, 4)


def families(rows: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float16]:
    """Return unit vectors in families of about ten, some nearer to one another than others."""
    random = np.random.default_rng(seed)
    parents = np.random.default_rng(99).standard_normal((max(1, rows // 10), dim))
    jitter = random.standard_normal((rows, dim)) * random.uniform(0.1, 0.6, (rows, 1))
    return unit_rows(parents[random.integers(0, len(parents), rows)] + jitter).astype(np.float16)


def saved(
    directory: Path,
    stored: NDArray[np.float16],
    recipe: str = "flat",
    tuning: Tuning | None = None,
    whitening: Whitening | None = None,
) -> VectorIndex:
    """Return the index of some embeddings, built in `directory` and opened."""
    directory.mkdir()
    dim = stored.shape[1]
    planned = plan(len(stored), whitening.dim if whitening is not None else dim, recipe, 10**12, 0.99, dim)
    build(directory, whitened_blocks([stored], whitening), planned, whitening, SILENT)
    return VectorIndex.open(directory, len(stored), dim, tuning)


def saved_with_dead_slots(directory: Path, stored: NDArray[np.float16], kept: NDArray[np.int64]) -> VectorIndex:
    """Return an index of only the `kept` rows of an earlier one, which still has slots for all of them."""
    directory.mkdir()
    before = saved(directory / "old", stored, "ivf-sq8", DEAD_SLOTS_TUNING)
    new = directory / "new"
    new.mkdir()
    extended = Extended(directory / "old", before, kept, whitened_blocks([], None), 0)
    build_from_previous(new, extended, len(stored), SILENT)
    return VectorIndex.open(new, len(kept), stored.shape[1], DEAD_SLOTS_TUNING)


def keys_by_numpy(stored: NDArray[np.float16], count: int, without: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the keys of the `count` nearest other rows of each row, from float64 products: int64 (n, count)."""
    unit = stored.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    steps = np.rint(np.minimum(unit @ unit.T, 1) * SIMILARITY_STEPS).astype(np.int64)
    keys = (steps << 32) + (ROW_MASK - np.arange(len(stored)))
    np.fill_diagonal(keys, NO_KEY)
    keys[without] = keys[:, without] = NO_KEY
    keys = -np.sort(-keys, axis=1)[:, :count]
    return np.pad(keys, ((0, 0), (0, count - keys.shape[1])), constant_values=NO_KEY)
