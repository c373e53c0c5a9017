"""Use one index from many threads and processes at once.

A case is one of: queries from sixteen threads, compared with those of one; two updates at once with readers beside
them; a fork after use; a pool of processes whose work fails.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from campaign import Result, Settings
from children import in_child
from pictures import pictures, save

from vggsearch import EmbeddingOptions, ImageIndex, VggsearchError
from vggsearch.errors import ForkError, IndexLocked

PHOTOS = 40
SIDE = 64
THREADS = 16
QUERIES = 1000
COMMITS = 20
FORKS = 20
LIMIT_S = 60
OPTIONS = EmbeddingOptions(layer="pool1", size=32)


def make(base: Path, photos: Path | None) -> None:
    """Make a folder of photos and its index."""
    for number, picture in enumerate(islice(pictures(photos, SIDE), PHOTOS)):
        save(picture, base / "photos" / f"{number:02}.png")
    with ImageIndex.create(base / "index", OPTIONS) as index:
        index.update(base / "photos")


def in_threads(base: Path, count: int) -> list[str]:
    """Compare the answers to queries from many threads with those of one."""
    paths = sorted((base / "photos").iterdir())
    asked = [paths[number % len(paths)] for number in range(count)]
    with ImageIndex.open(base / "index") as index:

        def answer(at: int) -> object:
            how = at % 10  # re-ranked one time in ten, since that takes most of the time
            found = index.query(asked[at], count=5, rerank=how == 0)
            vector = index.embed(asked[at]) if how == 1 else np.empty(0)
            return found.matches, vector.tobytes()

        alone = list(map(answer, range(count)))
        with ThreadPoolExecutor(THREADS) as threads:
            together = list(threads.map(answer, range(count)))
    return [f"query {at} has another answer" for at in range(count) if alone[at] != together[at]]


def write(base: Path, own: str, commits: int) -> list[str]:
    """Add a photo and update, again and again; wait where another process writes."""
    added = []
    for number in range(commits):
        name = f"{own}{number}.png"
        shutil.copy(base / "photos" / f"{number % PHOTOS:02}.png", base / "photos" / name)
        while True:
            try:
                with ImageIndex.open(base / "index") as index:
                    index.update(base / "photos")
                    break
            except IndexLocked:
                continue
        added.append(name)
    return added


def read(base: Path, reads: int) -> list[str]:
    """Read an index again and again; each state must be that of one commit."""
    faults = []
    with ImageIndex.open(base / "index") as index:
        for _ in range(reads):
            paths = index.paths()
            if len(set(paths)) != len(paths) or index.embeddings().shape[0] < PHOTOS:
                faults.append(f"{len(paths)} paths, {len(set(paths))} different")
            picked = {pick.path for pick in index.random(1000)}
            if len(picked) < len(paths):
                faults.append(f"{len(paths)} photos before, {len(picked)} after")
    return faults


def writers(base: Path, count: int) -> list[str]:
    """Run two writers and two readers at once; at the end each photo must be there once."""
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        writing = [pool.apply_async(write, (base, own, count)) for own in ("a", "b")]
        reading = [pool.apply_async(read, (base, 5 * count)) for _ in range(2)]
        added = {name for each in writing for name in each.get(600)}
        faults = [fault for each in reading for fault in each.get(600)]
    held, whole = in_child(partial(held_by, base / "index")).result()
    there = {path.name for path in (base / "photos").iterdir()}
    if sorted(held) != sorted(there) or not added <= there or not whole:
        faults.append(f"{len(held)} photos of {len(there)}, {'whole' if whole else 'damaged'}")
    return faults


def held_by(directory: Path) -> tuple[list[str], bool]:
    """Return the photos of an index, and whether it is whole."""
    with ImageIndex.open(directory) as index:
        return index.paths(), index.verify().is_whole


def forks(base: Path, count: int) -> list[str]:
    """Fork a process that has queried: the child must raise ForkError for each use, and the parent go on."""
    faults = []
    [path, *_] = sorted((base / "photos").iterdir())
    with ImageIndex.open(base / "index") as index:
        expected = index.query(path).matches
        for number in range(count):
            child = os.fork()
            if child == 0:
                signal.alarm(LIMIT_S)
                os._exit(0 if raises_fork_error(index, path, number) else 1)
            _, status = os.waitpid(child, 0)
            if status != 0:
                faults.append(f"child {number} ended with {status}")
            if index.query(path).matches != expected:
                faults.append(f"another answer after fork {number}")
    return faults


def raises_fork_error(index: ImageIndex, path: Path, number: int) -> bool:
    """Return whether a use of an index in a forked child raises ForkError; some uses need no threads, and work."""
    uses: list[Callable[[], object]] = [
        lambda: index.query(path),
        lambda: index.embed(path),
        index.update,
        index.build,
    ]
    try:
        uses[number % len(uses)]()
    except ForkError:
        return True
    return uses[number % len(uses)] == index.update  # of an unchanged folder


def fail(directory: str) -> int:
    """Raise an error of the library, in a process of a pool."""
    return len(ImageIndex.open(directory))


def pools(base: Path, count: int) -> list[str]:
    """Have the processes of a pool raise errors, which must arrive; and send an index to one."""
    faults = []
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for number in range(count):
            try:
                pool.apply_async(fail, (str(base / f"nowhere {number}"),)).get(LIMIT_S)
                faults.append("no error")
            except VggsearchError as error:
                if str(base) not in str(error):
                    faults.append(f"another error: {error}")
            except multiprocessing.TimeoutError:
                faults.append("the pool never returns")
        with ImageIndex.open(base / "index") as index:
            if len(pool.apply_async(ImageIndex.paths, (index,)).get(LIMIT_S)) != len(index):
                faults.append("an index that was sent to another process has other photos")
    return faults


def sharing(settings: Settings) -> Result:
    """Run the campaign; `count` is the number of queries, and of the other cases a tenth or a fiftieth."""
    result, base = Result(), settings.scratch / "shared"
    in_child(partial(make, base, settings.photos)).result()
    for kind, work, count in (
        ("queries from 16 threads, compared with one", in_threads, settings.count),
        ("commits of two writers at once, with two readers", writers, max(1, settings.count // 50)),
        ("forks after use", forks, max(4, settings.count // 50)),
        ("errors in a pool of processes", pools, max(2, settings.count // 10)),
    ):
        ended = in_child(partial(work, base, count), limit=3600)
        faults = (
            ended.value
            if ended.status == 0 and ended.value is not None
            else [ended.stderr[-800:] or f"ended with {ended.status}"]
        )
        result.add(0, kind, faults)
        result.counts[kind] += count - 1
    return result
