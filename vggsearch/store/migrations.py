"""Older formats of the manifest, each brought to the next one; nothing is written until the next commit."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vggsearch.store.files import FileHash
from vggsearch.store.parts import SKIPPED, present_embedding

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


STEPS: dict[int, Callable[[Values, Path], Values]] = {1: _from_1, 2: _from_2}
