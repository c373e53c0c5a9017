"""Measure how long it takes to group the duplicates among many vectors, without photos.

python benchmarks/group_vectors.py ROWS INDEX...

Vectors are generated as in realistic_vectors.py, from the photos of some indexes. The benchmark finds all pairs,
completes those from THRESHOLD on for photos with many, and groups them.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
from realistic_vectors import Realistic, real_vectors

from vggsearch.defaults import PAIRS
from vggsearch.duplicates.results import keepers
from vggsearch.knn.all_pairs import all_pairs, complete

DIM = 256
THRESHOLD = 0.7


def main(rows: int, directories: list[Path]) -> None:
    """Print wall-clock time, CPU time and peak memory after each step."""
    vectors = np.concatenate(list(Realistic(real_vectors(directories, DIM)).blocks(rows)))
    clock, cpu = time.monotonic(), time.process_time()

    def show(what: str) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        took = f"{time.monotonic() - clock:7.1f} s, {time.process_time() - cpu:7.1f} s of CPU"
        print(f"{took}, {memory:.2f} GB: {what}", flush=True)

    edges = all_pairs(vectors)
    show(f"{len(edges):,} pairs of at least {PAIRS.floor}")
    alike = complete(vectors, edges.above(THRESHOLD))
    show(f"{len(alike):,} pairs of at least {THRESHOLD}")
    kept = keepers(np.random.default_rng(0).permutation(rows), alike)
    show(f"{len(np.unique(kept[kept != np.arange(rows)])):,} groups")


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
