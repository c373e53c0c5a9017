"""Re-rank the best results of a search: align each with the query and raise its similarity accordingly."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN
from vggsearch.errors import ImageError
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.feature_maps import (
    FULL_IMAGE,
    ORIENTATIONS,
    Levels,
    LocalFeatures,
    Window,
    align_many,
    apply_orientation,
)
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.decoder_pool import Decoders, Source, View

log = logging.getLogger(__name__)

FeaturesByPath = Mapping[str, tuple[Levels, float]]  # path -> the photo's cells at both sizes and its aspect ratio


class Reranker:
    """Aligns query images with the photos of a folder.

    `load_stored` returns the local features of the given paths that the index stores. The features of other photos
    are computed on demand from the photo files, which `decoders()` decode.
    """

    def __init__(
        self,
        root: Path | None,
        spec: EmbeddingSpec,
        engine: Engine,
        load_stored: Callable[[Sequence[str]], FeaturesByPath],
        decoders: Callable[[], Decoders],
    ) -> None:
        self._root, self._spec, self._engine, self._load_stored = root, spec, engine, load_stored
        self._decoders = decoders

    def query_features(self, image: View) -> tuple[NDArray[np.float32], list[LocalFeatures]]:
        """Return the embeddings and the local features of an image in the first few ORIENTATIONS.

        How many is ALIGN.orientations. The embeddings are float32 (orientations, dim), rows of unit length.
        """
        oriented = [apply_orientation(image.pixels, each) for each in ORIENTATIONS[: ALIGN.orientations]]
        embeddings, levels = self._describe(oriented)
        return np.stack(embeddings), [self._features(each, image.aspect) for each in levels]

    def photo_features(self, paths: Sequence[str]) -> list[LocalFeatures | None]:
        """Return the local features of photos, in order; None for a photo whose file can no longer be read."""
        stored = self._load_stored(paths)
        found = {path: self._features(*features) for path, features in stored.items()}
        found |= self._computed([path for path in paths if path not in found])
        return [found.get(path) for path in paths]

    def _computed(self, paths: Sequence[str]) -> dict[str, LocalFeatures]:
        with ThreadPoolExecutor(ALIGN.threads) as pool:
            read = list(pool.map(self._read, paths))
        readable = [(path, each) for path, each in zip(paths, read, strict=True) if each is not None]
        levels = self._describe([view.pixels for _, view in readable])[1]
        return {
            path: self._features(each, view.aspect) for (path, view), each in zip(readable, levels, strict=True)
        }

    def align(
        self, query: Sequence[LocalFeatures], photos: Sequence[LocalFeatures | None]
    ) -> list[Alignment | None]:
        """Return the position of the query in each photo; None if too little matches or the photo is None."""
        alignments = iter(align_many(query, [photo for photo in photos if photo is not None]))
        return [next(alignments) if photo is not None else None for photo in photos]

    def _read(self, path: str) -> View | None:
        if self._root is None:
            return None
        try:
            return self._decoders().view(Source(path, self._root), self._spec.size, self._spec.resize)
        except ImageError as error:
            log.debug("%s is not re-ranked: %s", path, error.reason)
            return None

    def _describe(
        self, squares: Sequence[NDArray[np.uint8]]
    ) -> tuple[list[NDArray[np.float32]], list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
        """Return the embedding of each square and its cells at both sizes."""
        batch_size = self._engine.batch_size
        embeddings, levels = [], []
        for start in range(0, len(squares), batch_size):
            described = self._engine.describe(np.stack(squares[start : start + batch_size]))
            embeddings += list(described.embeddings)
            levels += list(zip(*described.levels, strict=True))
        return embeddings, levels

    def _features(self, levels: tuple[NDArray[np.float32], ...], aspect: float) -> LocalFeatures:
        return LocalFeatures(levels, aspect, VISIBLE_WINDOWS[self._spec.resize](aspect))


def reranked(upright: float, oriented: float, alignment: Alignment | None) -> float:
    """Return the similarity of a photo to a query after geometric verification.

    `upright` is the cosine similarity with the query as it is, `oriented` the largest over all orientations tried.
    Without an alignment the result is `upright`: photos can be similar in ways that the feature maps do not show.
    With one, the larger of the two (a rotated copy is still a copy) is raised towards 1.0, by at most the fraction
    ALIGN.weight of the distance; 1.0 stays 1.0.
    """
    if alignment is None:
        return upright
    similarity = max(upright, oriented)
    return similarity + (1 - similarity) * ALIGN.weight * alignment.score


def confident(alignment: Alignment | None) -> Alignment | None:
    """Return the alignment if its score is high enough to be shown, else None."""
    return alignment if alignment is not None and alignment.score >= ALIGN.confident else None


def _cropped(aspect: float) -> Window:
    width, height = min(1.0, 1 / aspect), min(1.0, aspect)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


def _padded(aspect: float) -> Window:
    width, height = max(1.0, 1 / aspect), max(1.0, aspect)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


# Resize mode -> the window of a photo, given its aspect ratio, that the square network input shows.
VISIBLE_WINDOWS: dict[str, Callable[[float], Window]] = {
    "squash": lambda _aspect: FULL_IMAGE,
    "crop": _cropped,
    "pad": _padded,
}
