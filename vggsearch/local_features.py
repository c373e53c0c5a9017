"""Keep the local features of all photos: make those that are missing, forget those of photos that are gone."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.extract import Decoded, decoded
from vggsearch.geometry import decode, encode
from vggsearch.model.engine import Engine
from vggsearch.model.local import half_size
from vggsearch.photos import PhotoFile
from vggsearch.regions import region_vectors
from vggsearch.store.local import ROWS, StoredFeatures
from vggsearch.store.store import Store, StoreWriter
from vggsearch.update import Progress

CELL_PIXELS = 16  # of a cell's side: four poolings come before it

Levels = tuple[NDArray[np.float32], NDArray[np.float32]]


def keep_local_features(
    store: Store,
    writer: StoreWriter,
    root: Path,
    load_engine: Callable[[], Engine],
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Make the local features of all live photos that have none; commit them every minute, and when it is stopped.

    A photo that cannot be read any more, or has changed since, is passed over: the next update sees to it.
    """
    files = _missing(store)
    if files:
        engine = load_engine()
        done = 0
        kept: dict[str, StoredFeatures] = {}
        committed = time.monotonic()
        for features, count in _described(files, root, store, engine, workers):
            kept |= features
            done += count
            if progress is not None:
                progress(Progress(done, len(files), 0, f"local features, {engine}"))
            is_stopped = stop is not None and stop()
            if is_stopped or len(kept) >= ROWS or time.monotonic() - committed >= EXTRACT.part_seconds:
                if kept:
                    writer.add_local(kept)
                kept, committed = {}, time.monotonic()
            if is_stopped:
                return
        if kept:
            writer.add_local(kept)
    writer.compact_local()


def to_store(levels: Levels) -> StoredFeatures:
    """Return what is kept of the cells of one picture, float32 (side, side, numbers) at two sizes."""
    cells = np.concatenate([encode(level).ravel() for level in levels])
    return StoredFeatures(cells, encode(region_vectors(levels[0])))


def from_store(features: StoredFeatures, size: int) -> Levels:
    """Return the cells that were kept, of pictures of `size` pixels; nearly as they were."""
    sides = [pixels // CELL_PIXELS for pixels in (size, half_size(size))]
    numbers = len(features.cells) // sum(side**2 for side in sides)
    fine, coarse = np.split(features.cells, [sides[0] ** 2 * numbers])
    first, second = (
        decode(cells.reshape(side, side, numbers)) for cells, side in zip((fine, coarse), sides, strict=True)
    )
    return first, second


def _missing(store: Store) -> dict[str, PhotoFile]:
    """Return one file for each content that has no local features, by sha256."""
    files: dict[str, PhotoFile] = {}
    for sha256, *facts in store.rows_of("sha256", "path", "bytes", "mtime_ns"):
        files.setdefault(sha256, PhotoFile(*facts))
    missing = store.local().missing(files)
    return {sha256: file for sha256, file in files.items() if sha256 in missing}


def _described(
    files: dict[str, PhotoFile], root: Path, store: Store, engine: Engine, workers: int | None
) -> Iterator[tuple[dict[str, StoredFeatures], int]]:
    """Yield the local features of batch after batch, by sha256, and how many files that batch was."""
    at_once = engine.batch_size
    source = decoded(list(files.values()), root, store.spec, ahead=2 * at_once, workers=workers)
    while items := list(islice(source, at_once)):
        usable = [item for item in items if isinstance(item, Decoded) and item.sha256 in files]
        yield dict(_features(usable, engine)), len(items)


def _features(items: Sequence[Decoded], engine: Engine) -> Iterator[tuple[str, StoredFeatures]]:
    if items:
        fine, coarse = engine.describe(np.stack([item.square.pixels for item in items])).levels
        for item, *levels in zip(items, fine, coarse, strict=True):
            yield item.sha256, to_store((levels[0], levels[1]))
