"""Indexes of embeddings whose labels can be learned: photos of one label differ most in what tells none apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.make_golden_index import SMALL_SPEC
from vggsearch.indexing.build import build_vector_index
from vggsearch.knn.vectors import unit_rows
from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

NUISANCE = 12  # directions in which photos of one label differ
TELLING = 12  # directions that tell labels apart


def kinds_of_photos(kinds: int, each: int, seed: int = 0) -> NDArray[np.float32]:
    """Return unit embeddings of `each` photos of several kinds, kind by kind: float32 (kinds * each, dim)."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((kinds, TELLING))
    vectors = random.standard_normal((kinds * each, SMALL_SPEC.dim)) * 0.05
    vectors[:, :NUISANCE] += random.standard_normal((kinds * each, NUISANCE)) * 2
    vectors[:, NUISANCE : NUISANCE + TELLING] += np.repeat(centres, each, axis=0)
    vectors[:, -1] += 3  # what all photos have in common
    return unit_rows(vectors)


def path_of(row: int) -> str:
    return f"{row:04}.jpg"


def photo_of(row: int, path: str, vector: NDArray[np.float32], key: str = "") -> Embedded:
    """Return a photo with an embedding; its SHA-256 is the row unless a key is given."""
    file, engine = PhotoFile(path, row, row), EngineInfo("fake", "fp32")
    return Embedded(file, key or f"{row:064x}", 64, 48, "JPEG", Capture(), False, None, vector, engine)


def add_photos(directory: Path, vectors: NDArray[np.float32], first: int, keys: Sequence[str] = ()) -> None:
    """Add photos to an index, numbered from `first`, with these embeddings."""
    store = Store.open(directory)
    photos = [
        photo_of(row, path_of(row), vector, keys[row - first] if keys else "")
        for row, vector in enumerate(vectors, first)
    ]
    with writing(store) as writer:
        writer.commit(photos)
        build_vector_index(store, writer)


def index_of_kinds(directory: Path, kinds: int, each: int, keys: Sequence[str] = ()) -> dict[str, str]:
    """Make an index of such photos; return the kind of each, by path."""
    Store.create(directory, SMALL_SPEC)
    add_photos(directory, kinds_of_photos(kinds, each), 0, keys)
    return {path_of(row): f"kind {row // each}" for row in range(kinds * each)}
