"""Count the inliers from which vggsearch/duplicates/calibration.py starts the calibration of any folder.

python benchmarks/duplicates_prior.py FOLDER... [--photos 200] [--edits 3] [--pairs 1000] [--seed 1]

No two photos in a folder may be copies. Edited copies of PHOTOS photos, EDITS each, are compared with their photo,
then the PAIRS most similar pairs of each folder, which look alike, and as many random ones. Prints the number of
pairs in each bin of INLIER_BINS.
"""

import argparse
import io
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vggsearch.duplicates.calibration import counts_of
from vggsearch.image_index import ImageIndex
from vggsearch.matching.keypoints import Keypoints, detect_keypoints
from vggsearch.matching.pixels import align_copy
from vggsearch.photos.edits import COLLAGE, EDITS, edited
from vggsearch.system.threads import single_threaded_blas

SUFFIXES = (".jpg", ".jpeg", ".png")
FEW = 150  # photos of which random pairs are drawn: detecting keypoints takes most of the time

Item = TypeVar("Item")
Other = TypeVar("Other")


def picture(source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


@lru_cache(maxsize=2000)
def keypoints(path: Path) -> Keypoints:
    return detect_keypoints(picture(path))


def of_copy(path: Path, name: str) -> int:
    """Return the inliers of an edited copy in its photo."""
    copy = picture(io.BytesIO(edited(picture(path), EDITS[name], f"{path.name} {name}")))
    return inliers(keypoints(path), detect_keypoints(copy))


def inliers(query: Keypoints, photo: Keypoints) -> int:
    found = align_copy(query, photo)
    return found.evidence if found is not None else 0


def most_similar(folder: Path, indexes: Path, pairs: int) -> list[tuple[Path, Path]]:
    """Return the pairs of photos of a folder that are most similar to the network."""
    with ImageIndex.for_photos(folder, indexes / folder.name) as index:
        index.update(folder)
        found = index.duplicates(confirm=False).classified.compared
        paths = [folder / path for path in index.paths()]
    return [(paths[one], paths[other]) for one, other in found.pairs()[:pairs]]


def at_random(paths: Sequence[Path], pairs: int, generator: random.Random) -> list[tuple[Path, Path]]:
    few = generator.sample(paths, min(len(paths), FEW))
    return [(one, other) for one, other in (generator.sample(few, 2) for _ in range(pairs))]


def count(compare: Callable[[Item, Other], int], items: Sequence[tuple[Item, Other]]) -> NDArray[np.float64]:
    with single_threaded_blas(), ThreadPoolExecutor() as threads:
        return counts_of(list(threads.map(lambda each: compare(*each), items)))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--indexes", type=Path, default=Path("build/prior"), help="Keep the indexes here.")
    for name, default in (("photos", 200), ("edits", 3), ("pairs", 1000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(arguments)
    generator = random.Random(given.seed)  # noqa: S311 - must be repeatable, not secure
    copies = others = counts_of([])
    for folder in given.folders:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        chosen = generator.sample(paths, min(len(paths), given.photos // len(given.folders)))
        names = [name for name in EDITS if name != COLLAGE]
        copies = copies + count(
            of_copy, [(path, name) for path in chosen for name in generator.sample(names, given.edits)]
        )
        pairs = [
            *most_similar(folder, given.indexes, given.pairs),
            *at_random(paths, given.pairs, generator),
        ]
        others = others + count(lambda one, other: inliers(keypoints(one), keypoints(other)), pairs)
        print(folder, copies.astype(int).tolist(), others.astype(int).tolist(), flush=True)
    print(f"PRIOR_COPIES = {tuple(copies.astype(int).tolist())}")
    print(f"PRIOR_OTHERS = {tuple(others.astype(int).tolist())}")


if __name__ == "__main__":
    main(sys.argv[1:])
