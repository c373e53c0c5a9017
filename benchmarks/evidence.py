"""Count how likely the evidence of matching/evidence.py is for copies, other shots and unrelated photos.

python benchmarks/evidence.py PHOTOS UKBENCH [--sample 40] [--edits 6] [--hashed 500] [--seed 0]

PHOTOS is a folder of unrelated photos, UKBENCH one with its truth.tsv: several shots of each object. Copies are
made of SAMPLE photos of both by EDITS of the edits each. A copy is compared with its photo, with the other shots of
its object and with photos drawn at random. What is printed are the shares of the bins of `BITS` and of `Found`, and
the displacement of other shots: its logarithm is about normal, which says how rarely they lie in place. Hashes of
photos drawn at random are compared with one another, too.
"""

import argparse
import io
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import EMBEDDING
from vggsearch.matching.difference import looks
from vggsearch.matching.evidence import BITS, Found, compare_keypoints
from vggsearch.matching.keypoints import Keypoints, detect_keypoints
from vggsearch.matching.rerank import hashes_of
from vggsearch.measures.ground_truth import read_truth
from vggsearch.photos.edits import COLLAGE, EDITS, edited
from vggsearch.photos.perceptual_hash import fewest_differing_bits
from vggsearch.photos.resize import square

UNRELATED = 5  # photos that each copy is compared with


class Counts:
    """How often each bin and each result occurred for one kind of pair."""

    def __init__(self) -> None:
        self.bits = np.zeros(len(BITS), np.int64)
        self.found = np.zeros(len(Found), np.int64)
        self.shifts: list[float] = []

    def add(self, copy: "Picture", photo: "Picture") -> None:
        if len(copy.hashes) and len(photo.hashes):
            bits = fewest_differing_bits(copy.hashes, photo.hashes)
            self.bits[np.searchsorted(BITS, bits, "right") - 1] += 1
        comparison = compare_keypoints(copy.keypoints, photo.keypoints)
        self.found[list(Found).index(comparison.found)] += 1
        if comparison.alignment is not None:
            differs = next(looks(copy.keypoints.picture, photo.keypoints.picture, comparison.alignment), None)
            self.shifts += [differs.shift] if differs is not None else []

    def show(self, name: str) -> None:
        print(f"{name}: {self.found.sum():,} pairs")
        print("  bits ", ", ".join(f"{share:.4f}" for share in self.bits / max(1, self.bits.sum())))
        print("  found", ", ".join(f"{share:.4f}" for share in self.found / max(1, self.found.sum())))
        logarithms = np.log(np.maximum(self.shifts, 1e-3))
        if len(logarithms):
            print(f"  log of displacement: mean {logarithms.mean():.2f}, standard deviation {logarithms.std():.2f}")


class Picture:
    """What is compared of a picture."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.hashes: NDArray[np.uint8] = hashes_of([square(image, EMBEDDING.map_size, "squash")])

    @cached_property
    def keypoints(self) -> Keypoints:
        """The keypoints of the picture."""
        return detect_keypoints(self._image)


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def copies_of(path: Path, names: Sequence[str], seed: int) -> list[Picture]:
    photo = opened(path)
    return [Picture(opened_bytes(edited(photo, EDITS[name], f"{seed} {path.name} {name}"))) for name in names]


def opened_bytes(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("ukbench", type=Path)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--edits", type=int, default=6)
    parser.add_argument("--hashed", type=int, default=500, help="photos whose hashes are compared with one another")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = random.Random(given.seed)  # noqa: S311
    labels = read_truth(given.ukbench / "truth.tsv")
    photos = sorted(path for path in given.photos.rglob("*.*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    shots = sorted(labels)
    copy, shot, unrelated = Counts(), Counts(), Counts()
    for number in range(given.sample):
        is_shot = number % 2 == 1
        name = generator.choice(shots)
        path = given.ukbench / name if is_shot else generator.choice(photos)
        itself = Picture(opened(path))
        others = [each for each in shots if is_shot and labels[each] == labels[name] and each != name]
        other_shots = [Picture(opened(given.ukbench / each)) for each in others]
        strangers = [Picture(opened(each)) for each in generator.sample(photos, UNRELATED) if each != path]
        edits = generator.sample([each for each in EDITS if each != COLLAGE], given.edits)
        for made in copies_of(path, edits, given.seed):
            copy.add(made, itself)
            for each in other_shots:
                shot.add(made, each)
            for each in strangers:
                unrelated.add(made, each)
    hashes = np.concatenate([Picture(opened(path)).hashes for path in photos[: given.hashed]])
    for number, one in enumerate(hashes[:-1]):
        bits = fewest_differing_bits(one[None], hashes[number + 1 :])
        unrelated.bits += np.bincount(np.searchsorted(BITS, bits, "right") - 1, minlength=len(BITS))
    copy.show("copies")
    shot.show("other shots")
    unrelated.show("unrelated")


if __name__ == "__main__":
    main()
