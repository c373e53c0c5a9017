"""Measure how many reported duplicates are right, on photos with edited copies of some of them, and look-alikes.

python benchmarks/duplicates_quality.py FOLDER PHOTOS [LOOKALIKES] [--copied 60] [--seed 7] [--model vgg16]

FOLDER is created: PHOTOS, the basic edits of as many of them as --copied says, and LOOKALIKES, if given, none of
which counts as a duplicate of another.

python benchmarks/duplicates_quality.py FOLDER --truth TRUTH.tsv

FOLDER exists, and TRUTH.tsv says which of its photos show the same thing.
"""

import argparse
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from vggsearch import ImageIndex
from vggsearch.defaults import EMBEDDING
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.measures.ground_truth import read_truth
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.edits import EDITS, edited

ORIGINALS, COPIES, OTHERS = "originals", "copies", "look-alikes"


def make_folder(folder: Path, photos: Path, others: Path | None, copied: int, seed: int) -> None:
    """Copy the photos and write the edited copies, each as COPIES/NAME__EDIT.jpg."""
    shutil.copytree(photos, folder / ORIGINALS)
    if others is not None:
        shutil.copytree(others, folder / OTHERS)
    (folder / COPIES).mkdir()
    names = sorted(path for path in (folder / ORIGINALS).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for path in random.Random(seed).sample(names, copied):  # noqa: S311 - the choice has to be repeatable
        picture = Image.open(path).convert("RGB")
        for name, edit in EDITS.items():
            if edit.is_basic:
                (folder / COPIES / f"{path.stem}__{name}.jpg").write_bytes(
                    edited(picture, edit, f"{path.stem}{name}")
                )


def family(path: str) -> str:
    """Return the name that all files made from one photo share."""
    return path if path.startswith(OTHERS) else Path(path).stem.split("__")[0]


def show(report: DuplicatesReport, label: Callable[[str], str | None], paths: list[str]) -> None:
    """Print expected and measured precision and recall."""
    found = report.classified
    print(
        f"{found.precision or 0:.4f} expected precision of pairs, {found.recall or 0:.3f} expected recall of copies"
    )
    pairs = [(pair.first.path, pair.second.path) for pair in report.pairs]
    right = [label(one) == label(other) for one, other in pairs]
    print(f"{sum(right) / max(1, len(right)):.4f} of {len(pairs):,} pairs right")
    for (one, other), is_right in zip(pairs, right, strict=True):
        if not is_right:
            print(f"  wrong: {one}  {other}")
    keeper_of = {member.photo.path: group.keeper.path for group in report.groups for member in group.members}
    right = [label(path) == label(keeper) for path, keeper in keeper_of.items()]
    print(f"{sum(right) / max(1, len(right)):.4f} of {len(right):,} members of groups right")
    originals = {family(path): path for path in paths if path.startswith(ORIGINALS)}
    copies = [path for path in paths if path.startswith(COPIES)]
    if copies:
        known = {frozenset(pair) for pair in pairs}
        missed = [path for path in copies if frozenset((path, originals[family(path)])) not in known]
        together = [
            keeper_of.get(path, path) == keeper_of.get(originals[family(path)], originals[family(path)])
            for path in copies
        ]
        print(f"{1 - len(missed) / len(copies):.3f} of {len(copies):,} copies found as a pair with their photo")
        print(
            f"{sum(together) / len(copies):.3f} in its group; missed: {Counter(p.split('__')[1] for p in missed)}"
        )


def main(arguments: list[str]) -> None:
    """Make the folder, index it (the index is written beside it), find duplicates and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("lookalikes", type=Path, nargs="?")
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--copied", type=int, default=60, help="photos of which edited copies are made")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", default=EMBEDDING.model)
    given = parser.parse_args(arguments)
    if (given.photos is None) == (given.truth is None):
        parser.error("Name either PHOTOS or --truth.")
    where: Path = given.folder
    label: Callable[[str], str | None] = family
    if given.truth is not None:
        label = dict(read_truth(given.truth)).get
    else:
        make_folder(where, given.photos, given.lookalikes, given.copied, given.seed)
    wanted = EmbeddingOptions(model=given.model)
    with ImageIndex.for_photos(where, where.with_name(f"{where.name}.index"), wanted) as index:
        index.update(where)
        report = index.duplicates()
        if report is not None:
            print(f"{report.seconds:.0f} s for {report.photos:,} photos")
            show(report, label, index.paths())


if __name__ == "__main__":
    main(sys.argv[1:])
