"""Generate vectors like those of real photos, in any number, so that recall is not measured on noise.

python benchmarks/realistic_vectors.py INDEX...

The embeddings of the photos of some indexes are whitened together. Around each, SCENES scenes are generated,
jittered points on the way to one of its NEIGHBOURS nearest; around scenes, events; around events, photos; and of
some photos, edited copies. So there are near neighbours at every scale, as among photos, neither one cloud of noise
nor only as many distinct places as there are real photos. The jitter has the covariance of the real photos.

Run as a script, it prints how similar the nearest vectors are, for the real photos and for as many generated ones.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import WhiteningOptions, learn
from vggsearch.store.store import Store

NEIGHBOURS = 8  # nearest real photos towards which a scene may lie
FURTHEST = 0.5  # largest share of that way
SCENES = 4  # around each real photo
EVENT = 4  # photos of an event
FAMILY_SHARE = 0.3  # share of vectors in a family of edited copies
FAMILY = 4  # vectors of a family
# Lengths of the jitter, as shares of the length of a vector.
SCENE_JITTER, EVENT_JITTER, PHOTO_JITTER, EDIT_JITTER = (0.6, 1.2), (0.4, 0.8), (0.9, 1.6), (0.3, 1.0)
BLOCK = 1 << 16
PERCENTILES = (1, 10, 25, 50, 75, 90, 99)


def real_vectors(directories: list[Path], dim: int) -> NDArray[np.float32]:
    """Return the embeddings of all photos of the indexes, whitened together: float32 (n, dim), of unit length."""
    embeddings = [block for path in directories for block in Store.open(path).embeddings()]
    rows, width = sum(map(len, embeddings)), embeddings[0].shape[1]
    learned = learn(embeddings, width, rows, np.empty(0, np.int64), WhiteningOptions(dim=dim))
    if learned is None:
        raise SystemExit(f"{rows} photos are too few to learn a whitening.")
    return np.concatenate([learned[0].apply(block) for block in embeddings])


class Realistic:
    """Generates the same vectors for the same photos and seed, however many are requested."""

    def __init__(self, real: NDArray[np.float32], seed: int = 0) -> None:
        self._seed = seed
        values, directions = np.linalg.eigh(np.cov(real.T))
        spread = np.sqrt(np.maximum(values, 0) / values.sum())
        self._spread: NDArray[np.float32] = (directions * spread).T.astype(np.float32)
        self._scenes = self._make_scenes(real, np.random.default_rng((seed, 0)))

    def blocks(self, rows: int) -> Iterator[NDArray[np.float16]]:
        """Yield `rows` vectors in blocks: float16 (some, dim), of unit length before rounding."""
        for number, start in enumerate(range(0, rows, BLOCK)):
            yield self.block(number)[: rows - start].astype(np.float16)

    def block(self, number: int, rows: int = BLOCK) -> NDArray[np.float32]:
        """Return one block, float32 (rows, dim), of complete events and families."""
        random = np.random.default_rng((self._seed, number + 1))
        families = int(rows * FAMILY_SHARE) // FAMILY
        photos = rows - families * (FAMILY - 1)
        scenes = self._scenes[random.integers(0, len(self._scenes), -(-photos // EVENT))]
        events = self._jittered(scenes, EVENT_JITTER, random)
        made = self._jittered(np.repeat(events, EVENT, axis=0)[:photos], PHOTO_JITTER, random)
        edited = made[random.permutation(photos)[:families]]
        copies = self._jittered(np.repeat(edited, FAMILY - 1, axis=0), EDIT_JITTER, random)
        return np.concatenate([made, copies])[random.permutation(rows)]

    def _make_scenes(self, real: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        similarity = real @ real.T
        np.fill_diagonal(similarity, -2)
        near = np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]
        one = np.repeat(np.arange(len(real)), SCENES)
        other = near[one, random.integers(0, NEIGHBOURS, len(one))]
        way = random.uniform(0, FURTHEST, (len(one), 1)).astype(np.float32)
        between = unit_rows((1 - way) * real[one] + way * real[other])
        return self._jittered(between, SCENE_JITTER, random)

    def _jittered(
        self, vectors: NDArray[np.float32], lengths: tuple[float, float], random: np.random.Generator
    ) -> NDArray[np.float32]:
        away = random.standard_normal(vectors.shape, np.float32) @ self._spread
        return unit_rows(vectors + random.uniform(*lengths, (len(vectors), 1)).astype(np.float32) * away)


def nearest_similarities(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the similarity of each vector with its nearest and its tenth nearest: float32 (2, n)."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    ordered = -np.partition(-similarity, (0, 9), axis=1)
    return np.stack([ordered[:, 0], ordered[:, 9]])


def main(directories: list[Path], dim: int = 256) -> None:
    real = real_vectors(directories, dim)
    made = Realistic(real).block(0, len(real))
    print(f"Similarity of {len(real):,} vectors of {dim} dimensions with their nearest and their tenth nearest.")
    print("| percentile | " + " | ".join(map(str, PERCENTILES)) + " |")
    for name, vectors in (("real", real), ("generated", made)):
        for place, values in zip(("nearest", "tenth"), nearest_similarities(vectors), strict=True):
            print(
                f"| {name}, {place} | " + " | ".join(f"{x:.2f}" for x in np.percentile(values, PERCENTILES)) + " |"
            )
    print(
        f"standard deviation of all pairs: real {np.std(real @ real.T):.3f}, generated {np.std(made @ made.T):.3f}"
    )


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
