"""Measure the time of queries: of processes, in an open index, and of many; with and without re-ranking.

python benchmarks/query_time.py INDEX IMAGE... [--before FOLDER] [--rounds 7]

FOLDER holds another checkout, whose queries alternate with those of this one. CPU times, user and system, include
the decoder processes; on a busy machine, only they are comparable. Bytecode is kept, in a folder of its own, as in
an installed package, also if PYTHONDONTWRITEBYTECODE is set: compiling the modules takes as long as a query.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent.parent
OPTIONS = {"re-ranked": [], "not re-ranked": ["--no-rerank"]}
WARM = """
import json, sys, time, resource
from vggsearch import ImageIndex

def seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used), time.perf_counter()

found = {}
directory, images = sys.argv[1], sys.argv[2:]
for rerank in (True, False):
    for name in ("one by one", "query_many"):
        with ImageIndex.open(directory) as index:
            list(index.query_many(images[:2], rerank=rerank))
            between = seconds()
            if name == "query_many":
                list(index.query_many(images, rerank=rerank))
            else:
                for image in images:
                    index.query(image, rerank=rerank)
            wall = seconds()[1] - between[1]
        cpu = seconds()[0] - between[0]  # once the decoder processes have ended: their start included
        found[f"{name}, {'re-ranked' if rerank else 'not re-ranked'}"] = [cpu / len(images), wall / len(images)]
print(json.dumps(found))
"""


def run(checkout: Path, bytecode: str, words: list[str]) -> tuple[str, float, float]:
    """Run Python in a checkout; return its output, its CPU time and its time, in seconds."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=True)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, end - start


def show(name: str, checkout: Path, seconds: list[tuple[float, float]]) -> float:
    """Print the medians of CPU times and times; return that of the CPU times."""
    cpu, wall = (float(median(values)) for values in zip(*seconds, strict=True))
    print(f"{name:32} {checkout.name:12} {cpu:7.3f} s CPU {wall:7.3f} s", flush=True)
    return cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with TemporaryDirectory() as bytecode:
        measure(given, bytecode)


def measure(given: argparse.Namespace, bytecode: str) -> None:
    """Run the queries and print their times; Python keeps the bytecode of modules in the folder `bytecode`."""
    checkouts = [*([given.before] if given.before else []), HERE]
    for name, options in OPTIONS.items():
        words = ["-m", "vggsearch", "query", given.images[0], "--index", str(given.index), *options]
        for checkout in checkouts:
            run(checkout, bytecode, words)  # reads the files, and keeps what is kept
        seconds: dict[Path, list[tuple[float, float]]] = {checkout: [] for checkout in checkouts}
        for _ in range(given.rounds):
            for checkout in checkouts:
                seconds[checkout].append(run(checkout, bytecode, words)[1:])
        cpus = [show(f"process, {name}", checkout, each) for checkout, each in seconds.items()]
        print(f"{'':32} ratio {cpus[-1] / cpus[0]:.2f}")
    warm: dict[Path, list[dict[str, list[float]]]] = {checkout: [] for checkout in checkouts}
    for _ in range(max(1, given.rounds // 2)):
        for checkout in checkouts:
            printed = run(checkout, bytecode, ["-c", WARM, str(given.index), *given.images])[0]
            warm[checkout].append(json.loads(printed))
    for name in next(iter(warm.values()))[0]:
        cpus = [show(name, checkout, [(*each[name],) for each in all_]) for checkout, all_ in warm.items()]  # type: ignore[misc]
        print(f"{'':32} ratio {cpus[-1] / cpus[0]:.2f}")


if __name__ == "__main__":
    main()
