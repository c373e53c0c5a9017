"""Measure an update of an indexed folder in which nothing has changed, compared with a plain scan of the folder.

python benchmarks/unchanged.py 20000 100000 ...

For each count, a tree of tiny files is created, 1,000 to a folder, and an index that knows them all, with made-up
embeddings. The update, without its vector index, is timed against a recursive os.scandir with a stat of each file,
both in CPU time.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vggsearch.indexing.update_plan import plan_update
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile, walk
from vggsearch.store.known_files import known_files
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.reuse import KnownContent
from vggsearch.store.stamps import table_of, write_stamps
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

FOLDER_HOLDS = 1000
TIMES = 5


def make_tree(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"{number // FOLDER_HOLDS:05}"
        if number % FOLDER_HOLDS == 0:
            folder.mkdir()
        (folder / f"IMG_{number:07}.jpg").write_bytes(b"x")


def catalogue(root: Path, directory: Path) -> Store:
    spec, _ = EmbeddingOptions(layer="pool1").resolve()
    store = Store.create(directory, spec)
    embedding = np.full(spec.dim, spec.dim**-0.5, np.float32)
    made_by = EngineInfo("none", "fp32")
    files = [file for file in walk(root) if isinstance(file, PhotoFile)]
    with writing(store) as writer:
        for start in range(0, len(files), 20_000):
            part = files[start : start + 20_000]
            facts = (1, 1, "JPEG", Capture(), False, None, embedding, made_by)
            writer.commit([Embedded(file, hash_of(file.path), *facts) for file in part])
    write_stamps(directory, table_of({file.path: file.stamp for file in files if file.stamp is not None}))
    return store


def hash_of(path: str) -> str:
    """Return a made-up hash of a file's content."""
    return hashlib.sha256(path.encode()).hexdigest()


def bare(root: str) -> int:
    count = 0
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                count += bare(entry.path)
            else:
                entry.stat(follow_symlinks=False)
                count += 1
    return count


def unchanged(root: Path, directory: Path) -> int:
    store = Store.open(directory)
    plan = plan_update(walk(root), known_files(store), store.skipped())
    KnownContent(store, plan.todo)
    return plan.unchanged if plan.are_stamps_current else 0


def fastest(run: Callable[[], int], count: int) -> float:
    times = []
    for _ in range(TIMES):
        started = time.process_time()
        found = run()
        times.append(time.process_time() - started)
        if found != count:
            raise SystemExit(f"found {found} of {count} files")
    return min(times)


if __name__ == "__main__":
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as made:
            root, directory = Path(made, "photos"), Path(made, "index")
            root.mkdir()
            make_tree(root, count)
            catalogue(root, directory)
            look, update = (
                fastest(lambda: bare(str(root)), count),  # noqa: B023 - called immediately
                fastest(lambda: unchanged(root, directory), count),  # noqa: B023
            )
            print(f"{count:,} files: scan {look:.3f} s, update {update:.3f} s, {update / look:.2f} times the scan")
