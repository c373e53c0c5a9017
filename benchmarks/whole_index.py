"""Measure a large index with the real write and read path: store, build, opening in a new process, queries, memory.

python benchmarks/whole_index.py make VECTORS INDEX            # vectors.npy of index_scale.py to a store
python benchmarks/whole_index.py build INDEX auto 4000000000   # like `vggsearch build`
python benchmarks/whole_index.py query INDEX QUERIES           # opens it and queries it, warm

The network is not involved: a query here is an embedding. Each prints one line of JSON.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.knn import brute_force
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile
from vggsearch.query.searcher import Searcher
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

SPEC = EmbeddingSpec("vgg16", "pool3", "spoc", (192,), "squash", "0" * 64)  # its embeddings have 256 dimensions
MADE_BY = EngineInfo("made up", "fp32")
PART_ROWS = 1 << 17
ROUNDS = 5  # repetitions of each query; the minimum is its time on an idle machine
COUNT = 10
SAME = 1e-4


def photos(vectors: NDArray[np.float16], first: int) -> Iterator[Embedded]:
    for row, embedding in enumerate(unit_rows(vectors), first):
        path = f"{2000 + row // 50_000}/holiday {row // 500:05}/IMG_{row:07}.jpg"
        sha256 = hashlib.sha256(path.encode()).hexdigest()
        file = PhotoFile(path, 3_000_000 + row, row)
        yield Embedded(file, sha256, 4032, 3024, "JPEG", Capture(), row % 5000 == 7, None, embedding, MADE_BY)


def make(source: Path, directory: Path) -> dict[str, float]:
    vectors = np.load(source, mmap_mode="r")
    store = Store.create(directory, SPEC)
    started = time.perf_counter()
    with writing(store) as writer:
        for start in range(0, len(vectors), PART_ROWS):
            writer.commit(list(photos(vectors[start : start + PART_ROWS], start)))
    return {"photos": len(store), "seconds": time.perf_counter() - started}


def build(directory: Path, recipe: str, memory: int) -> dict[str, object]:
    held: list[int] = []
    with ImageIndex.open(directory) as index:
        plan, started = index.plan_build(recipe=recipe, memory=memory), time.process_time()
        made = index.build(
            recipe=recipe, memory=memory, progress=lambda *_: held.append(memory_of_this()["RssAnon"])
        )
    return {
        **asdict(made.facts),
        "plan": asdict(plan),
        "seconds": made.seconds,
        "bytes": made.bytes,
        "cpu_s": time.process_time() - started,
        "peak_private_mb": max(held),
        **memory_of_this(),
    }


def query(directory: Path, queries: Path) -> dict[str, object]:
    asked, modules = np.load(queries), memory_of_this()
    opening = [_opened(directory) for _ in range(ROUNDS)]
    with ImageIndex.open(directory) as index:
        searcher, held = searcher_of(index), memory_of_this()
        first = _seconds(searcher, asked[0])
        least = np.min([[_seconds(searcher, query) for query in asked[:200]] for _ in range(ROUNDS)], axis=0)
        with_path = min(_seconds(searcher, query, searcher.paths[777]) for query in asked[:20])
        found, recall = memory_of_this(), _recall(searcher.index, asked)
    return {
        "photos": len(searcher.paths),
        "first_open_s": opening[0][0],
        "open_s": min(wall for wall, _ in opening),
        "open_cpu_s": min(cpu for _, cpu in opening),
        "first_query_s": first,
        "median_s": float(np.median(least)),
        "slowest_s": float(least.max()),
        "with_own_path_s": with_path,
        "recall": recall,
        "modules": modules,
        "opened": held,
        "after_queries": found,
    }


def _opened(directory: Path) -> tuple[float, float]:
    """Return wall-clock and CPU seconds from opening until the index is ready for a query."""
    wall, cpu = time.perf_counter(), time.process_time()
    with ImageIndex.open(directory) as index:
        searcher_of(index)
    return time.perf_counter() - wall, time.process_time() - cpu


def _recall(index: VectorIndex, asked: NDArray[np.float32]) -> float:
    vectors = index.to_vectors(asked)
    _, exact = brute_force.nearest(vectors, COUNT, index.unit_vectors, len(index))
    _, found = index.nearest_vectors(vectors, COUNT)
    return float((found >= exact[:, -1:] - SAME).mean())


def _seconds(searcher: Searcher, query: NDArray[np.float32], own_path: str | None = None) -> float:
    started = time.perf_counter()
    searcher.nearest(query, COUNT, own_path=own_path)
    return time.perf_counter() - started


def memory_of_this() -> dict[str, int]:
    """Return the memory of this process in MB: peak, private now, and mapped from files now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {
        line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmHWM", "RssAnon", "RssFile"))
    }
    return {name: int(value) // 1000 for name, value in values.items()}


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "make":
        print(json.dumps(make(Path(words[0]), Path(words[1]))))
    elif command == "build":
        print(json.dumps(build(Path(words[0]), words[1], int(words[2]))))
    else:
        print(json.dumps(query(Path(words[0]), Path(words[1]))))
