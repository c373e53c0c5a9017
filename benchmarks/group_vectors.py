"""How long groups of duplicates take among many photos, without looking at any.

python benchmarks/group_vectors.py ROWS INDEX...

Vectors are made as in realistic_vectors.py, of the photos of some indexes. All pairs are found, a confidence is
learned from their similarities, and groups are made.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
from realistic_vectors import Realistic, real_vectors

from vggsearch.defaults import DUPLICATES, PAIRS
from vggsearch.duplicates.calibration import by_similarity, least_confidence
from vggsearch.duplicates.groups import keepers
from vggsearch.index.edges import edges_of
from vggsearch.index.pairs import all_pairs

DIM = 256


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
    similarity = edges.similarity.astype(np.float64)
    confidence = by_similarity(similarity, PAIRS.floor).confidences(similarity, np.full(len(edges), -1))
    chosen = confidence >= least_confidence(confidence, DUPLICATES.precision)
    tell(f"{np.count_nonzero(chosen):,} pairs of duplicates")
    columns = (edges.first[chosen], edges.second[chosen], edges.similarity[chosen])
    kept = keepers(np.random.default_rng(0).permutation(rows), edges_of(rows, None, PAIRS.floor, *columns))
    tell(f"{len(np.unique(kept[kept != np.arange(rows)])):,} groups")


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
