"""Older formats of the manifest, each brought to the next one; nothing is written until the next commit."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vggsearch.defaults import BUILD
from vggsearch.store.contents import SKIPPED
from vggsearch.store.files import FileHash
from vggsearch.store.parts import present_embedding

Values = dict[str, Any]


def migrate(values: Values, directory: Path, wanted: int) -> Values:
    """Return what the manifest in `directory` says, step by step from its format to the wanted one."""
    while values["format"] < wanted:
        values = STEPS[values["format"]](values, directory)
    return values


def _from_1(values: Values, directory: Path) -> Values:
    """Format 2 knows size and hash of every file. The search side of format 1 had none, so it is made anew."""
    if "sha256" in values:
        raise ValueError("format 1 with the checksum of a later one")
    skipped = directory / SKIPPED
    known = asdict(FileHash.of(skipped)) if skipped.exists() else None
    return {**values, "format": 2, "search": None, "skipped": known}


def _from_2(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 3 averages several sizes, and the mirror image, and whitens. With that, rows have other fingerprints,
    so that the search side is made anew.
    """
    embedding = present_embedding(values["embedding"])
    return {**values, "format": 3, "search": None, "embedding": embedding, "is_whitened": True}


def _from_3(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 4 knows recipes and local features. All search sides before it were flat, and did not say which rows
    they were made of, so that the next one cannot be made from them.
    """
    side = values["search"]
    if side is not None:
        flat = {"factory": "Flat", "lists": 0, "trained_rows": 0, "effort": 0, "candidates": 1}
        side = {**side, **flat, "recall": 1.0, "milliseconds": None, "made_from": []}
    build = {"recipe": BUILD.recipe, "memory": BUILD.memory, "recall": BUILD.recall}
    return {**values, "format": 4, "search": side, "build": build, "has_local": False, "local": []}


def _from_4(values: Values, directory: Path) -> Values:  # noqa: ARG001
    """Format 5 knows by which metric FAISS compares; before it, all did by inner product."""
    return {**values, "format": 5, "build": {**values["build"], "metric": "cosine"}}


STEPS: dict[int, Callable[[Values, Path], Values]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
