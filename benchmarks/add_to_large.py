"""Add a few photos to a large index: seconds, and bytes read and written by the store and by its vector index.

python benchmarks/add_to_large.py 1000000 100 [RECIPE]

The embeddings are random numbers of 256 dimensions; neither photos nor the network are involved. The base is made,
then photos are added and one is removed, three times; before and after, queries are timed. Each step prints a line
of JSON. Linux.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from whole_index import SPEC, photos

from vggsearch.indexing.build import build_options, build_vector_index, open_vector_index, rebuild
from vggsearch.progress import SILENT
from vggsearch.store.records import Embedded
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

PART = 20_000
ROUNDS = 3
QUERIES = 50


def io() -> dict[str, int]:
    """Return the bytes that this process has read and written; reading through memory maps is not counted."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {"read": int(lines["rchar"]), "written": int(lines["wchar"])}


@contextmanager
def measured(what: str) -> Iterator[None]:
    before, wall, cpu = io(), time.perf_counter(), time.process_time()
    yield
    after = io()
    print(
        json.dumps(
            {
                "what": what,
                "seconds": round(time.perf_counter() - wall, 3),
                "cpu_s": round(time.process_time() - cpu, 3),
                **{f"{name}_mb": round((after[name] - before[name]) / 1e6, 2) for name in after},
            }
        ),
        flush=True,
    )


def generated(first: int, count: int) -> list[Embedded]:
    vectors = np.random.default_rng(first).standard_normal((count, SPEC.dim), np.float32)
    return list(photos(vectors.astype(np.float16), first))


def fill(directory: Path, rows: int, recipe: str) -> None:
    store = Store.create(directory, SPEC)
    with writing(store) as writer:
        for start in range(0, rows, PART):
            writer.commit(generated(start, min(PART, rows - start)))
    rebuild(store, lambda: build_options(store, recipe, None, None, None), SILENT)


def add(directory: Path, first: int, count: int) -> None:
    store = Store.open(directory)
    with writing(store) as writer:
        with measured(f"store: add {count}, remove 1"):
            writer.commit(generated(first, count), [store.paths()[5]])
        with measured("vector index"):
            build_vector_index(store, writer)


def ask(directory: Path) -> None:
    with measured("open the vector index"):
        index = open_vector_index(Store.open(directory))
    if index is None:
        sys.exit("The vector index is not that of the present photos.")
    queries = index.unit_vectors(np.random.default_rng(0).choice(len(index), QUERIES))
    index.nearest_vectors(queries[:1], 10)
    seconds = []
    for query in queries:
        started = time.perf_counter()
        index.nearest_vectors(query[None], 10)
        seconds.append(time.perf_counter() - started)
    print(
        json.dumps(
            {"segments": [len(each) for each in index.segments], "query_ms": 1000 * float(np.median(seconds))}
        )
    )


if __name__ == "__main__":
    rows, count = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        with measured("make the base"):
            fill(folder, rows, sys.argv[3] if len(sys.argv) > 3 else "auto")
        ask(folder)
        for round_ in range(ROUNDS):
            add(folder, rows + round_ * count, count)
        ask(folder)
