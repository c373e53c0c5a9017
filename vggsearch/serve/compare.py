"""Why a photo is similar to a picture: where it lies in it, which points match, and which places look alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import KEYPOINTS
from vggsearch.image_index import decoders_of, latest_of, reranker_of
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.feature_maps import ORIENTATIONS, LocalFeatures, apply_orientation
from vggsearch.matching.keypoints import Keypoints, matching_points, mirrored_keypoints
from vggsearch.matching.rerank import PhotoFeatures, QueryFeatures
from vggsearch.photos.decoder_pool import Source
from vggsearch.photos.inputs import Box
from vggsearch.photos.perceptual_hash import fewest_differing_bits
from vggsearch.query.judging import Judged, judged
from vggsearch.query.searcher import Candidate, Match, Searcher
from vggsearch.serve.answers import Problem
from vggsearch.serve.jobs import Values
from vggsearch.serve.library import IndexLibrary, Located
from vggsearch.serve.queries import relation

REACH = 2 * KEYPOINTS.reach  # pixels between a keypoint and where the alignment puts its partner
MOST_POINTS = 500
SHOWN_SIDE = 1024  # pixels of the longer side of an aligned picture


@dataclass(frozen=True)
class Picture:
    """A picture to compare with a photo: where it is, and the part of it that is meant, None for all."""

    source: Source
    crop: Box | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is known of a picture and a photo that were compared."""

    query: QueryFeatures
    photo: PhotoFeatures
    found: Judged

    @property
    def alignment(self) -> Alignment:
        """Where the picture lies in the photo. Raises Problem if that is not known."""
        if self.found.alignment is None:
            raise Problem(HTTPStatus.CONFLICT, "The two pictures cannot be aligned: too little of them matches.")
        return self.found.alignment


def compare(library: IndexLibrary, picture: Picture, other: Located) -> Comparison:
    """Compare a picture with a photo, as re-ranking does. Raises ImageError and Problem."""
    first, index = library.indexes[0], library.index_of(other)
    reranker = reranker_of(index, first.engine)
    if reranker is None:
        raise Problem(
            HTTPStatus.CONFLICT, "The photos of this index are not where they were, so none can be compared."
        )
    spec = first.spec
    view = decoders_of(first).view(picture.source, spec.size, spec.resize, picture.crop, longer=KEYPOINTS.pixels)
    query = reranker.query_features(view)
    [photo] = reranker.photo_features([other.path])
    if photo is None:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{other.path} cannot be read.")
    searcher = latest_of(index).searcher()
    candidate = _candidate(searcher, query, other.path)
    [found] = judged(query, [candidate], [photo], len(searcher.paths))
    return Comparison(query, photo, found)


def _candidate(searcher: Searcher, query: QueryFeatures, path: str) -> Candidate:
    """Return a photo as a search finds it. Raises Problem if it is gone."""
    if path not in searcher.paths:
        raise Problem(HTTPStatus.NOT_FOUND, "The photo is no longer in the index.")
    row = np.array([searcher.paths.index(path)])
    exact = [float(_similarity(searcher.index, embedding, row)) for embedding in query.all_embeddings]
    of_inside = exact[len(query.embeddings) :]
    bits = None
    if len(searcher.hashes) and len(query.hashes) and searcher.hashes[row].any():
        bits = int(fewest_differing_bits(query.hashes, searcher.hashes[row])[0])
    return Candidate(path, exact[0], max(exact), bits, int(row[0]), max(of_inside) if of_inside else None)


def _similarity(index: VectorIndex, embedding: NDArray[np.float32], row: NDArray[np.int64]) -> np.float32:
    similarity: np.float32 = np.minimum(index.similarities(embedding, row)[0], 1)
    return similarity


def values(compared: Comparison, path: str) -> Values:
    """Return a comparison for JSON; points and corners are in fractions of width and height."""
    found = compared.found
    match = Match(path, round(found.similarity, 4), found.alignment, None, found.confidence)
    return {
        "similarity": match.similarity,
        "confidence": found.confidence,
        "relation": relation(match),
        "corners": found.alignment.corners if found.alignment is not None else None,
        "keypoints": np.round(agreeing_points(compared), 4).tolist(),
        "heat": {
            "query": _heat_values(best_in_query(compared.query.cells, compared.photo.cells)),
            "photo": _heat_values(best_in_photo(compared.query.cells, compared.photo.cells)),
        },
    }


