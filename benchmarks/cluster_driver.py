"""What the command of a Ray cluster does for each photo: read what workers return, and commit it.

    python benchmarks/cluster_driver.py [ROWS]

Prints bytes and microseconds of CPU a photo. No cluster is started, no network runs: embeddings are random.
"""

import pickle
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vggsearch.cluster.rows import Rows
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.capture import Capture
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

CHUNK = 512


def chunk(number: int, dim: int) -> tuple[list[PhotoFile], bytes]:
    """Return files, and what a worker returns for them."""
    random = np.random.default_rng(number)
    files = [PhotoFile(f"{number:06}/{row:03}.jpg", 100_000 + row, 10**18 + row) for row in range(CHUNK)]
    vectors = random.standard_normal((CHUNK, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = (500, 375, "JPEG", Capture(), False)
    photos = [
        Embedded(file, random.bytes(32).hex(), *facts, random.bytes(BYTES), vector, EngineInfo("openvino", "int8"))
        for file, vector in zip(files, vectors, strict=True)
    ]
    return files, pickle.dumps(Rows.of(photos, dim), protocol=5)


def main(rows: int) -> None:
    spec, _ = EmbeddingOptions().resolve()
    chunks = [chunk(number, spec.dim) for number in range(max(1, rows // CHUNK))]
    count = len(chunks) * CHUNK
    print(f"{sum(len(data) for _, data in chunks) / count:,.0f} bytes a photo from the workers")
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "index", spec)
        with writing(store) as writer:
            start = time.process_time()
            photos = [item for files, data in chunks for item in pickle.loads(data).items(files)]  # noqa: S301
            read = time.process_time()
            writer.commit([photo for photo in photos if isinstance(photo, Embedded)])
            end = time.process_time()
    print(
        f"{(read - start) / count * 1e6:.1f} us of CPU a photo to read, {(end - read) / count * 1e6:.1f} to commit"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
