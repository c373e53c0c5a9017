"""Measure other libraries' indexes on the vectors of benchmarks/index_scale.py; also how every index is measured.

PEERS_PYTHON benchmarks/index_peers.py CONTENDER FOLDER KEPT

runs in a separate environment (pip install autofaiss faiss-cpu hnswlib "pyarrow<20" usearch), imports nothing of
this project, and prints one line of JSON. FOLDER holds vectors.npy, float16 of unit length, queries.npy, and
tenth.npy, the similarity of each query with the tenth nearest of all vectors. The index stays in KEPT, so a later
call only repeats the queries with the best setting: when other programs are running, the minimum of several runs is
the best estimate.
"""

import importlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNT = 10
WANTED = 0.99
ENOUGH = 3  # settings that reach it: the fastest is among the first
SAME = 1e-5  # similarities that differ by less are equal: float16 vectors, sums in float32
BLOCK = 1 << 16
THREADS = len(os.sched_getaffinity(0))
EFFORTS = tuple(round(2 ** (step / 2)) for step in range(6, 23))  # efSearch of a graph: 8 to 2,048


@dataclass(frozen=True)
class Point:
    """One search setting: its recall@10 and its cost with all queries in one batch.

    `cpu_us` is CPU time per query in microseconds, which other processes on the machine affect little; `per_s` and
    `per_s_alone` are queries per second on all cores and on one.
    """

    setting: str
    recall: float
    cpu_us: float
    per_s: float
    per_s_alone: float


class Contender(ABC):
    """One kind of index, of `rows` vectors with `dim` dimensions."""

    name: str
    rows: int
    dim: int

    @abstractmethod
    def build(self, vectors: NDArray[np.float16]) -> None: ...

    @abstractmethod
    def save(self, folder: Path) -> None: ...

    @abstractmethod
    def open(self, folder: Path) -> None: ...

    @abstractmethod
    def settings(self) -> Iterator[str]:
        """Yield search settings, the fastest and least exact first."""

    @abstractmethod
    def search(self, queries: NDArray[np.float32], setting: str, threads: int) -> NDArray[np.int64]:
        """Return the COUNT nearest rows of each query."""


def measure(contender: Contender, folder: Path, kept: Path) -> dict[str, Any]:
    """Build and save into `kept`, unless it exists; open and search; return the figures."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries, tenth = np.load(folder / "queries.npy"), np.load(folder / "tenth.npy")
    contender.rows, contender.dim = vectors.shape
    facts = kept.with_suffix(".json")
    if not facts.exists():
        facts.write_text(json.dumps(_built(contender, vectors, kept)))
    built = json.loads(facts.read_text())
    open_s, _ = timed(lambda: contender.open(kept))
    points: list[Point] = []
    for setting in [built["best"]] if "best" in built else contender.settings():
        points.append(_point(contender, setting, vectors, queries, tenth))
        if sum(point.recall >= WANTED for point in points) == ENOUGH:
            break
    figures = {**built, "open_s": open_s, "points": [asdict(point) for point in points]}
    facts.write_text(json.dumps({**built, "best": reaching(figures)["setting"]}))
    return figures


def _built(contender: Contender, vectors: NDArray[np.float16], kept: Path) -> dict[str, Any]:
    """Build and save an index; return time, size and memory."""
    build_s, build_cpu_s = timed(lambda: contender.build(vectors))
    kept.mkdir(parents=True)
    contender.save(kept)
    return {
        "contender": contender.name,
        "rows": len(vectors),
        "build_s": build_s,
        "build_cpu_s": build_cpu_s,
        "bytes": sum(path.stat().st_size for path in kept.iterdir()),
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes, modules and mapped files included."""
    status = Path("/proc/self/status").read_text()  # getrusage would include the process before exec
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def reaching(line: dict[str, Any]) -> dict[str, Any]:
    """Return the cheapest point that reaches the wanted recall; if there is none, the one with the highest."""
    points: list[dict[str, Any]] = line["points"]
    enough = [point for point in points if point["recall"] >= WANTED]
    if enough:
        return min(enough, key=lambda point: float(point["cpu_us"]))
    return max(points, key=lambda point: float(point["recall"]))


def _point(
    contender: Contender,
    setting: str,
    vectors: NDArray[np.float16],
    queries: NDArray[np.float32],
    tenth: NDArray[np.float32],
) -> Point:
    rows = contender.search(queries, setting, THREADS)  # warm
    both, cpu = timed(lambda: contender.search(queries, setting, THREADS))
    alone, _ = timed(lambda: contender.search(queries, setting, 1))
    count = len(queries)
    recall = recall_of(rows, vectors, queries, tenth)
    return Point(setting, round(recall, 4), round(cpu / count * 1e6, 1), round(count / both), round(count / alone))


