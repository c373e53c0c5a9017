"""Check the best answers of a search by geometry: where in each does the query lie, and what is that worth?"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import ALIGN
from vggsearch.errors import ImageError
from vggsearch.geometry import ORIENTATIONS, WHOLE, Alignment, LocalFeatures, Window, orient, verify
from vggsearch.images import decode, decoder_errors
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.preprocess import square

log = logging.getLogger(__name__)

SMALLEST_SIDE = 32  # pixels that a network with five poolings takes
Squares = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # (size, size, 3) and half of it


class Aligner:
    """Aligns pictures with photos of a folder. Local features are made on demand, from the photos themselves."""

    def __init__(self, root: Path, spec: EmbeddingSpec, engine: Engine) -> None:
        self._root, self._spec, self._engine = root, spec, engine

    def of_query(self, picture: Image.Image) -> list[LocalFeatures]:
        """Return the local features of a query, upright RGB, in as many ORIENTATIONS as are tried."""
        squares = self._squares(picture)
        oriented = [
            (np.ascontiguousarray(orient(squares[0], each)), np.ascontiguousarray(orient(squares[1], each)))
            for each in ORIENTATIONS[: ALIGN.orientations]
        ]
        aspect = picture.width / picture.height
        return [self._features(levels, aspect) for levels in self._levels(oriented)]

    def of_photos(self, paths: Sequence[str]) -> list[LocalFeatures | None]:
        """Return the local features of some photos, in order; None for each that cannot be read any more."""
        with ThreadPoolExecutor(ALIGN.threads) as pool:
            read = list(pool.map(self._read, paths))
        pictures = [each for each in read if each is not None]
        levels = iter(self._levels([squares for squares, _ in pictures]))
        return [self._features(next(levels), each[1]) if each is not None else None for each in read]

    def align(
        self, query: Sequence[LocalFeatures], photos: Sequence[LocalFeatures | None]
    ) -> list[Alignment | None]:
        """Say where in each photo the query lies: None where it does not, or where there is no photo."""
        found = iter(verify(query, [photo for photo in photos if photo is not None]))
        return [next(found) if photo is not None else None for photo in photos]

    def _read(self, path: str) -> tuple[Squares, float] | None:
        try:
            with decoder_errors(), (self._root / path).open("rb") as file:
                picture = decode(file, path, at_least=self._spec.size).image
        except ImageError as error:
            log.debug("%s is not checked by geometry: %s", path, error.reason)
            return None
        return self._squares(picture), picture.width / picture.height

    def _squares(self, picture: Image.Image) -> Squares:
        """Return a picture as the network sees it, and at half the size, so that a crop finds its own scale."""
        size, half = self._spec.size, max(SMALLEST_SIDE, self._spec.size // 2)
        return square(picture, size, self._spec.resize), square(picture, half, self._spec.resize)

    def _levels(self, pictures: Sequence[Squares]) -> list[tuple[NDArray[np.float32], ...]]:
        """Return the cells of each picture at each size."""
        return list(zip(*(self._cells(level) for level in zip(*pictures, strict=True)), strict=True))

    def _cells(self, squares: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        at_once = self._engine.batch_size
        batches = [np.stack(squares[start : start + at_once]) for start in range(0, len(squares), at_once)]
        return [cells for batch in batches for cells in self._engine.local(batch)]

    def _features(self, levels: tuple[NDArray[np.float32], ...], aspect: float) -> LocalFeatures:
        return LocalFeatures(levels, aspect, WINDOWS[self._spec.resize](aspect))


def joined(similarity: float, alignment: Alignment | None) -> float:
    """Return a similarity, raised by what geometry says: at most ALIGN.weight of the way to 1.0, where 1.0 stays.

    Without an alignment it stays as it is: the network knows more ways to be alike than a map shows.
    """
    if alignment is None:
        return similarity
    return similarity + (1 - similarity) * ALIGN.weight * alignment.score


def believed(alignment: Alignment | None) -> Alignment | None:
    """Return an alignment that is strong enough to be told, else None."""
    return alignment if alignment is not None and alignment.score >= ALIGN.believed else None


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
