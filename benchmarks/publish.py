"""Measure publishing: python benchmarks/publish.py 30000 postgresql://server/database.

An index of random embeddings around common centres is made, published, and searched there for 100 of its photos.
CPU times are those of this process, without the server's. lance+file:///folder/name is another place.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.indexing.build import build_vector_index
from vggsearch.knn.vectors import unit_rows
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile
from vggsearch.published.searcher import Published, PublishedSearcher
from vggsearch.published.table import Table, Wanted, open_table
from vggsearch.query.searcher import Searcher
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

AT_ONCE = 10_000
QUERIES, COUNT = 100, 10
HASH = bytes(range(32))


def embeddings(rows: NDArray[np.int64], dim: int) -> NDArray[np.float32]:
    """Return embeddings of photos: of twenty in a row, around one centre."""
    centres = [np.random.default_rng(kind).standard_normal(dim) for kind in np.unique(rows // 20)]
    noise = np.random.default_rng(rows[0]).standard_normal((len(rows), dim))
    return unit_rows(np.repeat(centres, np.unique(rows // 20, return_counts=True)[1], axis=0) + 0.7 * noise)


def made(directory: Path, photos: int) -> None:
    """Make the index."""
    store = Store.create(directory, EmbeddingOptions().resolve()[0])
    with writing(store) as writer:
        for start in range(0, photos, AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, photos))
            writer.commit(
                [
                    Embedded(
                        *(PhotoFile(f"{row // 1000}/{row}.jpg", row, row), f"{row:064x}", 400, 300, "JPEG"),
                        *(Capture(), False, HASH, vector, EngineInfo("random", "fp32")),
                    )
                    for row, vector in zip(rows.tolist(), embeddings(rows, store.spec.dim), strict=True)
                ]
            )
        build_vector_index(store, writer)


def measured(here: Searcher, table: Table, dim: int) -> None:
    """Print how many of the nearest photos the place finds by its index, and how long a query takes."""
    published = Published(table)
    seen = published.now()
    rows = np.linspace(0, len(here) - 1, QUERIES).astype(np.int64)
    vectors = here.index.to_vectors(np.concatenate([embeddings(row[None], dim) for row in rows]))
    nearest = here.index.nearest_exactly(vectors, COUNT)[0]
    there = PublishedSearcher(
        (), seen.index, np.empty(0, np.int64), table=table, seen=seen, among=Wanted(), counts=(len(here), len(here))
    )
    wall, cpu = time.perf_counter(), time.process_time()
    found = there.nearest_to_vectors(vectors, COUNT, None, [None] * QUERIES, None, [None] * QUERIES)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    shares = [
        len({match.path for match in matches} & {here.paths[row] for row in best.tolist()}) / COUNT
        for matches, best in zip(found, nearest, strict=True)
    ]
    times = f"{1e3 * wall / QUERIES:.1f} ms a query, {1e3 * cpu / QUERIES:.1f} of CPU"
    print(f"recall@{COUNT} {np.mean(shares):.3f}, {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=int)
    parser.add_argument("url")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "index"
        made(directory, given.photos)
        with ImageIndex.open(directory) as index:
            started = time.process_time()
            report = index.publish(given.url, replace=True)
            cpu = time.process_time() - started
            print(f"published {report.added:,} photos in {report.seconds:.1f} s")
            print(f"CPU {1e6 * cpu / given.photos:.0f} us a photo")
            print(f"again: {index.publish(given.url).seconds:.2f} s")
            table = open_table(given.url)
            measured(searcher_of(index), table, index.spec.dim)
            table.close()


if __name__ == "__main__":
    main()
