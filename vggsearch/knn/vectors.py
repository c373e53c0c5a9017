"""Unit vectors: what similarity, a cosine, is computed from."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_NORM = 1e-12
STEP = 4096  # rows that are worked on at once, to bound memory


def unit_rows(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the rows scaled to unit length, float32; float16 rounding had left them a little off it."""
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, SMALLEST_NORM)
    return unit


def blocks_of(blocks: Iterable[NDArray[np.float16]], step: int = STEP) -> Iterator[NDArray[np.float16]]:
    """Yield blocks of rows cut into smaller ones, of at most `step` rows."""
    for block in blocks:
        yield from (block[start : start + step] for start in range(0, len(block), step))
