"""Pairs of which it is known beforehand whether they are duplicates: what a calibration learns from."""

import io
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import DUPLICATES, MEASURE
from vggsearch.duplicates.calibration import LabelledPairs
from vggsearch.errors import ImageError
from vggsearch.matching.keypoints import align, detect_keypoints, single_threaded_blas
from vggsearch.photos.decode import decode, decoder_errors
from vggsearch.photos.edits import COLLAGE, EDITS, edited
from vggsearch.progress import Monitor
from vggsearch.store.contents import CALIBRATION
from vggsearch.store.files import write_atomically

AT_ONCE = 16  # photos whose copies are in memory, and go to the network together

Embed = Callable[[Sequence[Image.Image]], NDArray[np.float32]]
SimilarityTo = Callable[[NDArray[np.float32], int], float]


@dataclass(frozen=True)
class CalibrationPairs:
    """Edited copies beside their photos, and pairs that have nothing in common."""

    copies: LabelledPairs
    others: LabelledPairs


def copies_of(
    root: Path,
    paths: Sequence[str],
    rows: Sequence[int],
    embed: Embed,
    similarity_to: SimilarityTo,
    monitor: Monitor,
) -> LabelledPairs:
    """Make edited copies of some photos in memory, and compare each with its photo.

    `rows` are those to choose from; `embed` returns the embeddings of pictures, `similarity_to` the similarity of
    one with a row. A photo that cannot be read is passed over. The same photos give the same copies.
    """
    generator = random.Random(DUPLICATES.seed)  # noqa: S311 - a repeatable choice is what is wanted
    subset = generator.sample(list(rows), min(len(rows), DUPLICATES.copied_photos))
    edits = [
        (row, generator.sample([name for name in EDITS if name != COLLAGE], DUPLICATES.edits)) for row in subset
    ]

    def copies(row: int, names: Sequence[str]) -> list[tuple[int, Image.Image, int]]:
        """Return the row, each copy, and how many of its keypoints fit in the photo."""
        try:
            with decoder_errors(), (root / paths[row]).open("rb") as file:
                photo = decode(file, paths[row], at_least=MEASURE.copy_pixels).image
        except ImageError:
            return []
        seen = detect_keypoints(photo)
        made = [_reread(edited(photo, EDITS[name], f"{paths[row]} {name}")) for name in names]
        found = [align(seen, detect_keypoints(copy)) for copy in made]
        return [(row, copy, each.inliers if each else 0) for copy, each in zip(made, found, strict=True)]

    similarities: list[float] = []
    inliers: list[int] = []
    with single_threaded_blas(), ThreadPoolExecutor() as collection:
        for start in range(0, len(subset), AT_ONCE):
            some = edits[start : start + AT_ONCE]
            made = list(chain.from_iterable(collection.map(lambda each: copies(*each), some)))
            embeddings = embed([copy for _, copy, _ in made])
            similarities += [similarity_to(each, row) for each, (row, _, _) in zip(embeddings, made, strict=True)]
            inliers += [count for _, _, count in made]
            monitor.step("making edited copies", start + len(some), len(subset))
    return LabelledPairs(tuple(similarities), tuple(inliers))


def read_calibration_pairs(directory: Path, made_of: str) -> CalibrationPairs | None:
    """Return what was learned of `made_of` before, None where there is nothing that is whole and of it."""
    try:
        values = json.loads((directory / CALIBRATION).read_text("utf-8"))
        if values["made_of"] != made_of:
            return None
        copies, others = (
            LabelledPairs(tuple(values[name]["similarities"]), tuple(values[name]["inliers"]))
            for name in ("copies", "others")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is made anew
    return CalibrationPairs(copies, others)


def write_calibration_pairs(directory: Path, pairs: CalibrationPairs, made_of: str) -> None:
    """Keep what was learned. Raises IndexNotWritable."""

    def write(path: Path) -> None:
        path.write_text(json.dumps({"made_of": made_of, **asdict(pairs)}), "utf-8")

    write_atomically(directory / CALIBRATION, write)


def _reread(data: bytes) -> Image.Image:
    return decode(io.BytesIO(data)).image
