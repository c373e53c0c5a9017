"""A perceptual hash of 256 bits, almost the same for copies of a photo, turned and mirrored ones included.

The hash is that of PDQ with one change: Facebook, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing
algorithm", 2019. The photo is reduced to 64 x 64 grey values and transformed by a DCT; 16 x 16 of its coefficients
are kept, without those of the constant. Each bit is the sign of one coefficient; PDQ compares it with the median,
which is close to 0. Since mirroring a picture changes the signs of every second coefficient, and transposing it
transposes them, the hashes in all eight orientations follow from one hash exactly.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 256
BYTES = BITS // 8
ORIENTATIONS = 8  # of a square: as it is, mirrored, upside down, turned by 180 degrees, and all four transposed
GRID = 64  # grey values across and down
FREQUENCIES = 16  # coefficients across and down
NOISE = 30.0  # ten times what the rounding of pixels adds to a coefficient; those of photos are in the hundreds
NO_HASH = bytes(BYTES)
BLOCK = 8192  # hashes compared at once, so that they stay in the cache of the CPU


def perceptual_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Return the hash of a square, uint8 (size, size, 3) in RGB: BYTES bytes.

    It is NO_HASH for a picture of plain areas, whose coefficients are mostly noise: they would all be alike.
    """
    # Pillow and small matrices use one thread: the threads of BLAS would get in the way of other decoder processes.
    grey = Image.fromarray(pixels).convert("F").resize((GRID, GRID), Image.Resampling.BOX)
    coefficients = dct_matrix() @ np.asarray(grey) @ dct_matrix().T
    if np.count_nonzero(np.abs(coefficients) > NOISE) < BITS // 2:
        return NO_HASH
    return np.packbits(coefficients > 0).tobytes()


@cache
def dct_matrix() -> NDArray[np.float32]:
    """Return the matrix of the DCT without its constant: float32 (FREQUENCIES, GRID)."""
    angles = np.pi / (2 * GRID) * np.outer(np.arange(1, FREQUENCIES + 1), 2 * np.arange(GRID) + 1)
    return np.asarray(np.cos(angles), np.float32)


@cache
def reducing_matrix(size: int) -> NDArray[np.float32]:
    """Return the matrix that reduces `size` pixels to the means of GRID intervals: float32 (GRID, size)."""
    edges, pixels = np.linspace(0, size, GRID + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(overlap, 0) * (GRID / size), np.float32)


def differing_bits(one: bytes, other: bytes) -> int:
    """Return in how many bits two hashes differ, in the orientation in which these are fewest."""
    turned = in_all_orientations(np.frombuffer(one, np.uint8)[None])[:, 0]
    return int(np.bitwise_count(turned ^ np.frombuffer(other, np.uint8)).sum(axis=1).min())


def fewest_differing_bits(queries: NDArray[np.uint8], hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return in how many bits each of `hashes` differs from the nearest of `queries`, in any orientation: (n,).

    Both are uint8, (n, BYTES) and (m, BYTES). A row of NO_HASH differs in half of the bits.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64)
    turned = in_all_orientations(queries).reshape(-1, BYTES).view(np.uint64)
    fewest = np.full(len(hashes), BITS // 2, np.int64)
    for start in range(0, len(words), BLOCK):
        block = words[start : start + BLOCK]
        found = fewest[start : start + BLOCK]
        for query in turned:
            np.minimum(found, np.bitwise_count(block ^ query).sum(axis=1, dtype=np.int64), out=found)
        found[~block.any(axis=1)] = BITS // 2
    return fewest


def in_all_orientations(hashes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the hashes, uint8 (n, BYTES), of the pictures in all orientations: uint8 (ORIENTATIONS, n, BYTES)."""
    bits = np.unpackbits(hashes, axis=1).reshape(len(hashes), FREQUENCIES, FREQUENCIES).astype(bool)
    is_odd = np.arange(FREQUENCIES) % 2 == 0  # the first frequency is 1
    across, down = np.broadcast_arrays(is_odd, is_odd[:, None])
    turned = [
        upright ^ signs
        for upright in (bits, bits.transpose(0, 2, 1))
        for signs in (np.zeros_like(across), across, down, across ^ down)
    ]
    return np.packbits(np.stack(turned).reshape(ORIENTATIONS, len(hashes), BITS), axis=2)
