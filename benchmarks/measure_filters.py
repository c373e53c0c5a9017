"""Time filters on a synthetic index: python benchmarks/measure_filters.py 1000000 [DIRECTORY]

Times each filter from its text to the rows it leaves, in an index just opened and again; then searches for the ten
nearest of some photos, among all rows and among those a filter leaves.
"""

import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.indexing.build import build_vector_index
from vggsearch.knn import brute_force
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import SECOND, Capture
from vggsearch.photos.walk import PhotoFile
from vggsearch.query.filters import parse_filter
from vggsearch.query.snapshot import LatestSnapshot
from vggsearch.store.manifest import BuildOptions
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

LAYER = "pool3"  # 256 dimensions
RECIPE = "IVF1024,SQ8"  # a quarter of the lists that auto uses for a million: trained in a minute
PART = 50_000  # photos
CENTRES = 4000  # of clusters of similar photos
QUERIES, COUNT = 100, 10
MADE_BY = EngineInfo("none", "fp32")
RULES = (
    ["*.png"],
    ["2019/**"],
    ["**/07/**"],
    ["folder:2019/rome"],
    ["taken:2019-05..2020"],
    ["size:4000.."],
    ["orientation:portrait"],
    ["*.png", "orientation:portrait", "size:3000.."],
)
SHARES = (0.5, 0.1, 0.03, 0.01)


def photos(start: int, count: int, dim: int) -> list[Embedded]:
    random = np.random.default_rng(start)
    centres = np.random.default_rng(0).standard_normal((CENTRES, dim), np.float32)
    vectors = centres[random.integers(0, CENTRES, count)] + 0.7 * random.standard_normal((count, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    days, sides = random.integers(0, 25 * 365, count).tolist(), random.integers(200, 6000, (count, 2)).tolist()
    return [photo(start + row, days[row], sides[row], vector) for row, vector in enumerate(vectors)]


def photo(row: int, day: int, sides: list[int], vector: NDArray[np.float32]) -> Embedded:
    taken = datetime(2000, 1, 1) + timedelta(days=day)
    where = ("rome", "Family & friends", "caf\u00e9")[row % 3]
    path = f"{taken.year}/{where}/{taken.month:02}/IMG_{row:07}.{'png' if row % 10 == 0 else 'JPG'}"
    width, height = sides
    file = PhotoFile(path, row, row)
    return Embedded(
        file, f"{row:064x}", width, height, "JPEG", Capture(taken, SECOND), False, None, vector, MADE_BY
    )


def fill(folder: Path, count: int) -> None:
    spec, _ = EmbeddingOptions(layer=LAYER).resolve()
    store = Store.create(folder, spec)
    with writing(store) as writer:
        for start in range(0, count, PART):
            writer.commit(photos(start, min(PART, count - start), spec.dim))


def time_filters(store: Store) -> None:
    store.array("width")  # reading the first column makes pyarrow import pandas, if it is installed
    for texts in RULES:
        present = LatestSnapshot(store)
        rows = len(present.read(lambda state: state.paths))
        state = present.read(lambda state: state)
        started = time.process_time()  # CPU time of one thread, so other programs do not matter
        wanted = state.wanted([parse_filter(text) for text in texts])
        first = time.process_time() - started
        started = time.process_time()
        for text in texts:
            parse_filter(text).keeps(state)
        again = time.process_time() - started
        left = wanted.count / rows if wanted is not None else 1
        print(
            f"{' '.join(texts):45} {1e3 * first:8.0f} ms {1e3 * again:8.0f} ms again {left:7.1%} left", flush=True
        )


def time_searches(index: VectorIndex) -> None:
    random = np.random.default_rng(1)
    vectors = index.unit_vectors(np.sort(random.choice(len(index), QUERIES, replace=False)))
    for share in (None, *SHARES):
        selection = None if share is None else Selection(random.random(len(index)) < share)
        allowed = len(index) if selection is None else selection.rows
        exact, _ = brute_force.nearest(vectors, COUNT, index.unit_vectors, allowed)
        index.nearest_vectors(vectors[:1], COUNT, selection)
        started = time.perf_counter()
        found = [index.nearest_vectors(vector[None], COUNT, selection)[0][0] for vector in vectors]
        took = (time.perf_counter() - started) / QUERIES
        recall = np.mean([len(np.intersect1d(one, other)) / COUNT for one, other in zip(found, exact, strict=True)])
        started = time.perf_counter()
        index.nearest_vectors(vectors, COUNT, selection)
        together = (time.perf_counter() - started) / QUERIES
        label = "all rows" if share is None else f"{share:.0%} of them"
        print(
            f"{label:12} {1e3 * took:7.1f} ms a query, {1e3 * together:7.1f} ms in one block, recall {recall:.3f}"
        )


def main(count: int, folder: Path) -> None:
    if not folder.exists():
        started = time.perf_counter()
        fill(folder, count)
        print(f"created in {time.perf_counter() - started:.0f} s", flush=True)
    store = Store.open(folder)
    started = time.perf_counter()
    LatestSnapshot(store).read(lambda state: state.paths)
    print(f"{len(store):,} paths read in {1e3 * (time.perf_counter() - started):.0f} ms", flush=True)
    time_filters(store)
    if store.manifest.fresh_vector_index is None:
        with writing(store) as writer:
            build_vector_index(store, writer, options=BuildOptions(recipe=RECIPE))
    index = LatestSnapshot(store).searcher().index
    print(f"recipe {RECIPE}, {index.tuning}", flush=True)
    time_searches(index)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary) / "index")
