"""Check the best answers of a search by geometry: where in each does the query lie, and what is that worth?"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import ALIGN
from vggsearch.errors import ImageError
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.feature_maps import ORIENTATIONS, WHOLE, LocalFeatures, Window, align_many, orient
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.decode import decode, decoder_errors
from vggsearch.photos.resize import square

log = logging.getLogger(__name__)

Levels = tuple[NDArray[np.float32], NDArray[np.float32]]
Kept = Mapping[str, tuple[Levels, float]]  # the cells of a photo at both sizes, and its width over its height


class Reranker:
    """Aligns pictures with photos of a folder.

    `kept` returns the local features of some photos, by path, as far as the index keeps them; the others are made
    on demand, from the photos themselves.
    """

    def __init__(
        self, root: Path | None, spec: EmbeddingSpec, engine: Engine, kept: Callable[[Sequence[str]], Kept]
    ) -> None:
        self._root, self._spec, self._engine, self._kept = root, spec, engine, kept

    def of_query(self, picture: Image.Image) -> tuple[NDArray[np.float32], list[LocalFeatures]]:
        """Return what the network says of a query, upright RGB, in each of the ORIENTATIONS that are tried.

        Its embeddings, float32 (orientations, dim), unit rows, and its local features.
        """
        upright = self._square(picture)
        oriented = [orient(upright, each) for each in ORIENTATIONS[: ALIGN.orientations]]
        embeddings, levels = self._described(oriented)
        aspect = picture.width / picture.height
        return np.stack(embeddings), [self._features(each, aspect) for each in levels]

    def of_photos(self, paths: Sequence[str]) -> list[LocalFeatures | None]:
        """Return the local features of some photos, in order; None for each that cannot be read any more."""
        kept = self._kept(paths)
        found = {path: self._features(*features) for path, features in kept.items()}
        found |= self._made([path for path in paths if path not in found])
        return [found.get(path) for path in paths]

    def _made(self, paths: Sequence[str]) -> dict[str, LocalFeatures]:
        with ThreadPoolExecutor(ALIGN.threads) as pool:
            read = list(pool.map(self._read, paths))
        there = [(path, each) for path, each in zip(paths, read, strict=True) if each is not None]
        levels = self._described([pixels for _, (pixels, _) in there])[1]
        return {path: self._features(each, aspect) for (path, (_, aspect)), each in zip(there, levels, strict=True)}

    def align(
        self, query: Sequence[LocalFeatures], photos: Sequence[LocalFeatures | None]
    ) -> list[Alignment | None]:
        """Say where in each photo the query lies: None where it does not, or where there is no photo."""
        found = iter(align_many(query, [photo for photo in photos if photo is not None]))
        return [next(found) if photo is not None else None for photo in photos]

    def _read(self, path: str) -> tuple[NDArray[np.uint8], float] | None:
        if self._root is None:
            return None
        try:
            with decoder_errors(), (self._root / path).open("rb") as file:
                picture = decode(file, path, at_least=self._spec.size).image
        except ImageError as error:
            log.debug("%s is not checked by geometry: %s", path, error.reason)
            return None
        return self._square(picture), picture.width / picture.height

    def _square(self, picture: Image.Image) -> NDArray[np.uint8]:
        return square(picture, self._spec.size, self._spec.resize)

    def _described(
        self, squares: Sequence[NDArray[np.uint8]]
    ) -> tuple[list[NDArray[np.float32]], list[tuple[NDArray[np.float32], NDArray[np.float32]]]]:
        """Return the embedding of each square, and its cells at both sizes."""
        at_once = self._engine.batch_size
        embeddings, levels = [], []
        for start in range(0, len(squares), at_once):
            described = self._engine.describe(np.stack(squares[start : start + at_once]))
            embeddings += list(described.embeddings)
            levels += list(zip(*described.levels, strict=True))
        return embeddings, levels

    def _features(self, levels: tuple[NDArray[np.float32], ...], aspect: float) -> LocalFeatures:
        return LocalFeatures(levels, aspect, WINDOWS[self._spec.resize](aspect))


def reranked(upright: float, oriented: float, alignment: Alignment | None) -> float:
    """Return the similarity of a photo to a query, raised by what geometry says.

    `upright` is the cosine with the query as it is, `oriented` the largest with it in any orientation. Without an
    alignment the first stays: a network knows more ways to be alike than a map shows. With one, the larger counts,
    as a turned copy is still a copy, and is raised by at most ALIGN.weight of the way to 1.0, where 1.0 stays.
    """
    if alignment is None:
        return upright
    similarity = max(upright, oriented)
    return similarity + (1 - similarity) * ALIGN.weight * alignment.score


def confident(alignment: Alignment | None) -> Alignment | None:
    """Return an alignment that is strong enough to be told, else None."""
    return alignment if alignment is not None and alignment.score >= ALIGN.confident else None


def _cropped(aspect: float) -> Window:
    width, height = min(1.0, 1 / aspect), min(1.0, aspect)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


def _padded(aspect: float) -> Window:
    width, height = max(1.0, 1 / aspect), max(1.0, aspect)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


WINDOWS: dict[str, Callable[[float], Window]] = {
    "squash": lambda _aspect: WHOLE,
    "crop": _cropped,
    "pad": _padded,
}
