"""Kill indexing runs at random moments, resume each time, and compare the result with an undisturbed run.

python benchmarks/kill_runs.py PHOTOS [KILLS]

A process that indexes PHOTOS is killed (SIGKILL) within two seconds, again and again; each run resumes the index of
the previous one. Parts are committed every quarter of a second here, not every minute, so kills also hit commits.
After every kill the index, if there is one yet, must open and answer a query. A complete index is compared row by
row with that of an undisturbed run and verified, and a new one is begun.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from vggsearch import ImageIndex
from vggsearch.errors import IndexMissing
from vggsearch.model.engine import Engine
from vggsearch.store.parts import part_schema
from vggsearch.store.store import Store

KILLS = 200
LONGEST_S = 2.0
PART_S = 0.25
RUN = f"""
import sys
from dataclasses import replace
from vggsearch import defaults
defaults.EXTRACT = replace(defaults.EXTRACT, part_seconds={PART_S})
from vggsearch import ImageIndex
with ImageIndex.for_photos(sys.argv[1], sys.argv[2]) as index:
    index.update(progress=lambda progress: print(progress.done, flush=True), folder=sys.argv[1])
    print("complete", flush=True)
"""


def run(photos: Path, directory: Path, kill_after: float | None) -> list[str]:
    """Index, or kill the run after some seconds; return its output. Raises RuntimeError if a decoder survives."""
    command = [sys.executable, "-c", RUN, str(photos), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if kill_after is not None:
            time.sleep(kill_after)
            decoders = children(process.pid)
            process.kill()
            wait_for_the_end(decoders)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        said = process.stdout.read().split()
    if kill_after is None and process.returncode != 0:
        raise RuntimeError(f"the undisturbed run exited with {process.returncode}")
    return said


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def wait_for_the_end(pids: list[int]) -> None:
    until = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > until:
            raise RuntimeError(f"some of the decoders {pids} outlive their parent")
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def contents(directory: Path) -> dict[str, object]:
    """Return everything an index holds on each photo and each skipped file, by path."""
    with ImageIndex.open(directory) as index:
        store = Store.open(index.directory)
        rows: dict[str, object] = {}
        for part in store.manifest.parts:
            names = [name for name in part_schema(store.spec.dim).names if name != "embedding"]
            columns = [store.column(part, name) for name in names]
            for path, *facts, embedding in zip(*columns, store.part_embeddings(part), strict=True):
                if path in rows:
                    raise RuntimeError(f"{path} is in the index twice")
                rows[path] = (*facts, embedding.tobytes())
        return rows | {f"skipped {one.path}": one for one in index.skipped()}


def committed(directory: Path, engine: Engine, photo: Path) -> int:
    """Query an index and return how many photos it holds; -1 if there is no index yet."""
    try:
        with ImageIndex.open(directory, engine=engine) as index:
            index.query(photo)
            return len(index)
    except IndexMissing:
        return -1


def main(photos: Path, kills: int) -> None:
    random = Random(0)  # noqa: S311 - times, not secrets
    moments: Counter[str] = Counter()
    redone, complete, whole = [0], 0, 0
    with tempfile.TemporaryDirectory() as made:
        undisturbed, directory = Path(made, "undisturbed"), Path(made, "index 0")
        run(photos, undisturbed, None)
        expected = contents(undisturbed)
        with ImageIndex.open(undisturbed) as index:
            engine, some = index.engine, photos / index.paths()[0]
            before = 0
            for kill in range(kills):
                said = run(photos, directory, random.uniform(0, LONGEST_S))
                after = committed(directory, engine, some)
                done = max([int(word) for word in said if word.isdigit()], default=None)
                if done is None:
                    moments["before the first photo"] += 1
                elif said[-1] == "complete":
                    moments["after the end"] += 1
                else:
                    moments["while photos were embedded or committed"] += 1
                    redone.append(done - (after - max(before, 0)))
                before = after
                if after >= len(expected) or kill == kills - 1:
                    run(photos, directory, None)
                    complete += 1
                    whole += contents(directory) == expected
                    with ImageIndex.open(directory) as finished:
                        if not finished.verify().is_whole:
                            raise RuntimeError(f"{directory} is damaged")
                    directory, before = Path(made, f"index {kill + 1}"), 0
    counts = ", ".join(f"{count} {moment}" for moment, count in sorted(moments.items()))
    print(f"{kills} kills ({signal.SIGKILL.name}): {counts}; at most {max(redone)} photos embedded again")
    print(
        f"{whole} of {complete} indexes are identical, bit for bit, to the undisturbed one of {len(expected)} files"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else KILLS)
