"""Make photo libraries whose duplicates are known, and measure what `dups` would remove from them.

python benchmarks/library.py make FOLDER PHOTOS [--views UKBENCH] [--number 200] [--copies 0.3] [--seed 1 2 3]
python benchmarks/library.py measure FOLDER...

`make` writes FOLDER-NUMBER-SEED for each seed: about NUMBER files in nested folders, made of the unrelated photos
in PHOTOS, and truth.tsv beside them. The share COPIES of them are edited, forwarded or identical copies; among the
others are what only looks like copies: bursts, views of one object if UKBENCH is given, pages of one template, RAW
files, animations, collages. `measure` indexes such libraries and plans the removal of all duplicates. It prints
which removals are right, and ends with status 1 unless all figures reach their targets.
"""

import argparse
import csv
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from library_files import EXACT, Entry, Library, picture
from PIL import Image

from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.image_index import ImageIndex
from vggsearch.measures.ground_truth import read_truth
from vggsearch.photos.decode import readable_formats

PHOTOS, TRUTH, INDEX = "photos", "truth.tsv", "index"
LEAST_PRECISION, LEAST_RECALL, LEAST_KEPT = 0.999, 0.98, 0.995  # of removals, of copies, of originals
MOST_OFF = 0.03  # between the recall that is printed and the one that is measured, on average


def sources(photos: Path, generator: random.Random, needed: int) -> Iterator[Image.Image]:
    """Yield unrelated photos in random order: if there are too few, parts of them that do not overlap."""
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    across = 1 + (needed > len(files))
    down = 1 + (needed > 2 * len(files))
    parts = [(path, part) for path in files for part in range(across * down)]
    generator.shuffle(parts)
    for path, part in parts:
        image = picture(path)
        width, height = image.width // across, image.height // down
        left, top = part % across * width, part // across * height
        yield image.crop((left, top, left + width, top + height))
    raise SystemExit(f"{photos} has too few photos for a library of this size.")


def views_in(folder: Path | None) -> list[list[Path]]:
    """Return the files of each object in a folder with its truth.tsv."""
    of: dict[str, list[Path]] = defaultdict(list)
    if folder is not None:
        for path, label in read_truth(folder / TRUTH).items():
            of[label].append(folder / path)
    return list(of.values())


def make(folder: Path, photos: Path, views: Path | None, number: int, copies: float, seed: int) -> None:
    """Write a library and its truth."""
    generator = random.Random(seed)  # noqa: S311 - must be repeatable, not secure
    needed = round(1.2 * number * (1 - copies))
    library = Library(folder / PHOTOS, sources(photos, generator, needed), views_in(views), seed)
    library.fill(number, copies)
    with (folder / TRUTH).open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(each.name for each in fields(Entry))
        writer.writerows(map(astuple, library.entries))


@dataclass
class Figures:
    """What was measured in one or several libraries. `printed` are the recalls that the reports expect.

    `in_range` tells of each library whether the measured recall lies in the range that is printed.
    """

    removals: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    originals: int = 0
    lost: int = 0
    printed: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    in_range: list[bool] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def precision(self) -> float:
        return 1 - self.wrong.total() / max(1, self.removals)

    @property
    def recall(self) -> float:
        return 1 - self.missed.total() / max(1, self.copies.total())

    @property
    def kept(self) -> float:
        return 1 - self.lost / max(1, self.originals)

    @property
    def reach_targets(self) -> bool:
        is_honest = not self.off or sum(self.off) / len(self.off) <= MOST_OFF
        reached = self.precision >= LEAST_PRECISION, self.recall >= LEAST_RECALL, self.kept >= LEAST_KEPT
        return all(reached) and is_honest

    def __str__(self) -> str:
        printed = sum(self.printed) / len(self.printed) if self.printed else math.nan
        off = sum(self.off) / len(self.off) if self.off else math.nan
        return (
            f"{self.precision:.4f} of {self.removals:,} removals right, "
            f"{self.recall:.4f} of {self.copies.total():,} copies found, "
            f"{self.kept:.4f} of {self.originals:,} originals kept, "
            f"recall printed as {printed:.3f}, off by {off:.3f}, "
            f"in the printed range in {sum(self.in_range)} of {len(self.in_range)}"
        )


