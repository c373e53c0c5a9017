"""Time the pairs of near photos among many, on vectors like those of real photos (realistic_vectors.py).

python benchmarks/near_pairs.py 1000000 INDEX...            # INDEX: of real photos
python benchmarks/near_pairs.py 100000 INDEX... --exact     # compares with the pairs of an exact search

Prints one line of JSON.
"""

import argparse
import json
import logging
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from realistic_vectors import Realistic, real_vectors

from vggsearch.defaults import PAIRS
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import Edges
from vggsearch.knn.files import read_vectors, write_vectors

DIM = 384
FLOORS = (0.2, 0.3, 0.5, 0.7)


def measured(vectors: NDArray[np.float16], most_exact: int) -> tuple[Edges, dict[str, object]]:
    wall, cpu = time.perf_counter(), time.process_time()
    with patch("vggsearch.knn.all_pairs.PAIRS", replace(PAIRS, most_exact=most_exact)):
        edges = all_pairs(vectors)
    return edges, {
        "pairs": len(edges),
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        "load": os.getloadavg()[0],
    }


def recall(found: Edges, expected: Edges) -> dict[str, float]:
    """Return which share of the exact pairs from each similarity on was found."""
    keys = [edges.first.astype(np.int64) << 32 | edges.second for edges in (found, expected)]
    is_found = np.isin(keys[1], keys[0])
    return {str(floor): round(float(is_found[expected.similarity >= floor].mean()), 4) for floor in FLOORS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("index", type=Path, nargs="+")
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        blocks = Realistic(real_vectors(options.index, DIM)).blocks(options.rows)
        write_vectors(Path(folder), blocks, options.rows, DIM)
        vectors = read_vectors(Path(folder))
        near, line = measured(vectors, 0)
        if options.exact:
            exact, its = measured(vectors, options.rows)
            line |= {"exact": its, "recall": recall(near, exact)}
    print(json.dumps({"rows": options.rows, **line}))


if __name__ == "__main__":
    main()
