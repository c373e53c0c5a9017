"""Convert manifests of older formats, one format at a time. Nothing is written before the next commit."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vggsearch.defaults import BUILD
from vggsearch.model.spec import spec_from_json
from vggsearch.store.contents import SKIPPED
from vggsearch.store.dead_rows import FILE, ROWS, fingerprint_of, listed
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


def _from_8(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 9 keeps many dead rows in files, by whose hashes the fingerprint of the rows knows them."""
    parts = values["parts"]
    before, after = _fingerprints(values["embedding"], parts)
    sides = {role: _with_dead_files(values[role], before, after) for role in ("search", "learned")}
    return {**values, **sides, "format": 9, "parts": [{**part, FILE: None} for part in parts]}


def _fingerprints(embedding: Values, parts: list[Values]) -> tuple[str, str]:
    """Return the fingerprint of rows as formats 3 to 8 defined it, and as format 9 does."""
    spec = asdict(spec_from_json(embedding))
    state = [spec, [(part["name"], part["sha256"], part[ROWS]) for part in parts]]
    now = fingerprint_of(spec, ((part["name"], part["sha256"], listed(part[ROWS])) for part in parts))
    return hashlib.sha256(json.dumps(state).encode()).hexdigest(), now


def _with_dead_files(side: Values | None, before: str, after: str) -> Values | None:
    if side is None:
        return None
    fingerprint = after if side["fingerprint"] == before else side["fingerprint"]
    made_from = [{**part, FILE: None} for part in side["made_from"]]
    return {**side, "fingerprint": fingerprint, "made_from": made_from}


MIGRATIONS: dict[int, Callable[[Values, Path], Values]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
    7: _from_7,
    8: _from_8,
}
