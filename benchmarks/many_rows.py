"""Measure the store with millions of rows, without photos.

python benchmarks/many_rows.py make INDEX 1000000    # generated photos: short embeddings, realistic paths, stamps
python benchmarks/many_rows.py plan INDEX            # an update that finds nothing new, without the walk itself
python benchmarks/many_rows.py plan INDEX 1          # the same, with the folders in another order
python benchmarks/many_rows.py new INDEX             # what is known of as many new files, before they are decoded
python benchmarks/many_rows.py query INDEX           # what queries do with paths
python benchmarks/many_rows.py dead INDEX            # a commit, and opening, with 5 % of the rows dead, for good

Everything goes through the classes of the store. A step is measured in CPU seconds, and the peak memory is that of
the process, Python and its libraries included.
"""

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from vggsearch.indexing.update_plan import plan_update
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile, Stamp
from vggsearch.query.filters import FoldedPaths
from vggsearch.store.contents import MANIFEST
from vggsearch.store.known_files import known_files
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.reuse import KnownContent
from vggsearch.store.stamps import table_of, write_stamps
from vggsearch.store.store import Store
from vggsearch.store.writer import writing
from vggsearch.system.collecting import without_garbage_collection

AT_ONCE = 20_000  # photos of a commit
FOLDER_HOLDS = 500
MADE_BY = EngineInfo("none", "fp32")


def files(rows: int, start: int = 0) -> Iterator[PhotoFile]:
    """Yield generated files in the order of a walk."""
    for row in range(start, start + rows):
        folder = row // FOLDER_HOLDS
        path = f"{2000 + folder // 400}/{folder % 400:03} A day at the sea/IMG_{row:07}.jpg"
        size = 2_000_000 + row * 7919 % 3_999_971
        yield PhotoFile(path, size, 10**18 + row * 10**9, Stamp(2 * 10**18 + row * 10**7, 10**6 + row))


def walked(starts: NDArray[np.int64]) -> Iterator[PhotoFile]:
    return chain.from_iterable(files(FOLDER_HOLDS, start) for start in starts.tolist())


def make(folder: Path, rows: int) -> None:
    spec, _ = EmbeddingOptions(layer="pool1").resolve()
    store = Store.create(folder, spec)
    embedding = np.full(spec.dim, spec.dim**-0.5, np.float32)
    with writing(store) as writer:
        for start in range(0, rows, AT_ONCE):
            facts = (4000, 3000, "JPEG", Capture(), False, None, embedding, MADE_BY)
            some = files(min(AT_ONCE, rows - start), start)
            writer.commit([Embedded(file, hashlib.sha256(file.path.encode()).hexdigest(), *facts) for file in some])
    write_stamps(folder, table_of({file.path: file.stamp for file in files(rows) if file.stamp is not None}))


def plan(folder: Path, is_shuffled: int = 0) -> None:
    """Plan an update of a folder that is as it was; the walk, which is generated, is timed apart.

    If it `is_shuffled`, it finds the folders in another order than when they were indexed.
    """
    store = Store.open(folder)
    starts = np.arange(0, len(store), FOLDER_HOLDS)
    if is_shuffled:
        np.random.default_rng(0).shuffle(starts)
    with measured("the walk itself"), without_garbage_collection():
        for _ in walked(starts):
            pass
    with measured("the walk and the plan"):
        made = plan_update(walked(starts), known_files(store), store.skipped())
        KnownContent(store, made.todo)
    if made.unchanged != len(store) or not made.are_stamps_current:
        raise SystemExit(f"{made.unchanged:,} of {len(store):,} photos are unchanged")


def new(folder: Path) -> None:
    """Look up as many new files as there are photos, each with the size of one of them."""
    store = Store.open(folder)
    todo = [file._replace(path=f"new/{file.path}", mtime_ns=1) for file in files(len(store))]
    hashed = 0

    def other_bytes() -> str:
        nonlocal hashed
        hashed += 1
        return f"{hashed:064x}"

    with measured("what may be known of new files"):
        known = KnownContent(store, todo)
    with measured("looking each of them up"):
        for file in todo:
            known.look_up(file, other_bytes)
    print(f"{hashed:,} of {len(todo):,} files were read before they would be decoded")


def query(folder: Path) -> None:
    """Do what queries and decisions do with the paths and facts of an index, each three times."""
    store = Store.open(folder)
    paths, rows = store.paths(), len(store)
    own = paths[rows // 2]
    some = [paths[row] for row in range(0, rows, rows // 26)]
    steps: dict[str, Callable[[], object]] = {
        "the row of the query's own photo": lambda: paths.index(own),
        "facts of three rows": lambda: store.facts_of([5, rows // 2, rows - 1]),
        "rows of 26 candidates": lambda: paths.rows_among(some),
        "the text that filters search": lambda: FoldedPaths(paths),
        "exclude_same_folder": lambda: paths.are_directly_in(own.rpartition("/")[0]),
        "the content of two decided photos": lambda: store.sha256s(some[:2]),
    }
    for name, step in steps.items():
        print(f"{name:40} {min(cpu_time(step) for _ in range(3)) * 1000:8.1f} ms")


def cpu_time(step: Callable[[], object]) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started


def dead(folder: Path) -> None:
    """Let a twentieth of the rows of an index die, then commit another state, and open the index."""
    store = Store.open(folder)
    random = np.random.default_rng(0)
    with writing(store):
        spread = {part.name: set(random.permutation(part.rows)[::20].tolist()) for part in store.manifest.parts}
        with measured("letting a twentieth of the rows die"):
            store.replace_manifest(store.manifest.without_rows(spread))
        with measured("making the manifest of a commit"):
            store.replace_manifest(replace(store.manifest, next_part=store.manifest.next_part + 1))
    with measured("opening the index"):
        Store.open(folder)
    print(f"the manifest has {decimal((folder / MANIFEST).stat().st_size)}")


@contextmanager
def measured(step: str) -> Iterator[None]:
    started = time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{step:40} {time.process_time() - started:8.2f} s  peak {decimal(peak)}", flush=True)


if __name__ == "__main__":
    command, where, *numbers = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {
        "make": make,
        "plan": plan,
        "new": new,
        "query": query,
        "dead": dead,
    }
    commands[command](Path(where), *map(int, numbers))