def recall_of(
    rows: NDArray[np.int64], vectors: NDArray[np.float16], queries: NDArray[np.float32], tenth: NDArray[np.float32]
) -> float:
    """Return the share of the ten nearest that were found: rows as similar as the tenth nearest, each once."""
    right = 0
    for found, query, least in zip(rows, queries, tenth, strict=True):
        unique = np.unique(found[found >= 0])
        right += min(COUNT, int((unit(vectors[unique]) @ query >= least - SAME).sum()))
    return right / (COUNT * len(queries))


def unit(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    rows = vectors.astype(np.float32)
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock seconds and the CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return round(time.perf_counter() - wall, 3), round(time.process_time() - cpu, 3)


def blocks(vectors: NDArray[np.float16]) -> Iterator[NDArray[np.float32]]:
    return (unit(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK))


class Hnsw32(Contender):
    """FAISS's HNSW graph, from the factory string HNSW32."""

    name = "FAISS HNSW32"

    def __init__(self) -> None:
        self.faiss = importlib.import_module("faiss")
        self.faiss.omp_set_num_threads(THREADS)

    def build(self, vectors: NDArray[np.float16]) -> None:
        self.index = self.faiss.index_factory(vectors.shape[1], "HNSW32", self.faiss.METRIC_INNER_PRODUCT)
        for some in blocks(vectors):
            self.index.add(some)

    def save(self, folder: Path) -> None:
        self.faiss.write_index(self.index, str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = self.faiss.read_index(str(folder / "index"))

    def settings(self) -> Iterator[str]:
        return (f"efSearch={effort}" for effort in EFFORTS)

    def search(self, queries: NDArray[np.float32], setting: str, threads: int) -> NDArray[np.int64]:
        self.faiss.omp_set_num_threads(threads)
        self.faiss.ParameterSpace().set_index_parameters(self.index, setting)
        found: NDArray[np.int64] = self.index.search(queries, COUNT)[1]
        return found


class Autofaiss(Hnsw32):
    """The index autofaiss chooses, given the memory of a flat index in float32."""

    name = "autofaiss"

    def build(self, vectors: NDArray[np.float16]) -> None:
        autofaiss = importlib.import_module("autofaiss")
        self.index, infos = autofaiss.build_index(
            np.concatenate(list(blocks(vectors))),
            save_on_disk=False,
            metric_type="ip",
            nb_cores=THREADS,
            max_index_memory_usage=f"{int(vectors.size * 5 / 1e6) + 100}MB",
            current_memory_available="8GB",
        )
        self.name = f"autofaiss ({infos['index_key']})"

    def settings(self) -> Iterator[str]:
        inner = self.faiss.extract_index_ivf(self.index) if "IVF" in type(self.index).__name__ else None
        if inner is None:
            return super().settings()
        return (f"nprobe={effort}" for effort in EFFORTS if effort <= inner.nlist)


class Hnswlib(Contender):
    """hnswlib with the settings of its documentation: M 16, ef_construction 200."""

    name = "hnswlib"

    def build(self, vectors: NDArray[np.float16]) -> None:
        self.index = importlib.import_module("hnswlib").Index("ip", self.dim)
        self.index.init_index(len(vectors), M=16, ef_construction=200, random_seed=1)
        for some in blocks(vectors):
            self.index.add_items(some, num_threads=THREADS)

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = importlib.import_module("hnswlib").Index("ip", self.dim)
        self.index.load_index(str(folder / "index"))

    def settings(self) -> Iterator[str]:
        return (str(effort) for effort in EFFORTS if effort >= COUNT)

    def search(self, queries: NDArray[np.float32], setting: str, threads: int) -> NDArray[np.int64]:
        self.index.set_ef(int(setting))
        rows: NDArray[np.int64] = self.index.knn_query(queries, COUNT, num_threads=threads)[0].astype(np.int64)
        return rows


class Usearch(Contender):
    """usearch with its defaults and float16 vectors."""

    name = "usearch f16"

    def build(self, vectors: NDArray[np.float16]) -> None:
        self.index = importlib.import_module("usearch.index").Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
        start = 0
        for some in blocks(vectors):
            self.index.add(np.arange(start, start + len(some)), some, threads=THREADS)
            start += len(some)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = importlib.import_module("usearch.index").Index.restore(str(folder / "index"), view=True)

    def settings(self) -> Iterator[str]:
        return (str(effort) for effort in EFFORTS if effort >= COUNT)

    def search(self, queries: NDArray[np.float32], setting: str, threads: int) -> NDArray[np.int64]:
        self.index.expansion_search = int(setting)
        rows: NDArray[np.int64] = self.index.search(queries, COUNT, threads=threads).keys.astype(np.int64)
        return rows


CONTENDERS: dict[str, type[Contender]] = {
    "hnsw32": Hnsw32,
    "autofaiss": Autofaiss,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
}


if __name__ == "__main__":
    print(json.dumps(measure(CONTENDERS[sys.argv[1]](), Path(sys.argv[2]), Path(sys.argv[3]))))
