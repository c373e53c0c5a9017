"""Measure the CPU time of a search for duplicates among many copies of some photos, beside that of indexing.

python benchmarks/duplicates_many.py FOLDER PHOTOS [--copied 75] [--edits 22] [--seed 5]

FOLDER is created: PHOTOS, and of as many of them as --copied says, copies by --edits of the edits, which are spread
over all of them but the collage. Then come `index`, `dups` and a second `dups`, each as a process of its own. CPU
times include the decoder processes. The files are in the disk cache, since they were just written.
"""

import argparse
import csv
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

from PIL import Image

from vggsearch.photos.edits import COLLAGE, EDITS, edited

ORIGINALS, COPIES = "originals", "copies"
SUFFIXES = (".jpg", ".jpeg")


def make_folder(folder: Path, photos: Path, copied: int, count: int, seed: int) -> None:
    """Copy the photos, and write the copies of some as COPIES/NAME.EDIT.jpg."""
    for part in (ORIGINALS, COPIES):
        (folder / part).mkdir(parents=True)
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in found:
        shutil.copy2(path, folder / ORIGINALS / path.name)
    names = [name for name in EDITS if name != COLLAGE]
    chosen = [names[number * len(names) // count] for number in range(count)]
    for path in random.Random(seed).sample(found, copied):  # noqa: S311 - must be repeatable
        picture = Image.open(path).convert("RGB")
        for name in chosen:
            copy = edited(picture, EDITS[name], f"{path.stem}{name}")
            (folder / COPIES / f"{path.stem}.{name}.jpg").write_bytes(copy)


def right_pairs(photos: Path) -> set[frozenset[str]]:
    """Return the pairs of a photo and its copies, and of these copies."""
    families = {path.stem: [f"{ORIGINALS}/{path.name}"] for path in (photos / ORIGINALS).iterdir()}
    for path in (photos / COPIES).iterdir():
        families[path.name.rsplit(".", 2)[0]].append(f"{COPIES}/{path.name}")
    return {frozenset(pair) for paths in families.values() for pair in combinations(paths, 2)}


def run(title: str, *words: str) -> str:
    """Run vggsearch, print what it took, and return what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, "-m", "vggsearch", *words], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{title} failed")
        output.seek(0)
        seconds, megabytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        print(f"{title:12} {seconds:6.1f} s of CPU, {megabytes:,.0f} MB", flush=True)
        return output.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--copied", type=int, default=75, help="photos of which copies are made")
    parser.add_argument("--edits", type=int, default=22, help="copies of each")
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    photos, index = given.folder / "photos", given.folder / "index"
    make_folder(photos, given.photos, given.copied, given.edits, given.seed)
    run("index", "index", str(photos), "--index", str(index))
    wanted = ("dups", "--pairs", "--format", "csv", "--index", str(index))
    output = run("dups", *wanted)
    run("dups again", *wanted)
    pairs = {frozenset((row["a"], row["b"])) for row in csv.DictReader(io.StringIO(output))}
    right = right_pairs(photos)
    found = len(pairs & right)
    print(f"{len(pairs):,} pairs reported, {found / len(pairs):.4f} right, {found / len(right):.3f} of all found")


if __name__ == "__main__":
    main()
