"""PCA-whitening, learned on the collection that is searched: what most of its photos share stops counting."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import WHITENING
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.vectors import unit_rows


@dataclass(frozen=True)
class Whitening:
    """Turns embeddings into vectors whose cosine tells copies from look-alikes.

    `matrix`, float32 (k, dim), and `bias`, float32 (k,), are followed by a scaling to unit length.
    """

    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """How many numbers a whitened vector has."""
        return len(self.matrix)

    def apply(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the whitened embeddings (n, dim): float32 (n, k), rows of unit length."""
        return unit_rows(unit_rows(embeddings) @ self.matrix.T + self.bias)

    def chain(self) -> list[Any]:
        """Return it as the two FAISS transforms that an IndexPreTransform takes, the first to apply first."""
        linear = faiss().LinearTransform(self.matrix.shape[1], self.dim, True)
        faiss().copy_array_to_vector(np.ascontiguousarray(self.matrix).ravel(), linear.A)
        faiss().copy_array_to_vector(np.ascontiguousarray(self.bias), linear.b)
        linear.is_trained = True
        return [linear, faiss().NormalizationTransform(self.dim, 2.0)]


@dataclass(frozen=True)
class WhiteningOptions:
    """How to whiten: to `dim` numbers, 0 for not at all, with eigenvalues shrunk by at least `shrinkage`, 0..1."""

    dim: int = WHITENING.dim
    shrinkage: float = WHITENING.least_shrinkage


def learn(
    blocks: Iterable[NDArray[np.float16]],
    dim: int,
    rows: int,
    without: NDArray[np.int64],
    options: WhiteningOptions | None = None,
) -> tuple[Whitening, float] | None:
    """Learn from blocks of embeddings, float16 (some, dim), together `rows`, leaving out the rows in `without`.

    PCA-whitening: Jegou & Chum, "Negative evidences and co-occurences in image retrieval", ECCV 2012, section 3.
    The covariance is shrunk towards a multiple of the identity, by what its sampling error asks for (Chen, Wiesel,
    Eldar & Hero, "Shrinkage algorithms for MMSE covariance estimation", 2010, equation 23) and at least by
    options.shrinkage. Memory is one covariance and one block; of a large collection, photos spread evenly
    over it are used.

    Returns the whitening and the shrinkage, 0..1; None where whitening cannot help: for too few photos, for vectors
    too long for a covariance, or where all photos are one.
    """
    options = options or WhiteningOptions()
    if options.dim == 0 or rows - len(without) < WHITENING.fewest_rows or dim > WHITENING.longest_vector:
        return None
    count, mean, covariance = _moments(blocks, dim, max(1, rows // WHITENING.most_rows), without)
    shrinkage = max(_sampling_shrinkage(covariance, count), options.shrinkage)
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
    """Return count, mean (dim,) and covariance (dim, dim) of every `step`-th row that is not left out."""
    count, start = 0, 0
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for block in blocks:
        rows = np.arange(start, start + len(block))
        chosen = np.flatnonzero((rows % step == 0) & ~np.isin(rows, without))
        start += len(block)
        for some in np.split(chosen, range(WHITENING.block_rows, len(chosen), WHITENING.block_rows)):
            vectors = unit_rows(block[some])
            count += len(vectors)
            total += vectors.sum(axis=0, dtype=np.float64)
            products += vectors.T @ vectors
    mean = total / count
    return count, mean, products / count - np.outer(mean, mean)


def _sampling_shrinkage(covariance: NDArray[np.float64], count: int) -> float:
    """Return the oracle approximating shrinkage, 0..1, of a covariance estimated from `count` rows."""
    dim = len(covariance)
    squares, square_of_trace = float((covariance**2).sum()), float(np.trace(covariance) ** 2)
    above = (1 - 2 / dim) * squares + square_of_trace
    below = (count + 1 - 2 / dim) * (squares - square_of_trace / dim)
    return min(1.0, above / below) if below > 0 else 1.0
