"""Whether the larger of two copies shows more detail, or was only enlarged.

The power spectrum of photos falls with the square of the frequency (Field, "Relations between the statistics of
natural images", JOSA A 1987), so every octave holds about the same energy. An enlarged picture has hardly any above
the highest frequency of the smaller one.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import DETAIL

# The discrete cosine transform of eight values (ITU-T T.81, A.3.3).
COSINES = np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16) / 2
COSINES[0] /= np.sqrt(2)
FREQUENCIES = (np.arange(DETAIL.rings) + 0.5) / DETAIL.rings


@dataclass(frozen=True, eq=False)
class Detail:
    """How fine the detail of a part of a photo is.

    `energy`, float64 (DETAIL.rings,), is that of an octave around each of FREQUENCIES, 1 for the highest. That of
    white noise is its variance, in squared grey levels, times the square of the frequency.
    """

    energy: NDArray[np.float64]

    def is_real(self, ratio: float, least: float = DETAIL.real) -> bool:
        """Return whether the part shows more than a copy of 1 / `ratio` of its size could.

        It has at least `least` times the energy in the octave above the highest frequency of the copy as in that
        below. Less than DETAIL.least is the noise of a JPEG: a blurred copy has no more on either side.
        """
        if ratio < DETAIL.least_ratio:
            return False
        energy, frequency = self.energy, FREQUENCIES
        highest = 1 / ratio  # of the smaller copy
        is_above = (frequency > 1.1 * highest) & (frequency < min(2 * highest, 0.95))
        above, variance = energy[is_above], (energy / frequency**2)[is_above]
        below = energy[(frequency > 0.5 * highest) & (frequency < 0.9 * highest)]
        low = energy[(frequency > 0.15 * highest) & (frequency < 0.5 * highest)]
        if not len(above) or not len(below) or not len(low):
            return False
        is_more_than_noise = np.median(variance) > DETAIL.least
        return bool(
            is_more_than_noise
            and np.median(above) > max(least * np.median(below), DETAIL.above_noise * np.median(low))
        )


def detail_of(part: Image.Image) -> Detail | None:
    """Return the detail of a part of a photo at full size; None if it is tiny."""
    grey = np.asarray(part.convert("L"), np.float64)
    return Detail(_spectrum(grey, min(*grey.shape, DETAIL.side))) if min(grey.shape) >= DETAIL.least_side else None


def has_jpeg_grid(part: Image.Image) -> bool:
    """Return whether a part of a photo at full size, cut at a multiple of 8 pixels, was once in a JPEG.

    Quantisation then made many coefficients of the blocks zero, and none of blocks that lie elsewhere.
    See Fan & de Queiroz, "Identification of bitmap compression history", IEEE Trans. Image Processing 2003.
    """
    grey = np.asarray(part.convert("L"), np.float64)
    return _share_of_zeros(grey) > DETAIL.grid * _share_of_zeros(grey[4:, 4:])


def _share_of_zeros(grey: NDArray[np.float64]) -> float:
    """Return the share of high-frequency coefficients, of blocks of eight pixels a side, that round to zero."""
    rows, columns = (length // 8 for length in grey.shape)
    blocks = grey[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3)
    coefficients = COSINES @ blocks @ COSINES.T
    return float(np.mean(np.abs(coefficients[..., 2:, 2:]) < DETAIL.zero))


def _spectrum(grey: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return the energy of an octave around each of FREQUENCIES, the mean over squares of `side` pixels in corners.

    Float64 (DETAIL.rings,).
    """
    window, ring, times, counts = _rings(side)
    rows, columns = ({0, length - side} for length in grey.shape)
    squares = [grey[row : row + side, column : column + side] for row in rows for column in columns]
    power = np.mean([np.abs(np.fft.rfft2((each - each.mean()) * window)) ** 2 for each in squares], axis=0)
    sums = np.bincount(ring, (power * times).ravel())[: DETAIL.rings]
    return np.asarray(sums / counts / np.square(window).sum() * FREQUENCIES**2, np.float64)


@lru_cache(8)
def _rings(side: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return what the spectra of all squares of a size have in common.

    It is the window, the ring of each frequency, how often each is in the whole plane, and the same for each ring.
    """
    across = np.arange(side // 2 + 1)
    ring = (np.hypot(2 * np.fft.fftfreq(side)[:, None], 2 * across / side) * DETAIL.rings).astype(np.int64)
    times = np.broadcast_to(np.where((across == 0) | (2 * across == side), 1.0, 2.0), ring.shape)
    counts = np.bincount(ring.ravel(), times.ravel())[: DETAIL.rings]
    return np.outer(np.hanning(side), np.hanning(side)), ring.ravel(), times, counts
