"""Measure queries with edited copies among look-alikes: the table "In a crowd" of docs/quality.md.

python benchmarks/crowd.py INDEX FOLDER [--sample 30] [--edits 7] [--seed 2] [--half 1]

INDEX holds photos of FOLDER, a folder below its photo folder, and any others. Copies are made of SAMPLE photos of
FOLDER, each by the next EDITS of all edits in turn, without the collage, which shows other photos, too; they are
searched as a user does. With --half, only one half of the
photos is used, by the SHA-1 of their paths: the other half is for adjusting what is measured.
"""

import argparse
import hashlib
import io
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vggsearch.image_index import ImageIndex
from vggsearch.matching.evidence import COPY
from vggsearch.measures.metrics import Tally
from vggsearch.photos.edits import COLLAGE, EDITS, edited
from vggsearch.query.searcher import Match


@dataclass(frozen=True)
class Answer:
    """The matches of one query, and the paths that are right."""

    edit: str
    matches: tuple[Match, ...]
    right: set[str]
    seconds: float

    @property
    def called(self) -> list[bool]:
        """Whether each photo that is called a copy is one."""
        return [match.path in self.right for match in self.matches if (match.confidence or 0.0) >= COPY]


def chosen_photos(index: ImageIndex, folder: str, sample: int, seed: int, half: int | None) -> list[str]:
    def side(path: str) -> int:
        return int(hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest(), 16) % 2

    paths = sorted(path for path in index.paths() if path.startswith(f"{folder}/"))
    return random.Random(seed).sample([path for path in paths if half in (None, side(path))], sample)  # noqa: S311


def answers(index: ImageIndex, paths: list[str], edits: int, seed: int) -> list[Answer]:
    names, found = list(EDITS), list[Answer]()
    for number, path in enumerate(paths):
        data = ((index.root or Path()) / path).read_bytes()
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        right = {match.path for match in index.query(data, 20, rerank=False).matches if match.similarity == 1}
        for name in {names[place % len(names)]: None for place in range(number * edits, (number + 1) * edits)}:
            if name != COLLAGE:
                copy = edited(photo, EDITS[name], f"{seed} {path} {name}")
                started = time.perf_counter()
                matches = index.query(copy).matches
                found.append(Answer(name, matches, right, time.perf_counter() - started))
    return found


def show(title: str, found: list[Answer], photos: int) -> None:
    tally = Tally()
    for each in found:
        similarities = np.array([match.similarity for match in each.matches], np.float32)
        tally.add(similarities, np.array([match.path in each.right for match in each.matches]), 1)
    figures, called = tally.figures(photos), [right for each in found for right in each.called]
    print(
        f"| {title} | {len(found)} | {figures.recall_at[1]:.3f} | {figures.pair_ap:.3f} "
        f"| {figures.recall_at_p99:.3f} | {sum(called) / len(found):.0%} | {len(called) - sum(called)} |"
    )
    print(f"median {np.median([each.seconds for each in found]):.2f} s a query")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("folder")
    parser.add_argument("--sample", type=int, default=30)
    parser.add_argument("--edits", type=int, default=7)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--half", type=int, choices=(0, 1))
    given = parser.parse_args()
    with ImageIndex.open(given.index) as index:
        paths = chosen_photos(index, given.folder, given.sample, given.seed, given.half)
        found = answers(index, paths, given.edits, given.seed)
        show("the eighteen basic ones", [each for each in found if EDITS[each.edit].is_basic], len(index))
        show("all but the collage", found, len(index))


if __name__ == "__main__":
    main()
