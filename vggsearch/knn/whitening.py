"""PCA whitening learned on the indexed photos: it removes what most of them have in common."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import WHITENING
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.vectors import unit_rows
from vggsearch.system.threads import single_threaded_blas


@dataclass(frozen=True)
class Whitening:
    """A transform of embeddings after which the cosine similarity separates copies from similar photos.

    An embedding x becomes `matrix` @ x + `bias`, scaled to unit length; `matrix` is float32 (k, dim), `bias`
    float32 (k,).
    """

    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """The dimensions of a whitened vector."""
        return len(self.matrix)

    def apply(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Whiten embeddings (n, dim): returns float32 (n, k), rows of unit length."""
        return unit_rows(unit_rows(embeddings) @ self.matrix.T + self.bias)

    def chain(self) -> list[Any]:
        """Return the two FAISS transforms for an IndexPreTransform, in the order in which they are applied."""
        linear = faiss().LinearTransform(self.matrix.shape[1], self.dim, True)
        faiss().copy_array_to_vector(np.ascontiguousarray(self.matrix).ravel(), linear.A)
        faiss().copy_array_to_vector(np.ascontiguousarray(self.bias), linear.b)
        linear.is_trained = True
        return [linear, faiss().NormalizationTransform(self.dim, 2.0)]


@dataclass(frozen=True)
class WhiteningOptions:
    """How to whiten: to `dim` dimensions (0: not at all), with the covariance shrunk by at least `shrinkage`."""

    dim: int = WHITENING.dim
    shrinkage: float = WHITENING.least_shrinkage


def learn(
    blocks: Iterable[NDArray[np.float16]],
    dim: int,
    rows: int,
    without: NDArray[np.int64],
    options: WhiteningOptions | None = None,
) -> tuple[Whitening, float] | None:
    """Learn a whitening from blocks of embeddings, float16 (n, dim), `rows` in total, except the rows in `without`.

    PCA whitening: Jegou & Chum, "Negative evidences and co-occurences in image retrieval", ECCV 2012, section 3.
    The covariance is shrunk towards a multiple of the identity, as much as its sampling error requires (Chen,
    Wiesel, Eldar & Hero, "Shrinkage algorithms for MMSE covariance estimation", 2010, equation 23) and at least by
    options.shrinkage. One covariance matrix and one block are in memory. From a large collection, only evenly
    spaced rows are used.

    Returns the whitening and the shrinkage, 0..1; None where whitening is switched off or cannot help: with too few
    photos, with vectors too long for a covariance matrix, or if all photos are the same.
    """
    options = options or WhiteningOptions()
    if options.dim == 0 or rows - len(without) < WHITENING.fewest_rows or dim > WHITENING.longest_vector:
        return None
    count, mean, covariance = _moments(blocks, dim, max(1, rows // WHITENING.most_rows), without)
    shrinkage = max(_sampling_shrinkage(covariance, count), options.shrinkage)
    with single_threaded_blas():  # 0.06 s more than on two cores, rather than 3 s where other programs use them
        values, vectors = np.linalg.eigh(covariance)
    kept = min(options.dim, dim, count - 1)
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    average = np.trace(covariance) / dim
    if average <= 0:
        return None
    matrix = (vectors * ((1 - shrinkage) * np.maximum(values, 0) + shrinkage * average) ** -0.5).T
    bias = -matrix @ mean
    return Whitening(matrix.astype(np.float32), bias.astype(np.float32)), round(shrinkage, 4)


def _moments(
    blocks: Iterable[NDArray[np.float16]], dim: int, step: int, without: NDArray[np.int64]
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Return count, mean (dim,) and covariance (dim, dim) of every `step`-th row that is not in `without`."""
    count, start = 0, 0
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for block in blocks:
        rows = np.arange(start, start + len(block))
        chosen = np.flatnonzero((rows % step == 0) & ~np.isin(rows, without))
        start += len(block)
        for part in np.split(chosen, range(WHITENING.block_rows, len(chosen), WHITENING.block_rows)):
            vectors = unit_rows(block[part])
            count += len(vectors)
            total += vectors.sum(axis=0, dtype=np.float64)
            products += vectors.T @ vectors
    mean = total / count
    return count, mean, products / count - np.outer(mean, mean)


def _sampling_shrinkage(covariance: NDArray[np.float64], count: int) -> float:
    """Return the oracle approximating shrinkage (OAS), 0..1, of a covariance estimated from `count` rows."""
    dim = len(covariance)
    squares, square_of_trace = float((covariance**2).sum()), float(np.trace(covariance) ** 2)
    numerator = (1 - 2 / dim) * squares + square_of_trace
    denominator = (count + 1 - 2 / dim) * (squares - square_of_trace / dim)
    return min(1.0, numerator / denominator) if denominator > 0 else 1.0
