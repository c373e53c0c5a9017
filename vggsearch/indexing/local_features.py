"""Store the local features of all photos: compute missing ones, drop those of deleted photos."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from vggsearch.defaults import EXTRACT
from vggsearch.errors import Stopped
from vggsearch.indexing.decoding import Decoded, decoded
from vggsearch.matching.feature_maps import Cells, decode, encode
from vggsearch.matching.regions import REGION_SCALES, region_vectors
from vggsearch.model.engine import Engine
from vggsearch.model.layers import modules_before_cells, needed_modules
from vggsearch.model.local_features import find_whitening
from vggsearch.model.poolings import rmac_regions
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.walk import PhotoFile
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.local_features import ROWS, StoredFeatures
from vggsearch.store.store import Store
from vggsearch.store.writer import StoreWriter


def most_by_default(spec: EmbeddingSpec) -> int:
    """Return up to how many photos a new index keeps their local features unasked, on a machine without a GPU.

    It does so if they cost little: they are maps that the network computes anyway, whitened to few dimensions, and
    fit into EXTRACT.local_bytes. On a GPU, they would cost more than the embeddings.
    """
    if not spec.has_cells or (whitening := find_whitening(spec.weights_sha256)) is None:
        return 0
    if not set(modules_before_cells(spec.model)) <= set(needed_modules(spec.model, spec.layer)):
        return 0
    side = spec.cells_a_side
    vectors = side**2 + len(rmac_regions(side, side, REGION_SCALES))
    return EXTRACT.local_bytes // (vectors * len(whitening.projection))


def keep_local_features(
    store: Store,
    writer: StoreWriter,
    root: Path,
    load_engine: Callable[[int], Engine],
    *,
    workers: int | None = None,
    monitor: Monitor = SILENT,
) -> None:
    """Compute the local features of all live photos without any, and drop those of deleted photos.

    They are committed every minute, and on a stop. A photo that can no longer be read, or has changed, is omitted:
    the next update handles it. Raises Stopped.
    """
    live = _live(store)
    stored = store.local().all_keys()
    missing = {sha256: file for sha256, file in live.items() if sha256 not in stored}
    if missing:
        _make(missing, store, writer, root, load_engine(len(missing)), workers, monitor)
    writer.compact_local(live)


def _make(
    files: Mapping[str, PhotoFile],
    store: Store,
    writer: StoreWriter,
    root: Path,
    engine: Engine,
    workers: int | None,
    monitor: Monitor,
) -> None:
    """Compute the local features of the given files, by sha256."""
    made: dict[str, StoredFeatures] = {}
    done, committed = 0, time.monotonic()
    try:
        for features, count in _described(files, root, store, engine, workers):
            made |= features
            done += count
            monitor.step("making local features", done, len(files), note=str(engine))
            if len(made) >= ROWS or time.monotonic() - committed >= EXTRACT.part_seconds:
                writer.add_local(made)
                made, committed = {}, time.monotonic()
    except Stopped:
        writer.add_local(made)
        raise
    writer.add_local(made)


def to_store(cells: Cells) -> StoredFeatures:
    """Encode the cells of one photo, float32 (side, side, dimensions), for the store."""
    return StoredFeatures(encode(cells).ravel(), encode(region_vectors(cells)))


def from_store(features: StoredFeatures, side: int) -> Cells:
    """Decode the stored cells of a photo, with so many a `side`; encoding is slightly lossy."""
    return decode(features.cells.reshape(side, side, -1))


def _live(store: Store) -> dict[str, PhotoFile]:
    """Return one file of each content, by sha256."""
    columns = ("sha256", "path", "bytes", "mtime_ns")
    files: dict[str, PhotoFile] = {}
    for part in store.manifest.parts:
        for sha256, *facts in zip(*(store.column(part, name) for name in columns), strict=True):
            files.setdefault(sha256, PhotoFile(*facts))
    return files


def _described(
    files: Mapping[str, PhotoFile], root: Path, store: Store, engine: Engine, workers: int | None
) -> Iterator[tuple[dict[str, StoredFeatures], int]]:
    """Yield the local features of each batch, by sha256, and the number of files in it."""
    at_once = engine.batch_size
    source = decoded(list(files.values()), root, store.spec, ahead=2 * at_once, workers=workers)
    while items := list(islice(source, at_once)):
        usable = [item for item in items if isinstance(item, Decoded) and item.sha256 in files]
        yield dict(_features(usable, engine)), len(items)


def _features(items: Sequence[Decoded], engine: Engine) -> Iterator[tuple[str, StoredFeatures]]:
    if items:
        [cells] = engine.describe(np.stack([item.square.pixels for item in items]), levels=1).levels
        for item, its in zip(items, cells, strict=True):
            yield item.sha256, to_store(its)
