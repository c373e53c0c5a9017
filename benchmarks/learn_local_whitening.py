"""Learn the whitening of local features for the packaged weights, from the photos of the demo.

python benchmarks/learn_local_whitening.py [FILE]

Writes `mean` (512,) and `projection` (64, 512), float16, to FILE, by default the one inside the package. The photos
are those in the scikit-image and scikit-learn wheels (examples/make_photos.py --credits): each whole, in windows of
70, 50 and 35 % of its sides, and all of these mirrored. Eigenvalues are shrunk towards their mean, since a dozen
photos do not show every variation.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from make_photos import shipped_photos

from vggsearch.model.loading import load_engine
from vggsearch.model.local_features import WHITENINGS
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.resize import square

DIMENSIONS = 64
SHRINK = 0.3
WINDOWS = {1.0: 1, 0.7: 2, 0.5: 3, 0.35: 3}  # share of a side -> windows along it
UNKNOWN = "0" * 64  # weights without a whitening


def windows(photo: Image.Image, size: int) -> Iterator[NDArray[np.uint8]]:
    for share, places in WINDOWS.items():
        width, height = round(photo.width * share), round(photo.height * share)
        for left in np.linspace(0, photo.width - width, places).astype(int).tolist():
            for top in np.linspace(0, photo.height - height, places).astype(int).tolist():
                found = square(photo.crop((left, top, left + width, top + height)), size, "squash")
                yield found
                yield found[:, ::-1]


def learn(cells: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and projection of cells (n, channels): PCA, each direction scaled to standard deviation 1."""
    mean = cells.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(np.cov(cells, rowvar=False, dtype=np.float64))
    shrunk = (1 - SHRINK) * values + SHRINK * values.mean()
    projection = (directions / np.sqrt(shrunk)).T[::-1][:DIMENSIONS]
    return mean, projection / np.linalg.norm(projection, axis=1).min()  # cells are scaled to length 1 afterwards


def main(file: Path) -> None:
    spec, weights = EmbeddingOptions().resolve()
    engine = load_engine(replace(spec, weights_sha256=UNKNOWN), weights)
    found = []
    for photo, path in shipped_photos():
        with Image.open(path) as opened:
            squares = list(windows(opened.convert("RGB"), spec.size))
        batches = [np.stack(squares[start : start + 8]) for start in range(0, len(squares), 8)]
        found += [engine.describe(batch).levels[0] for batch in batches]
        print(f"{photo.name}: {len(squares)} windows")
    cells = np.concatenate(found)
    mean, projection = learn(cells.reshape(-1, cells.shape[-1]))
    np.savez(file, mean=mean.astype(np.float16), projection=projection.astype(np.float16))
    print(f"{file}: {file.stat().st_size:,} bytes from {cells[..., 0].size:,} cells")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else WHITENINGS[EmbeddingOptions().resolve()[0].weights_sha256])
