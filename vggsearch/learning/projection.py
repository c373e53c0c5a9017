"""Transforms of embeddings that are learned from labels in closed form."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.whitening import Whitening

Matrix = NDArray[np.float64]
SMALLEST = 1e-12  # of an average variance


class Projections:
    """Transforms learned from some photos: one for each shrinkage and number of dimensions.

    Supervised whitening (Mikolajczyk & Matas, "Improving descriptors for fast tree matching by optimal linear
    projection", ICCV 2007; as used by Radenovic, Tolias & Chum, "Fine-tuning CNN image retrieval with no human
    annotation", PAMI 2019, section 3.3): directions in which photos of one label differ are scaled down, so that
    the scatter within labels becomes the identity. Of the result, the directions are kept in which photos differ
    most. Those are photos of all kinds, labelled or not, so that a kind that has no label stays distinct.

    The scatter within labels is shrunk towards a multiple of the identity, since it is estimated from few photos.
    With fewer photos than dimensions, all is computed in the space that the photos span, which is exact and faster.
    """

    def __init__(
        self, labelled: NDArray[np.float32], label: NDArray[np.int64], others: NDArray[np.float32]
    ) -> None:
        """Learn from unit embeddings (n, dim) with a label each, int64 (n,), and from `others`, (m, dim)."""
        every = np.concatenate([labelled, others]).astype(np.float64)
        self._dim = every.shape[1]
        self._basis = np.eye(self._dim) if len(every) >= self._dim else np.linalg.svd(every, full_matrices=False)[2]
        every = every @ self._basis.T
        vectors = every[: len(labelled)]
        means, place = means_of(vectors, label)
        self._labels = len(means)
        self._mean = every.mean(axis=0)
        self._total = _scatter(every - self._mean)
        self._between = _scatter(means - means.mean(axis=0))
        self._values, self._vectors = np.linalg.eigh(_scatter(vectors - means[place]))

    def whitenings(self, shrinkage: float, dims: Sequence[int]) -> list[Whitening]:
        """Return the transform to each number of dimensions in `dims`, or to fewer if the photos span fewer."""
        white = self._white(shrinkage)
        axes = _ordered_axes(white @ self._total @ white) @ white
        return [self._transform(axes[:dim]) for dim in dims]

    def discriminant(self, shrinkage: float) -> Whitening:
        """Return the transform of linear discriminant analysis, to one dimension less than there are labels.

        It keeps only what tells these labels apart (Fukunaga, "Introduction to statistical pattern recognition",
        1990, chapter 10), so it is no good for photos of other kinds.
        """
        white = self._white(shrinkage)
        return self._transform(_ordered_axes(white @ self._between @ white)[: self._labels - 1] @ white)

    def _white(self, shrinkage: float) -> Matrix:
        """Return the symmetric matrix that makes the scatter within labels the identity."""
        average = max(float(self._values.sum()) / self._dim, SMALLEST)
        variances = (1 - shrinkage) * np.maximum(self._values, 0) + shrinkage * average
        white: Matrix = (self._vectors * variances**-0.5) @ self._vectors.T
        return white

    def _transform(self, axes: Matrix) -> Whitening:
        return Whitening((axes @ self._basis).astype(np.float32), (-axes @ self._mean).astype(np.float32))


def means_of(vectors: Matrix, label: NDArray[np.int64]) -> tuple[Matrix, NDArray[np.int64]]:
    """Return the mean of each label that occurs, (k, dim), and the place of each vector's label, int64 (n,)."""
    _, place, counts = np.unique(label, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    return np.add.reduceat(vectors[np.argsort(place, kind="stable")], starts) / counts[:, None], place


def _scatter(deviations: Matrix) -> Matrix:
    scatter: Matrix = deviations.T @ deviations / len(deviations)
    return scatter


def _ordered_axes(scatter: Matrix) -> Matrix:
    """Return the eigenvectors of a symmetric matrix as rows, largest eigenvalue first."""
    axes: Matrix = np.linalg.eigh(scatter)[1][:, ::-1].T
    return axes
