"""Isotonic regression, for curves that may only rise."""

import numpy as np
from numpy.typing import NDArray


def isotonic(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return the closest non-decreasing values: isotonic regression by pooling violators, Ayer et al., 1955."""
    weights = np.ones(len(values)) if weights is None else weights
    pooled: list[tuple[float, float, int]] = []  # mean, weight, number of values
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while pooled and pooled[-1][0] > mean:
            last_mean, last_total, last_count = pooled.pop()
            both = max(total + last_total, np.finfo(float).tiny)
            mean = (mean * total + last_mean * last_total) / both
            total, count = total + last_total, count + last_count
        pooled.append((mean, total, count))
    means, _, counts = zip(*pooled, strict=True) if pooled else ((), (), ())
    return np.repeat(np.array(means, np.float64), np.array(counts, np.int64))
