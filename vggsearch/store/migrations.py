"""Convert manifests of older formats, one format at a time. Nothing is written before the next commit."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vggsearch.defaults import BUILD
from vggsearch.store.contents import SKIPPED
from vggsearch.store.files import FileHash
from vggsearch.store.parts import current_embedding

Values = dict[str, Any]


def migrate(values: Values, directory: Path, wanted: int) -> Values:
    """Convert the values of the manifest in `directory` to format `wanted`, step by step."""
    while values["format"] < wanted:
        values = MIGRATIONS[values["format"]](values, directory)
    return values


def _from_1(values: Values, directory: Path) -> Values:
    """Format 2 records size and hash of every file. The vector index of format 1 has none, so it is rebuilt."""
    if "sha256" in values:
        raise ValueError("format 1, but with the checksum of a later format")
    skipped = directory / SKIPPED
    known = asdict(FileHash.of(skipped)) if skipped.exists() else None
    return {**values, "format": 2, "search": None, "skipped": known}


def _from_2(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 3 adds several input sizes, mirroring and whitening.

    The fingerprint of the rows includes them, so the vector index is rebuilt.
    """
    embedding = current_embedding(values["embedding"])
    return {**values, "format": 3, "search": None, "embedding": embedding, "is_whitened": True}


def _from_3(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 4 adds recipes and local features.

    All earlier vector indexes are flat and do not record which rows they were built from, so they cannot be
    updated, only rebuilt.
    """
    search = values["search"]
    if search is not None:
        flat = {"factory": "Flat", "lists": 0, "trained_rows": 0, "effort": 0, "candidates": 1}
        search = {**search, **flat, "recall": 1.0, "milliseconds": None, "made_from": []}
    build = {"recipe": BUILD.recipe, "memory": BUILD.memory, "recall": BUILD.recall}
    return {**values, "format": 4, "search": search, "build": build, "has_local": False, "local": []}


def _from_4(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 5 records the metric of FAISS; before, it was always the inner product."""
    return {**values, "format": 5, "build": {**values["build"], "metric": "cosine"}}


def _from_5(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 6 adds perceptual hashes. Photos of earlier parts have none until they are indexed again."""
    return {**values, "format": 6}


def _from_6(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 7 adds fractions of a second and cameras. Photos of earlier parts have neither."""
    return {**values, "format": 7}


def _from_7(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 8 adds a vector index under a transform that was learned from labels."""
    return {**values, "format": 8, "learned": None}


MIGRATIONS: dict[int, Callable[[Values, Path], Values]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
    7: _from_7,
}