def measure(folder: Path) -> Figures:
    """Index a library, plan the removal of its duplicates, and print what is wrong."""
    with (folder / TRUTH).open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        truth = {
            row["path"]: Entry(row["path"], row["exposure"], row["kind"], row["is_copy"] == "True") for row in rows
        }
    with ImageIndex.for_photos(folder / PHOTOS, folder / INDEX) as index:
        index.update(folder / PHOTOS)
        report = index.duplicates()
        plan = index.plan_removal(report, f"move:{folder / 'removed'}")
    figures = Figures(removals=len(plan.removals))
    for planned in plan.removals:
        one, other = truth[planned.path], truth[planned.removal.keeper]
        if not one.is_copy or one.exposure != other.exposure or planned.companions:
            figures.wrong[one.kind if not one.is_copy else f"{one.kind} of another"] += 1
            print(f"  wrong: {one.kind}: {one.path}  keeps {other.kind}: {other.path} {planned.companions}")
    removed = {planned.path for planned in plan.removals}
    originals = _originals(truth.values())
    figures.originals, figures.lost = len(originals), len(removed & originals)
    links = {entry.path for entry in truth.values() if entry.kind == "hard link"}  # other names of an original
    found = _found(report, truth, originals | links)
    copies = [entry for entry in truth.values() if entry.is_copy]
    figures.copies = Counter(entry.kind for entry in copies)
    figures.missed = Counter(entry.kind for entry in copies if entry.path not in found)
    edited_copies = [entry.path in found for entry in copies if entry.kind != EXACT]
    if report.classified.recall is not None and edited_copies:
        figures.printed = [report.classified.recall]
        measured, likely = sum(edited_copies) / len(edited_copies), report.recall_range or (1.0, 0.0)
        figures.off = [abs(report.classified.recall - measured)]
        figures.in_range = [likely[0] <= measured <= likely[1]]
    print(f"{folder.name}, {report.photos:,} photos, {report.seconds:.0f} s: {figures}")
    return figures


def _originals(entries: Iterable[Entry]) -> set[str]:
    """Return the paths of what was copied."""
    copied = {entry.exposure for entry in entries if entry.is_copy}
    return {
        entry.path
        for entry in entries
        if entry.exposure in copied and not entry.is_copy and entry.kind not in ("RAW", "hard link")
    }


def _found(report: DuplicatesReport, truth: dict[str, Entry], originals: set[str]) -> set[str]:
    """Return the paths that the pairs of one exposure connect with the original."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for pair in report.pairs:
        one, other = pair.first.path, pair.second.path
        if truth[one].exposure == truth[other].exposure:
            neighbours[one].add(other)
            neighbours[other].add(one)
    found, new = set(originals), set(originals)
    while new:
        new = {other for path in new for other in neighbours[path]} - found
        found |= new
    return found


def show(figures: Figures) -> None:
    """Print the figures of all libraries together, and those of each kind of copy."""
    print(f"all: {figures}")
    print(f"wrong removals: {dict(figures.wrong.most_common())}")
    missed = figures.missed.most_common()
    print(f"missed copies: {', '.join(f'{kind} {count} of {figures.copies[kind]}' for kind, count in missed)}")


def main(arguments: Sequence[str]) -> int:
    """Make or measure libraries; return 1 if the figures miss a target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("photos", type=Path)
    making.add_argument("--views", type=Path)
    making.add_argument("--number", type=int, default=200)
    making.add_argument("--copies", type=float, default=0.3)
    making.add_argument("--seed", type=int, nargs="+", default=[1])
    measuring = commands.add_parser("measure")
    measuring.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args(arguments)
    readable_formats()  # registers HEIF, for writing as well
    if given.command == "make":
        for seed in given.seed:
            folder = given.folder.with_name(f"{given.folder.name}-{given.number}-{seed}")
            make(folder, given.photos, given.views, given.number, given.copies, seed)
            print(folder)
        return 0
    figures = Figures()
    for folder in given.folders:
        figures.add(measure(folder))
    show(figures)
    return 0 if figures.reach_targets else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
