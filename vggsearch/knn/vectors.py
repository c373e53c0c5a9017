"""Unit vectors, whose dot product is the cosine similarity."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_NORM = 1e-12
BLOCK_ROWS = 4096  # rows processed at once, to bound memory


def unit_rows(vectors: NDArray[np.floating[Any]] | NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the vectors along the last axis as float32 scaled to unit length; a zero vector stays zero.

    Stored vectors need it, too: rounding to float16 or int8 changes their length.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, SMALLEST_NORM)
    return unit


def blocks_of(blocks: Iterable[NDArray[np.float16]], step: int = BLOCK_ROWS) -> Iterator[NDArray[np.float16]]:
    """Split blocks of rows into blocks of at most `step` rows."""
    for block in blocks:
        yield from (block[start : start + step] for start in range(0, len(block), step))
