"""Load the embeddings of an index into one numpy array, for a notebook, a classifier or a plot.

python examples/embeddings_to_numpy.py indexes/photos
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


def load(directory: Path) -> tuple[list[str], NDArray[np.float16]]:
    """Return the paths, and the embeddings in the same order: float16 (photos, dim)."""
    manifest = json.loads((directory / "manifest.json").read_text())
    paths: list[str] = []
    blocks: list[NDArray[np.float16]] = []
    for part in manifest["parts"]:  # the manifest, not the folder, decides which parts and rows count
        table = pq.read_table(directory / "embeddings" / part["name"], columns=["path", "embedding"])
        dead = part["dead"]
        if part["dead_file"]:  # many dead rows are in a file, one bit a row
            bits = np.fromfile(directory / "embeddings" / part["dead_file"]["name"], np.uint8)
            dead = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
        table = table.take(np.setdiff1d(np.arange(part["rows"]), dead))
        paths += table.column("path").to_pylist()
        blocks.append(np.stack(table.column("embedding").to_numpy()))
    return paths, np.concatenate(blocks)


if __name__ == "__main__":
    names, embeddings = load(Path(sys.argv[1]))
    print(f"{len(names)} photos, {embeddings.shape[1]} dimensions, {embeddings.dtype}")
