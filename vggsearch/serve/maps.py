"""A map of all photos, on which similar ones are near each other: t-SNE of their embeddings.

van der Maaten & Hinton, "Visualizing data using t-SNE", JMLR 2008, after a principal component analysis. Of many
photos, a random part is placed so, and each other one at the most similar of these.
"""

from http import HTTPStatus
from importlib.util import find_spec
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import SERVE
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.serve.answers import Problem
from vggsearch.serve.jobs import Job, Jobs, Values
from vggsearch.serve.library import IndexLibrary, Photos

COMPONENTS = 50  # of the principal component analysis: what the authors of t-SNE advise
PERPLEXITY = 30.0  # neighbours that a photo attends to
SPREAD = 0.004  # around the photo beside which another one is placed, of the width of the map
BLOCK = 4096  # photos that are compared at once
STAGES = ("reading", "reducing", "placing", "placing the rest")
Points = NDArray[np.float64]


class Maps:
    """The map of the present state, and the job that makes it."""

    def __init__(self, library: IndexLibrary, jobs: Jobs) -> None:
        self._library, self._jobs = library, jobs
        self._made: tuple[Photos, Points] | None = None
        self._job: tuple[Photos, Job] | None = None
        self._changing = Lock()

    def get(self) -> Values | Job:
        """Return the map, or the job that makes it. Raises Problem without scikit-learn."""
        photos, _ = self._library.photos()
        with self._changing:
            if self._made is not None and self._made[0] is photos:
                return _values(*self._made)
            if self._job is None or self._job[0] is not photos or self._job[1].has_ended:
                if find_spec("sklearn") is None:
                    what = "The map needs scikit-learn. Install it: pip install 'vggsearch[eval]'"
                    raise Problem(HTTPStatus.NOT_IMPLEMENTED, what)
                self._job = photos, self._jobs.start("map", self._make, lambda made: {"photos": made})
            return self._job[1]

    def _make(self, progress: OnProgress, stop: Stop) -> int:
        monitor = Monitor(progress, stop)
        monitor.step(STAGES[0], 0, len(STAGES), "stages")
        photos, vectors = self._library.embeddings()
        made = photos, placed(vectors, monitor)
        with self._changing:
            self._made = made
        return len(photos)


def placed(vectors: NDArray[np.float32], monitor: Monitor) -> Points:
    """Return where each of some unit vectors (n, d) lies on the map: x and y from 0 to 1, float64 (n, 2)."""
    monitor.step(STAGES[1], 1, len(STAGES), "stages")
    reduced = principal(vectors)
    chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[: SERVE.map_photos])
    monitor.step(STAGES[2], 2, len(STAGES), "stages")
    points = _scaled(_neighbourly(reduced[chosen]))
    monitor.step(STAGES[3], 3, len(STAGES), "stages")
    return _with_others(reduced, chosen, points)


def principal(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first COMPONENTS principal components of vectors (n, d), or all of them: float32 (n, k)."""
    if not len(vectors):
        return vectors
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    components: NDArray[np.float32] = centred @ axes[:, : -COMPONENTS - 1 : -1]
    return components


def _neighbourly(reduced: NDArray[np.float32]) -> Points:
    """Return points near each other for photos that are similar; t-SNE needs more than a few photos."""
    few = 4
    if len(reduced) < few:
        return np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - reduced.shape[1])))).astype(np.float64)
    from sklearn.manifold import TSNE  # takes a second

    perplexity = min(PERPLEXITY, (len(reduced) - 1) / 3)
    points: Points = (
        TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced).astype(np.float64)
    )
    return points


def _scaled(points: Points) -> Points:
    """Return points moved and scaled into the square from 0 to 1, by one factor."""
    if not len(points):
        return points
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    scaled: Points = (points - low - size / 2) / max(float(size.max()), 1e-9) + 0.5
    return scaled


def _with_others(reduced: NDArray[np.float32], chosen: NDArray[np.int64], points: Points) -> Points:
    """Return the points of all photos: of those `chosen`, and of each other one beside the most similar of them."""
    if len(chosen) == len(reduced):
        return points
    nearest = np.concatenate(
        [
            (reduced[start : start + BLOCK] @ reduced[chosen].T - (reduced[chosen] ** 2).sum(axis=1) / 2).argmax(
                axis=1
            )
            for start in range(0, len(reduced), BLOCK)
        ]
    )
    found = points[nearest] + np.random.default_rng(0).normal(0, SPREAD, (len(reduced), 2))
    found[chosen] = points
    within: Points = found.clip(0, 1)
    return within


def _values(photos: Photos, points: Points) -> Values:
    rounded = np.round(points, 4)
    return {"total": len(photos), "ids": photos.ids, "x": rounded[:, 0].tolist(), "y": rounded[:, 1].tolist()}
