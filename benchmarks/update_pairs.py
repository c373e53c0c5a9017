"""Time the pairs of `dups` after some photos were added, on random vectors and hashes.

python benchmarks/update_pairs.py 100000 100 --search    # compares all first, as before there were stored pairs
python benchmarks/update_pairs.py 1000000 100            # the stored pairs are random: 23 a photo, none by hash

Prints CPU seconds, and the peak memory of the process, which holds the vectors: 768 bytes for each photo.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import PAIRS
from vggsearch.duplicates.stored_pairs import numbers_of
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import Edges, edges_from_pairs
from vggsearch.knn.hash_pairs import hash_pairs, updated_hash_pairs
from vggsearch.knn.updated_pairs import KeptRows, updated_pairs
from vggsearch.photos.perceptual_hash import BYTES, in_all_orientations

DIM = 384
OF_EACH = 23  # pairs of a photo, as were found among a million realistic vectors
AT_ONCE = 1 << 16

Result = TypeVar("Result")


def random_vectors(rows: int) -> NDArray[np.float16]:
    vectors = np.empty((rows, DIM), np.float16)
    random = np.random.default_rng(0)
    for start in range(0, rows, AT_ONCE):
        vectors[start : start + AT_ONCE] = random.standard_normal((min(AT_ONCE, rows - start), DIM), np.float32)
    return vectors


def random_edges(rows: int) -> Edges:
    random = np.random.default_rng(1)
    ones, others = random.integers(0, rows - 1, (2, OF_EACH * rows), np.int32)
    similarity = PAIRS.floor + 0.2 * random.random(len(ones), np.float32)
    return edges_from_pairs(rows, PAIRS.count, PAIRS.floor, ones, others + (others >= ones), similarity)


def timed(step: str, run: Callable[[], Result]) -> Result:
    started = time.process_time()
    result = run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
    print(f"{step:44} {time.process_time() - started:8.1f} s  peak {peak:,} MB", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("added", type=int)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    before, rows = options.rows, options.rows + options.added
    vectors, random = random_vectors(rows), np.random.default_rng(2)
    hashes = random.integers(0, 256, (rows, BYTES), np.uint8)
    keys = np.frombuffer(random.bytes(64 * rows), "S64")
    if options.search:
        last = timed("vectors, all compared", lambda: all_pairs(vectors[:before]))
    else:
        last = timed("making random pairs", lambda: random_edges(before))
    nothing = np.empty(0, np.int64)
    numbers = timed("numbering the photos", lambda: numbers_of(vectors, keys, hashes, nothing))
    kept = timed("matching them", lambda: KeptRows.matching(numbers[:before], numbers))
    found = timed("vectors, after the update", lambda: updated_pairs(vectors, last, kept))
    print(f"{len(last):,} pairs before, {len(found) if found is not None else 0:,} after")
    if options.search:
        near = timed("hashes, all compared", lambda: hash_pairs(hashes[:before], in_all_orientations))
    else:
        near = edges_from_pairs(before, None, 0.5, nothing, nothing, np.empty(0, np.float32))
    timed("hashes, after the update", lambda: updated_hash_pairs(hashes, in_all_orientations, near, kept))


if __name__ == "__main__":
    main()
