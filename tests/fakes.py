"""A network that needs no weights, and photos that need no camera."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import EMBEDDING
from vggsearch.model.engine import Description, Engine
from vggsearch.model.spec import EmbeddingSpec

GRID = 8  # cells a side: 8 x 8 x RGB are 192 numbers

FAKE_SPEC = EmbeddingSpec(
    model=EMBEDDING.model,
    layer=EMBEDDING.layer,
    pooling=EMBEDDING.map_pooling,
    sizes=(EMBEDDING.map_size,),
    resize=EMBEDDING.resize,
    weights_sha256="0" * 64,
)


class FakeEngine(Engine):
    """Mean colours on a grid: instant, and near-duplicates really are near. Counts its calls and pictures."""

    name = "fake"
    precision = "fp32"
    device = "nothing"

    def __init__(self, dim: int = 1024, batch_size: int = 8) -> None:
        self.dim = dim
        self.batch_size = batch_size
        self.calls = 0
        self.pictures = 0

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        self.pictures += len(squares)
        colours = _grid_means(squares).reshape(len(squares), -1)
        rows = np.pad(colours, ((0, 0), (0, self.dim - colours.shape[1])))
        rows[~rows.any(axis=1), 0] = 1.0
        unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def describe(self, squares: NDArray[np.uint8], levels: int = 2) -> Description:
        return Description(self.embed(squares), (_cells(squares), _cells(squares[:, ::2, ::2]))[:levels])

    def multiply_adds_per_s(self, seconds: float) -> float:
        return 1e9


def _cells(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours of the four quarters of each cell of 16 x 16 pixels, from mid-grey: 12 numbers."""
    count, side = len(squares), squares.shape[1] // 16
    quarters = squares[:, : side * 16, : side * 16].reshape(count, side, 2, 8, side, 2, 8, 3).mean(axis=(3, 6))
    cells = quarters.transpose(0, 1, 3, 2, 4, 5).reshape(count, side, side, 12) - 127.5
    unit: NDArray[np.float32] = (cells / np.linalg.norm(cells, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def _grid_means(squares: NDArray[np.uint8]) -> NDArray[np.float64]:
    edges = np.linspace(0, squares.shape[1], GRID + 1).astype(int)
    cells = np.diff(edges)
    sums = np.add.reduceat(squares.astype(np.float64), edges[:-1], axis=1)
    sums = np.add.reduceat(sums, edges[:-1], axis=2)
    means: NDArray[np.float64] = sums / (cells[:, None] * cells)[None, :, :, None]
    return means


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return a smooth, colourful RGB picture; each seed gives another."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def save_photo(path: Path, seed: int, size: tuple[int, int] = (320, 240), **save_kwargs: Any) -> Path:
    """Write `picture(seed, size)` to `path`, in the format of its suffix, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        save_kwargs.setdefault("compress_level", 1)  # quicker
    picture(seed, size).save(path, **save_kwargs)
    return path


def squares(count: int, size: int, first: int = 0) -> NDArray[np.uint8]:
    """Return pictures of the seeds from `first` on, as the network sees them: uint8 (count, size, size, 3)."""
    found = [np.asarray(picture(seed, (size, size))) for seed in range(first, first + count)]
    return np.stack(found) if found else np.empty((0, size, size, 3), np.uint8)
