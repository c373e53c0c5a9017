"""Re-rank the best results of a search: align each with the query and raise its similarity accordingly."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import ALIGN, KEYPOINTS
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
from vggsearch.matching.keypoints import Keypoints, keypoints_of
from vggsearch.matching.recent import Recent
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.decoder_pool import Decoders, Source, View
from vggsearch.photos.frame import inside_frame
from vggsearch.photos.perceptual_hash import BYTES, NO_HASH, perceptual_hash

log = logging.getLogger(__name__)

FRAMED_ORIENTATIONS = 2  # of the picture inside a frame: upright and mirrored
MARGIN = 0.05  # of the width and height of that picture: at its edges, something of the frame may be left

FeaturesByPath = Mapping[str, tuple[Levels, float]]  # path -> the cells of the photo and its aspect ratio


@dataclass(frozen=True, eq=False)
class QueryFeatures:
    """What is compared of a query.

    `embeddings`, float32 (m, dim), and `cells` are those of the query in the first few ORIENTATIONS; `inside`,
    (n, dim), and `inside_cells` those of the picture inside its frame, none without a frame. `hashes`,
    uint8 (k, BYTES), are the perceptual hashes of both, possibly none, and `grey` is the picture for keypoints.
    """

    embeddings: NDArray[np.float32]
    inside: NDArray[np.float32]
    hashes: NDArray[np.uint8]
    cells: list[LocalFeatures]
    inside_cells: list[LocalFeatures]
    grey: NDArray[np.uint8]

    @property
    def all_embeddings(self) -> NDArray[np.float32]:
        """The embeddings of the query and of the picture inside its frame, (n, dim)."""
        return np.concatenate([self.embeddings, self.inside])

    @cached_property
    def keypoints(self) -> Keypoints:
        """The keypoints of the query."""
        return keypoints_of(self.grey)


@dataclass(frozen=True, eq=False)
class PhotoFeatures:
    """What is compared of a photo: its cells, and its keypoints, from the grey picture that `read` returns."""

    cells: LocalFeatures
    read: Callable[[], NDArray[np.uint8] | None]

    @cached_property
    def keypoints(self) -> Keypoints | None:
        """The keypoints of the photo, None if its file can no longer be read."""
        grey = self.read()
        return keypoints_of(grey) if grey is not None else None


class Reranker:
    """Aligns query images with the photos of a folder.

    `load_stored` returns the local features of the given paths that the index stores. The features of other photos
    are computed on demand from the photo files, which `decoders()` decode. What was used last stays in `recent`, if
    it is given.
    """

    def __init__(
        self,
        root: Path | None,
        spec: EmbeddingSpec,
        engine: Engine,
        load_stored: Callable[[Sequence[str]], FeaturesByPath],
        decoders: Callable[[], Decoders],
        recent: Recent[PhotoFeatures] | None = None,
    ) -> None:
        self._root, self._spec, self._engine, self._load_stored = root, spec, engine, load_stored
        self._decoders, self._recent = decoders, recent or Recent(0)

    def query_features(self, image: View) -> QueryFeatures:
        """Return the features of an image, `image.grey` included, in ALIGN.orientations of ORIENTATIONS."""
        assert image.grey is not None  # noqa: S101 - requested with the view of a query
        squares = [image.pixels]
        views = [apply_orientation(image.pixels, each) for each in ORIENTATIONS[: ALIGN.orientations]]
        window = self._frame(image)
        if window is not None:
            squares.append(_part(image.pixels, window))
            window = _without_margin(window)
            inner = _part(image.pixels, window)
            views += [apply_orientation(inner, each) for each in ORIENTATIONS[:FRAMED_ORIENTATIONS]]
        described, levels = self._describe(views)  # all in one batch
        embeddings, count = np.stack(described), ALIGN.orientations
        cells = [self._features(each, image.aspect) for each in levels[:count]]
        inside_cells = [LocalFeatures(each, image.aspect, window or FULL_IMAGE) for each in levels[count:]]
        hashes = hashes_of(squares)
        return QueryFeatures(embeddings[:count], embeddings[count:], hashes, cells, inside_cells, image.grey)

    def _frame(self, image: View) -> Window | None:
        """Return where the picture lies inside the frame of an image, None if it has no frame.

        None also for squares that do not show the whole image, in which the frame lies elsewhere.
        """
        return inside_frame(image.grey) if image.grey is not None and self._spec.resize == "squash" else None

    def photo_features(self, paths: Sequence[str]) -> list[PhotoFeatures | None]:
        """Return the features of photos, in order; None for a photo whose file can no longer be read."""
        keys = {path: self._key(path) for path in paths}
        found = {path: known for path, key in keys.items() if key and (known := self._recent.get(key)) is not None}
        new = {
            path: PhotoFeatures(self._features(*features), partial(self._grey, path))
            for path, features in self._load_stored([path for path in paths if path not in found]).items()
        }
        new |= self._computed([path for path in paths if path not in found and path not in new])
        for path, features in new.items():
            if (key := keys[path]) is not None:
                self._recent.put(key, features)
        return [found.get(path) or new.get(path) for path in paths]

    def _key(self, path: str) -> tuple[object, ...] | None:
        """Return what the features of a photo depend on, as it was before they are computed; None if it is gone."""
        if self._root is None:
            return None
        try:
            status = (self._root / path).stat()
        except (OSError, ValueError):
            return None
        return self._engine, path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _computed(self, paths: Sequence[str]) -> dict[str, PhotoFeatures]:
        with ThreadPoolExecutor(ALIGN.threads) as pool:
            read = list(pool.map(self._read, paths))
        readable = [(path, each) for path, each in zip(paths, read, strict=True) if each is not None]
        # The second level is not used, but a network without it would be compiled besides that of the query.
        levels = self._describe([view.pixels for _, view in readable])[1]
        return {
            path: PhotoFeatures(self._features(each[:1], view.aspect), partial(_grey_of, view))
            for (path, view), each in zip(readable, levels, strict=True)
        }

    def _read(self, path: str) -> View | None:
        if self._root is None:
            return None
        try:
            source = Source(path, self._root)
            return self._decoders().view(source, self._spec.size, self._spec.resize, longer=KEYPOINTS.pixels)
        except ImageError as error:
            log.debug("%s is not re-ranked: %s", path, error.reason)
            return None

    def _grey(self, path: str) -> NDArray[np.uint8] | None:
        view = self._read(path)
        return view.grey if view is not None else None

    def _describe(self, squares: Sequence[NDArray[np.uint8]]) -> tuple[list[NDArray[np.float32]], list[Levels]]:
        """Return the embedding of each square and its cells at both sizes."""
        batch_size = self._engine.batch_size
        embeddings, levels = list[NDArray[np.float32]](), list[Levels]()
        for start in range(0, len(squares), batch_size):
            described = self._engine.describe(np.stack(squares[start : start + batch_size]))
            embeddings += list(described.embeddings)
            levels += list(zip(*described.levels, strict=True))
        return embeddings, levels

    def _features(self, levels: Levels, aspect: float) -> LocalFeatures:
        return LocalFeatures(levels, aspect, VISIBLE_WINDOWS[self._spec.resize](aspect))


def _without_margin(window: Window) -> Window:
    left, top, right, bottom = window
    x, y = MARGIN * (right - left), MARGIN * (bottom - top)
    return left + x, top + y, right - x, bottom - y


def _part(square: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """Return a part of a square, enlarged to its size."""
    size = len(square)
    left, top, right, bottom = (edge * size for edge in window)
    part = Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.array(part)


def _grey_of(view: View) -> NDArray[np.uint8] | None:
    return view.grey


def positions(query: QueryFeatures, photos: Sequence[PhotoFeatures | None]) -> list[Alignment | None]:
    """Return the position of the query in each photo; None if too little matches or the photo is None."""
    # Of the picture inside a frame: nothing of the frame then matches by chance.
    cells = [*query.inside_cells, *query.cells[len(query.inside_cells) :]]
    alignments = iter(align_many(cells, [photo.cells for photo in photos if photo is not None]))
    return [next(alignments) if photo is not None else None for photo in photos]


def hashes_of(squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return the perceptual hashes of squares, without those of plain pictures: uint8 (k, BYTES)."""
    found = [each for each in map(perceptual_hash, squares) if each != NO_HASH]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, BYTES)


def raised(similarity: float, confidence: float, kinship: float = 0.0) -> float:
    """Return the similarity of a photo that is a copy with this confidence, 0..1: raised towards 1.0.

    A certain copy is raised by the fraction ALIGN.of_a_copy of the distance, and a photo that shows the same scene
    with the probability `kinship`, 0..1, by ALIGN.of_a_shot of it.
    """
    return similarity + (1 - similarity) * max(ALIGN.of_a_copy * confidence, ALIGN.of_a_shot * kinship)


def reranked(upright: float, oriented: float, alignment: Alignment | None) -> float:
    """Return the similarity of a photo to a query after geometric verification.

    `upright` is the cosine similarity with the query as it is, or with the picture inside its frame if that is
    larger, `oriented` the largest over all views tried.
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
