"""Measure how indexes scale: build, size, opening, queries/s at a recall of 0.99, all pairs; with other libraries.

python benchmarks/index_scale.py run FOLDER RESULTS.jsonl --index INDEX... --rows 100000 --contenders flat hnsw32
python benchmarks/index_scale.py report RESULTS.jsonl [GROWTH.svg]

`run` generates realistic vectors from the photos of the indexes (benchmarks/realistic_vectors.py) in FOLDER, once
for each number of rows, and adds a line to RESULTS for each contender: a recipe, a FAISS factory string, `pairs`,
or, with --peers-python, one of benchmarks/index_peers.py in its own environment. Each runs in a separate process.
With --rounds 3 all are queried again in turn, twice, and `report` takes the best, since other programs may disturb
a round. Indexes stay in FOLDER.
"""

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from index_peers import CONTENDERS, COUNT, WANTED, Contender, blocks, measure, reaching, timed, unit
from numpy.typing import NDArray
from realistic_vectors import Realistic, real_vectors

from vggsearch.defaults import BUILD, PAIRS
from vggsearch.knn import brute_force, faiss_import
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.build import build
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.recipes import hnsw_of, plan
from vggsearch.knn.vector_index import Tuning, VectorIndex
from vggsearch.progress import SILENT

DIM = 256
QUERIES = 1000
SPARE = 1000  # extra vectors, since the share of queries in each block is rounded up
EFFORTS = tuple(round(2 ** (step / 2)) for step in range(8, 23))  # 16 to 2,048
CANDIDATES = (5, 10, 20)  # multiples of COUNT that are re-scored
HAND_ROWS = 512  # rows that NumPy compares with all at once
MEMORY = 16_000_000_000
Line = dict[str, Any]


class Ours(Contender):
    """A recipe of vggsearch: built to files, opened memory-mapped, re-scored exactly."""

    def __init__(self, recipe: str) -> None:
        self.name = f"vggsearch {recipe}"
        self.recipe = recipe
        self.made = Path(tempfile.mkdtemp())

    def build(self, vectors: NDArray[np.float16]) -> None:
        planned = plan(len(vectors), DIM, self.recipe, MEMORY, WANTED)
        parts = (vectors[start : start + BUILD.block_rows] for start in range(0, len(vectors), BUILD.block_rows))
        build(self.made, parts, planned, None, SILENT)

    def save(self, folder: Path) -> None:
        for path in self.made.iterdir():
            shutil.move(path, folder)
        self.made.rmdir()

    def open(self, folder: Path) -> None:
        self.index = VectorIndex.open(folder, self.rows, self.dim)

    def settings(self) -> Iterator[str]:
        if self.index.is_exact:
            return iter(["0, 1"])
        is_graph = hnsw_of(self.index.core) is not None
        efforts = [effort for effort in EFFORTS if is_graph or effort <= self.index.lists]
        shares = (1,) if is_graph or "Flat" in self.recipe or "flat" in self.recipe else CANDIDATES
        return (f"{effort}, {share}" for effort in efforts for share in shares)

    def search(self, queries: NDArray[np.float32], setting: str, threads: int) -> NDArray[np.int64]:
        faiss().omp_set_num_threads(threads)
        faiss_import._threads.cache_clear()  # it keeps the first number it saw
        effort, candidates = map(int, setting.split(","))
        self.index.tuning = Tuning(effort, candidates)
        return self.index.nearest_vectors(queries, COUNT)[0]


def measure_pairs(folder: Path) -> Line:
    """Time all pairs, compared with plain NumPy and with FAISS's own search.

    Those two compare every row with all others; for many rows, only a share is timed and the seconds multiplied.
    """
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    units = np.concatenate(list(blocks(vectors)))
    share = 1 if len(units) < 50_000 else 5
    asked = units[: len(units) // share]

    def by_hand(with_lists: bool) -> None:
        room = np.empty((HAND_ROWS, len(units)), np.float32)  # allocating it each time costs as much as the product
        for start in range(0, len(asked), HAND_ROWS):
            some = asked[start : start + HAND_ROWS]
            products = np.matmul(some, units.T, out=room[: len(some)])
            if with_lists:
                np.argpartition(products, -PAIRS.count - 1, axis=1)[:, -PAIRS.count - 1 :].copy()

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "vggsearch": (1, lambda: all_pairs(vectors, PAIRS.count, -1.0)),
        "NumPy, products and argpartition": (share, lambda: by_hand(True)),
        "FAISS knn": (
            share,
            lambda: faiss().knn(asked, units, PAIRS.count + 1, metric=faiss().METRIC_INNER_PRODUCT),
        ),
        "NumPy, products alone": (share, lambda: by_hand(False)),
    }
    figures = {name: [seconds * times for seconds in timed(way)] for name, (times, way) in ways.items()}
    return {"contender": "pairs", "rows": len(vectors), "pairs": figures}


