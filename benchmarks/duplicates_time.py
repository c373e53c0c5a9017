"""Measure how long a search for duplicates takes, compared with another version of the program, in one run.

python benchmarks/duplicates_time.py BEFORE FOLDER PHOTOS...

BEFORE is a checkout of the other version (`git worktree add BEFORE COMMIT`); what this file belongs to is the
present one. Both run in this environment. FOLDER is created and holds PHOTOS, at most --photos of them, and
--copies edited copies; each version makes its own index of it. Both search in turn, --rounds times: in a new
process, with the files in the disk cache, but with nothing stored of an earlier search. With a FOLDER of an earlier
run, its photos are used again, and so are the indexes with --same-indexes. On a busy machine, the ratio of CPU
times is more reliable.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from itertools import chain
from pathlib import Path

from PIL import Image

from vggsearch.photos.edits import COLLAGE, EDITS, edited

SEED = 7
PRESENT = Path(__file__).resolve().parent.parent
SUFFIXES = (".jpg", ".jpeg")
MEASURE = """
import json, resource, sys, time
from vggsearch import ImageIndex

with ImageIndex.open(sys.argv[1]) as index:
    started = time.monotonic()
    report = index.duplicates()
    wall = time.monotonic() - started
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(each.ru_utime + each.ru_stime for each in usage)
print(json.dumps({"wall": wall, "cpu": cpu, "groups": len(report.groups), "pairs": len(report.pairs)}))
"""


def make_photos(folder: Path, sources: list[Path], photos: int, copies: int) -> None:
    """Copy the photos into `folder`, and write an edited copy of some of them, each with another edit."""
    found = sorted(chain.from_iterable(each.rglob("*") for each in sources))
    chosen = [path for path in found if path.suffix.lower() in SUFFIXES][:photos]
    names = [name for name in EDITS if name != COLLAGE]
    for part in ("originals", "copies"):
        (folder / part).mkdir(parents=True)
    for number, path in enumerate(chosen):
        shutil.copy2(path, folder / "originals" / f"{number:04}.jpg")
    for number, path in enumerate(random.Random(SEED).sample(chosen, copies)):  # noqa: S311 - must be repeatable
        name = names[number % len(names)]
        copy = edited(Image.open(path).convert("RGB"), EDITS[name], f"{path.name}{name}")
        (folder / "copies" / f"{number:04}-{name}.jpg").write_bytes(copy)


def run(version: Path, *words: str) -> str:
    """Run Python with one version of the program, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(version)}
    done = subprocess.run(
        [sys.executable, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=version
    )
    return done.stdout


def measure(version: Path, index: Path) -> dict[str, float]:
    """Search for duplicates in a new copy of an index, which holds no result of an earlier search."""
    copy = index.with_name(f"{index.name}-searched")
    shutil.copytree(index, copy)  # beside the index, since it names the photo folder relative to itself
    try:
        values: dict[str, float] = json.loads(run(version, "-c", MEASURE, str(copy)))
        return values
    finally:
        shutil.rmtree(copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sources", type=Path, nargs="*", metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--same-indexes", action="store_true")
    given = parser.parse_args()
    versions = {"before": given.before.resolve(), "present": PRESENT}
    folder = given.folder.resolve()
    photos = folder / "photos"
    if not photos.exists():
        make_photos(photos, given.sources, given.photos, given.copies)
    indexes = {name: folder / "indexes" / name for name in versions}
    for name, version in versions.items():
        if not given.same_indexes:
            shutil.rmtree(indexes[name], ignore_errors=True)
        run(version, "-m", "vggsearch", "index", str(photos), "--index", str(indexes[name]))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for number in range(1, given.rounds + 1):
        for name, version in versions.items():
            values = measure(version, indexes[name])
            found[name].append(values)
            print(
                f"round {number}  {name:8} {values['wall']:7.1f} s, CPU {values['cpu']:7.1f} s, "
                f"{values['groups']:,} groups, {values['pairs']:,} pairs",
                flush=True,
            )
    for kind in ("wall", "cpu"):
        before, present = (statistics.median(each[kind] for each in found[name]) for name in versions)
        print(f"{kind:4} median {before:.1f} s before, {present:.1f} s at present: ratio {present / before:.2f}")


if __name__ == "__main__":
    main()
