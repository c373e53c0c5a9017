"""Time the store on a synthetic index: python benchmarks/measure_store.py 100000

Merges parts, builds the vector index, reads every byte (verify) and opens the index for a query, each in a separate
process, and prints time and memory on top of the imports.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.indexing.build import build_vector_index
from vggsearch.indexing.integrity import verify
from vggsearch.knn.faiss_import import faiss
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

MADE_BY = EngineInfo("none", "fp32")
PART = 1000  # photos: about half a minute of work for a CPU


def photos(start: int, count: int, dim: int) -> list[Embedded]:
    vectors = np.random.default_rng(start).random((count, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        Embedded(
            PhotoFile(f"{row // 500:04}/{row:07}.jpg", row, row),
            f"{row:064x}",
            4000,
            3000,
            "JPEG",
            Capture(),
            False,
            None,
            vector,
            MADE_BY,
        )
        for row, vector in enumerate(vectors, start)
    ]


def fill(folder: Path, count: int) -> None:
    spec, _ = EmbeddingOptions().resolve()
    store = Store.create(folder, spec)
    with writing(store) as writer:
        for start in range(0, count, PART):
            writer.commit(photos(start, PART, spec.dim))


def merge(folder: Path) -> str:
    with writing(Store.open(folder)) as writer:
        before, after = writer.compact()
    return f"{before} parts into {after}"


def build(folder: Path) -> str:
    store = Store.open(folder)
    with writing(store) as writer:
        build_vector_index(store, writer)
    return decimal(store.bytes)


def check(folder: Path) -> str:
    report = verify(folder)
    return f"{len(report.findings)} problems, {decimal(report.bytes)} read"


def open_for_a_query(folder: Path) -> str:
    with ImageIndex.open(folder) as index:
        return f"{len(searcher_of(index).paths):,} photos"


def measured(step: Callable[[Path], str], folder: Path) -> None:
    faiss()
    before = peak()
    started = time.perf_counter()
    result = step(folder)
    seconds = time.perf_counter() - started
    print(f"{step.__name__:20} {seconds:8.2f} s  {decimal(peak() - before):>10}  {result}", flush=True)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "index"
        fill(directory, int(sys.argv[1]))
        for step in (merge, build, check, open_for_a_query):
            child = multiprocessing.get_context("spawn").Process(target=measured, args=(step, directory))
            child.start()
            child.join()