def prepare(folder: Path, indexes: list[Path], rows: int) -> Path:
    """Write the vectors, the queries (other vectors of the same collection) and the exact results."""
    made = folder / f"{rows}"
    if (made / "tenth.npy").exists():
        return made
    made.mkdir(parents=True, exist_ok=True)
    vectors = np.lib.format.open_memmap(made / "vectors.npy", "w+", np.float16, (rows, DIM))
    queries, at = [], 0
    for block in Realistic(real_vectors(indexes, DIM)).blocks(rows + QUERIES + SPARE):
        held_out = np.zeros(len(block), bool)
        share = math.ceil(QUERIES * len(block) / (rows + QUERIES))
        held_out[np.random.default_rng(at).choice(len(block), share, replace=False)] = True
        kept = block[~held_out][: rows - at]
        vectors[at : at + len(kept)] = kept
        at += len(kept)
        queries.append(unit(block[held_out]))
    vectors.flush()
    asked = np.concatenate(queries)[:QUERIES]
    _, exact = brute_force.nearest(asked, COUNT, lambda some: unit(vectors[some]), rows)
    np.save(made / "queries.npy", asked)
    np.save(made / "tenth.npy", exact[:, -1])
    return made


def run(options: argparse.Namespace) -> None:
    for rows in options.rows:
        folder = prepare(options.folder, options.index, rows)
        for number, contender in product(range(options.rounds), options.contenders):
            is_peer = contender in CONTENDERS
            script = Path(__file__).with_name("index_peers.py") if is_peer else Path(__file__)
            python = options.peers_python if is_peer else sys.executable
            kept = folder / re.sub(r"\W", "-", contender)
            command = [python, str(script), *([] if is_peer else ["one"]), contender, str(folder), str(kept)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            with options.results.open("a") as file:
                file.write(done.stdout.splitlines()[-1] + "\n")
            print(f"{rows:,} rows, {contender}: round {number + 1} done", file=sys.stderr)


def one(options: argparse.Namespace) -> None:
    if options.contender == "pairs":
        print(json.dumps(measure_pairs(options.folder)))
    else:
        print(json.dumps(measure(Ours(options.contender), options.folder, options.kept)))


def report(options: argparse.Namespace) -> None:
    lines = [json.loads(text) for text in options.results.read_text().splitlines()]
    latest = {(line["rows"], line["contender"]): line for line in lines}
    for line in lines:
        if "points" in line:
            latest[line["rows"], line["contender"]] = best_of(latest[line["rows"], line["contender"]], line)
    indexes = [line for _, line in sorted(latest.items()) if "points" in line]
    columns = (
        "rows",
        "index",
        "build, s of CPU (wall)",
        "bytes a vector",
        "peak MB",
        "opens in ms",
        "setting",
        "recall@10",
        "us of CPU a query",
        "queries/s",
        "on one core",
    )
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for line in indexes:
        best = reaching(line)
        print(
            f"| {line['rows']:,} | {line['contender']} | {line['build_cpu_s']:.1f} ({line['build_s']:.1f}) "
            f"| {line['bytes'] / line['rows']:.0f} | {line['peak_bytes'] / 1e6:,.0f} "
            f"| {1000 * line['open_s']:.0f} | {best['setting']} "
            f"| {best['recall']:.3f}{'' if best['recall'] >= WANTED else ', no more'} | {best['cpu_us']:,.0f} "
            f"| {best['per_s']:,} | {best['per_s_alone']:,} |"
        )
    for line in (line for line in latest.values() if "pairs" in line):
        for name, (wall, cpu) in line["pairs"].items():
            print(f"| {line['rows']:,} | {name} | {cpu:.1f} s of CPU | {wall:.1f} s |")
    curves = growth(indexes)
    for what, of in curves.items():
        for name, points in of.items():
            if len(points) > 1:
                print(f"{what}, {name}: grows as rows ** {exponent(points):.2f}")
    if options.svg:
        options.svg.write_text(drawing(curves))


def best_of(one: Line, other: Line) -> Line:
    """Return one of two lines for the same index with the best figures of both."""
    points = [reaching(one), reaching(other)]
    best = {
        **points[0],
        "cpu_us": min(point["cpu_us"] for point in points),
        "per_s": max(point["per_s"] for point in points),
        "per_s_alone": max(point["per_s_alone"] for point in points),
    }
    return {**one, "open_s": min(one["open_s"], other["open_s"]), "points": [best]}


def growth(indexes: list[Line]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return curves by quantity and contender: (rows, value) in order of rows."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in indexes:
        name = re.sub(r"IVF\d+", "IVF", line["contender"].split(" (")[0])
        curves["build, s of CPU"][name].append((line["rows"], max(line["build_cpu_s"], 0.01)))
        if reaching(line)["recall"] >= WANTED:
            curves["query at recall 0.99, us of CPU"][name].append((line["rows"], reaching(line)["cpu_us"]))
    return curves


def exponent(points: list[tuple[float, float]]) -> float:
    """Return the exponent of the number of rows that fits best."""
    rows, values = np.log(np.array(points)).T
    return float(np.polyfit(rows, values, 1)[0])


COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#999999",
    "#7a4b00",
    "#5b3fa8",
)
WIDTH, HEIGHT, MARGIN = 460, 360, 60


def drawing(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Return an SVG with one plot for each quantity, both axes logarithmic."""
    names = sorted({name for of in curves.values() for name in of})
    shapes = [plot(title, of, names, place * WIDTH) for place, (title, of) in enumerate(curves.items())]
    for place, name in enumerate(names):
        x, y = MARGIN + place % 4 * 220, HEIGHT + 18 + place // 4 * 18
        shapes.append(f'<text x="{x}" y="{y}" fill="{COLOURS[place % len(COLOURS)]}">{name}</text>')
    width, height = WIDTH * len(curves) + MARGIN // 2, HEIGHT + 30 + len(names) // 4 * 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def plot(title: str, of: dict[str, list[tuple[float, float]]], names: list[str], left: float) -> str:
    every = np.log10(np.array([point for points in of.values() for point in points]))
    low, high = np.floor(every.min(axis=0)), np.ceil(every.max(axis=0) - 1e-9)

    def at(rows: float, value: float) -> tuple[float, float]:
        x, y = (np.log10([rows, value]) - low) / np.maximum(high - low, 1)
        return left + MARGIN + x * (WIDTH - 1.5 * MARGIN), HEIGHT - 30 - y * (HEIGHT - 80)

    shapes = [f'<text x="{left + MARGIN}" y="24">{title}</text>']
    for power in range(int(low[1]), int(high[1]) + 1):
        (x, y), (end, _) = at(10 ** low[0], 10.0**power), at(10 ** high[0], 10.0**power)
        shapes.append(f'<path d="M{x:.0f} {y:.0f}H{end:.0f}" stroke="#d4d7db"/>')
        shapes.append(f'<text x="{x - 6:.0f}" y="{y + 4:.0f}" text-anchor="end">{10.0**power:g}</text>')
    for power in range(int(low[0]), int(high[0]) + 1):
        x, y = at(10.0**power, 10 ** low[1])
        shapes.append(f'<text x="{x:.0f}" y="{y + 18:.0f}" text-anchor="middle">{10**power:,}</text>')
    for name, points in of.items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        places = [at(*point) for point in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
    return "\n".join(shapes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.set_defaults(work=run)
    running.add_argument("folder", type=Path)
    running.add_argument("results", type=Path)
    running.add_argument("--index", type=Path, nargs="+", default=[])
    running.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    running.add_argument("--contenders", nargs="+", required=True)
    running.add_argument("--rounds", type=int, default=1)
    running.add_argument("--peers-python", default=sys.executable)
    single = commands.add_parser("one")
    single.set_defaults(work=one)
    single.add_argument("contender")
    single.add_argument("folder", type=Path)
    single.add_argument("kept", type=Path)
    reporting = commands.add_parser("report")
    reporting.set_defaults(work=report)
    reporting.add_argument("results", type=Path)
    reporting.add_argument("svg", type=Path, nargs="?")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