def agreeing_points(compared: Comparison) -> NDArray[np.float64]:
    """Return the keypoints that match and lie where the alignment says: x, y in both pictures, float64 (n, 4)."""
    photo, alignment = compared.photo.keypoints, compared.found.alignment
    if photo is None or alignment is None:
        return np.empty((0, 4))
    query = mirrored_keypoints(compared.query.keypoints) if alignment.mirrored else compared.query.keypoints
    of_query, of_photo = matching_points(query, photo)
    ours, theirs = _fractions(query, of_query), _fractions(photo, of_photo)
    if alignment.mirrored:
        ours[:, 0] = 1 - ours[:, 0]
    away = np.linalg.norm((_moved(ours, alignment) - theirs) * (photo.width, photo.height), axis=1)
    points: NDArray[np.float64] = np.hstack([ours, theirs])[away <= REACH]
    return points[:MOST_POINTS]


def _fractions(keypoints: Keypoints, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    points: NDArray[np.float64] = keypoints.points[chosen].astype(np.float64) / (keypoints.width, keypoints.height)
    return points


def _moved(points: NDArray[np.float64], alignment: Alignment) -> NDArray[np.float64]:
    """Return where points of the query, in fractions of it, lie in the photo."""
    origin, across, down = _axes(alignment)
    moved: NDArray[np.float64] = origin + points[:, :1] * across + points[:, 1:] * down
    return moved


def _axes(alignment: Alignment) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where the query's top-left corner lies in the photo, and its two sides from there."""
    corners = np.array(alignment.corners)
    return corners[0], corners[1] - corners[0], corners[3] - corners[0]


def best_in_photo(query: Sequence[LocalFeatures], photo: LocalFeatures) -> NDArray[np.float32]:
    """Return for each cell of a photo how similar the most similar cell of the query is, in any orientation."""
    cells = photo.levels[0]
    best: NDArray[np.float32] = np.max([_similarities(cells, each.levels[0]).max(axis=1) for each in query], axis=0)
    return best.reshape(cells.shape[:2])


def best_in_query(query: Sequence[LocalFeatures], photo: LocalFeatures) -> NDArray[np.float32]:
    """Return for each cell of the upright query how similar the most similar cell of a photo is."""
    maps = []
    for oriented, (turns, is_mirrored) in zip(query, ORIENTATIONS, strict=False):
        cells = oriented.levels[0]
        found = _similarities(cells, photo.levels[0]).max(axis=1).reshape(cells.shape[:2])
        upright = apply_orientation(found, (-turns % 4, False))
        maps.append(upright[:, ::-1] if is_mirrored else upright)
    best: NDArray[np.float32] = np.max(maps, axis=0)
    return best


def _similarities(cells: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = cells.reshape(-1, cells.shape[2]) @ others.reshape(-1, others.shape[2]).T
    return found


def _heat_values(heat: NDArray[np.float32]) -> Values:
    rows, columns = heat.shape
    return {"rows": rows, "columns": columns, "values": np.round(heat.clip(0, 1), 3).ravel().tolist()}


def aligned(library: IndexLibrary, picture: Picture, other: Located) -> Image.Image:
    """Return a picture moved to where it lies in a photo, in the size of the photo; transparent elsewhere."""
    alignment = compare(library, picture, other).alignment
    decoders = library.decoders()
    image = decoders.picture(picture.source, SHOWN_SIDE, of_longer=True, crop=picture.crop).convert("RGBA")
    width, height = (int(other.column(name)) for name in ("width", "height"))
    scale = min(1, SHOWN_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.transform(
        size, Image.Transform.AFFINE, _back(alignment, image.size, size), Image.Resampling.BICUBIC
    )


def _back(alignment: Alignment, query: tuple[int, int], photo: tuple[int, int]) -> list[float]:
    """Return the six numbers that map a pixel of the photo to one of the query: those of PIL's AFFINE."""
    origin, across, down = _axes(alignment)
    matrix = np.linalg.inv(np.column_stack([across, down])) * np.array(query)[:, None] / np.array(photo)
    shift = -(matrix * photo) @ origin
    return np.column_stack([matrix, shift]).ravel().tolist()
