"""Labelled pairs for a calibration: edited copies, made for the purpose, and unrelated photos."""

import io
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import DUPLICATES, MEASURE, PAIRS
from vggsearch.duplicates.calibration import LabelledPairs
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.confirmation import KeypointMatcher
from vggsearch.errors import ImageError, IndexDamaged, IndexNotReadable
from vggsearch.matching.keypoints import Keypoints, detect_keypoints
from vggsearch.matching.pixels import align_copy
from vggsearch.matching.threads import single_threaded
from vggsearch.photos.decode import decode
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.photos.edits import COLLAGE, EDITS, edited
from vggsearch.photos.perceptual_hash import BITS, NO_HASH, differing_bits, perceptual_hash
from vggsearch.photos.resize import square
from vggsearch.progress import Monitor
from vggsearch.store.caches import read_calibration
from vggsearch.store.contents import CALIBRATION
from vggsearch.store.files import write_atomically
from vggsearch.store.manifest import CHECKSUM, checksum

HIGHEST_SIMILARITY = 1.01  # rounding included
PHOTOS_AT_ONCE = 16  # photos whose copies are in memory and embedded together

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
SimilarityTo = Callable[[NDArray[np.float32], int], float]


@dataclass(frozen=True)
class CalibrationPairs:
    """Pairs of photos and edited copies of them, and pairs of unrelated photos."""

    copies: LabelledPairs
    others: LabelledPairs


def compare_edited_copies(
    photos: Collection,
    matcher: KeypointMatcher,
    decoders: Decoders,
    embed: Embed,
    similarity_to: SimilarityTo,
    monitor: Monitor,
) -> LabelledPairs:
    """Make edited copies of a sample of photos in memory, and compare each with its photo.

    `embed` returns the embeddings of squares, uint8 (n, size, size, 3), and `similarity_to` the similarity of an
    embedding to the photo of a row; that of their hashes counts if it is more, as for candidates. Photos that
    cannot be read are skipped. The same photos give the same copies. The edits take turns: which copies are found
    depends mostly on them, so that all count alike.
    """
    spec, rows = photos.store.spec, photos.own_contents.tolist()
    generator = random.Random(DUPLICATES.seed)  # noqa: S311 - must be repeatable, not secure
    subset = generator.sample(rows, min(len(rows), DUPLICATES.copied_photos))
    names = [name for name in EDITS if name != COLLAGE]
    generator.shuffle(names)
    turns, of_each = cycle(names), min(DUPLICATES.edits, -(-DUPLICATES.copies // max(1, len(subset))))

    def copies(
        row: int, keypoints: Keypoints | None, edits: Sequence[str]
    ) -> list[tuple[int, NDArray[np.uint8], int]]:
        """Return the row, the square of each copy, and the number of inliers of the copy in the photo."""
        if keypoints is None:
            return []
        try:
            photo = decoders.picture(photos.source(row), MEASURE.copy_pixels)
        except ImageError:
            return []
        made = []
        for name in edits:
            copy = _decoded(edited(photo, EDITS[name], f"{photos.path(row)} {name}"))
            alignment = align_copy(keypoints, detect_keypoints(copy))
            made.append((row, square(copy, spec.size, spec.resize), alignment.evidence if alignment else 0))
        return made

    similarities: list[float] = []
    inliers: list[int] = []
    with single_threaded(), ThreadPoolExecutor(default_workers()) as threads:
        for start in range(0, len(subset), PHOTOS_AT_ONCE):
            batch = subset[start : start + PHOTOS_AT_ONCE]
            edits = [list(islice(turns, of_each)) for _ in batch]
            made = list(chain.from_iterable(threads.map(copies, batch, matcher.keypoints(batch), edits)))
            embeddings = embed(np.stack([pixels for _, pixels, _ in made])) if made else ()
            similarities += [
                max(similarity_to(each, row), _similarity_by_hash(pixels, photos.hashes[row].tobytes()))
                for each, (row, pixels, _) in zip(embeddings, made, strict=True)
            ]
            inliers += [count for _, _, count in made]
            monitor.step("making edited copies", start + len(batch), len(subset))
    return LabelledPairs(tuple(similarities), tuple(inliers))


def _similarity_by_hash(pixels: NDArray[np.uint8], hash_of_photo: bytes) -> float:
    """Return the similarity of a pair by hash, see knn.hash_pairs; 0 if it does not make the pair a candidate."""
    hash_of_copy = perceptual_hash(pixels)
    if NO_HASH in (hash_of_copy, hash_of_photo):
        return 0.0
    bits = differing_bits(hash_of_copy, hash_of_photo)
    return 1 - 2 * bits / BITS if bits <= PAIRS.hash_bits else 0.0


def read_calibration_pairs(directory: Path, source: str) -> CalibrationPairs | None:
    """Return the stored pairs for `source`, which identifies what they depend on.

    Returns None if there are none, if they are for another source, or if the file is damaged.
    """
    try:
        values = read_calibration(directory / CALIBRATION)
        if values["made_of"] != source:
            return None
        copies, others = (_labelled(values[name]) for name in ("copies", "others"))
    except (IndexDamaged, IndexNotReadable, ValueError, KeyError, TypeError):
        return None  # they are computed again
    return CalibrationPairs(copies, others)


def _labelled(values: dict[str, list[float]]) -> LabelledPairs:
    """Return pairs as they are in the file. Raises ValueError or TypeError for what no calibration writes there."""
    similarities, inliers = values["similarities"], values["inliers"]
    if len(similarities) != len(inliers) or not all(abs(each) <= HIGHEST_SIMILARITY for each in similarities):
        raise ValueError("not a similarity for each pair")
    if not all(type(count) is int and count >= 0 for count in inliers):
        raise ValueError("not a number of inliers for each pair")
    return LabelledPairs(tuple(map(float, similarities)), tuple(map(int, inliers)))


def write_calibration_pairs(directory: Path, pairs: CalibrationPairs, source: str) -> None:
    """Store the pairs for `source`. Raises IndexNotWritable."""
    values = {"made_of": source, **asdict(pairs)}
    text = json.dumps({**values, CHECKSUM: checksum(values)})

    def write_json(path: Path) -> None:
        path.write_text(text, "utf-8")

    write_atomically(directory / CALIBRATION, write_json)


def _decoded(data: bytes) -> Image.Image:
    return decode(io.BytesIO(data)).image
