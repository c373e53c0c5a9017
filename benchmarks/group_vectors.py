"""How long groups of duplicates take among many photos, without looking at any.

python benchmarks/group_vectors.py ROWS INDEX...

Vectors are made as in realistic_vectors.py, of the photos of some indexes. All pairs are found, those from
THRESHOLD on are completed where a photo has many, and groups are made of them.
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
    """Print the time of each step, of the clock and of processors, and the most memory."""
    vectors = np.concatenate(list(Realistic(real_vectors(directories, DIM)).blocks(rows)))
    clock, cpu = time.monotonic(), time.process_time()

    def tell(what: str) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        took = f"{time.monotonic() - clock:7.1f} s, {time.process_time() - cpu:7.1f} s of CPU"
        print(f"{took}, {memory:.2f} GB: {what}", flush=True)

    edges = all_pairs(vectors)
    if edges is None:  # which only a stop can make
        return
    tell(f"{len(edges):,} pairs of at least {PAIRS.floor}")
    alike = complete(vectors, edges.above(THRESHOLD))
    if alike is None:
        return
    tell(f"{len(alike):,} pairs of at least {THRESHOLD}")
    kept = keepers(np.random.default_rng(0).permutation(rows), alike)
    tell(f"{len(np.unique(kept[kept != np.arange(rows)])):,} groups")


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
