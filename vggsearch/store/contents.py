"""The files of an index: those only the user can provide, and those derived from the photos."""

from pathlib import Path

MANIFEST = "manifest.json"
EMBEDDINGS = "embeddings"  # a folder
SEARCH_FOLDER = "search"  # a folder: the vector index
LOCAL = "local"  # a folder: local features
SKIPPED = "skipped.parquet"
SKIPPED_NEXT = "skipped.next.parquet"  # becomes skipped.parquet once the manifest lists it
STAMPS = "stamps.parquet"
KEYPOINT_MATCHES = "checks.parquet"
KEYPOINT_CODES = "keypoints.parquet"
ORIGINALS = "originals.parquet"
EDGES = "edges.parquet"
HASH_EDGES = "hashes.parquet"
COMPARED = "compared.parquet"  # the rows of both
KEYPOINT_VOTES = "votes.parquet"
CALIBRATION = "calibration.json"
DECISIONS = "decisions.jsonl"
DAMAGED_DECISIONS = "decisions.damaged.jsonl"  # lines of decisions.jsonl that a repair could not parse
JOURNALS = "journals"  # a folder: one file for each removal, which undo reads
VECTOR_INDEX_FILES = ("index.faiss", "vectors.npy", "live.npy", "slots.npy", "whitening.npy")  # as in knn.files
SEGMENT_FILES = r"index-[0-9]+\.faiss|vectors-[0-9]+\.npy"  # a pattern: of what updates added
LOCAL_FEATURE_FILES = ("keys.npy", "cells.npy", "regions.npy")
LOCK = "writer.lock"
LOCK_HOLDER = "writer.txt"
TEMPORARY = ".tmp"  # suffix of a file that is being written, or that a killed process left behind

PAIRS = (EDGES, HASH_EDGES, KEYPOINT_VOTES)
"""Pairs of rows, all of one kind of file."""

CACHES = (STAMPS, KEYPOINT_MATCHES, KEYPOINT_CODES, ORIGINALS, CALIBRATION, COMPARED, *PAIRS)
"""These save time, are rewritten as a whole, and are not listed by the manifest."""

USER_FILES = (DECISIONS, DAMAGED_DECISIONS, JOURNALS)
"""Only the user can provide these. No repair, update or build deletes them."""

DERIVED_FILES = (
    MANIFEST,
    EMBEDDINGS,
    SEARCH_FOLDER,
    LOCAL,
    SKIPPED,
    SKIPPED_NEXT,
    *CACHES,
)
"""Indexing the photos again with the same options restores these. They may be deleted, all at once."""


def derived_files(directory: Path) -> list[Path]:
    """Return the files and non-empty folders in `directory` that indexing the photos again restores."""
    paths = (directory / name for name in DERIVED_FILES)
    return [path for path in paths if (any(path.iterdir()) if path.is_dir() else path.exists())]


def user_files(directory: Path) -> list[Path]:
    """Return the files and folders in `directory` that only the user can provide."""
    return [directory / name for name in USER_FILES if (directory / name).exists()]


def has_parts(directory: Path) -> bool:
    """Return whether there are files of embeddings, intact or not."""
    return any((directory / EMBEDDINGS).glob("part-*"))


def foreign_files(directory: Path) -> list[Path]:
    """Return what is in `directory` but not part of an index, sorted by name."""
    known = {*USER_FILES, *DERIVED_FILES, LOCK, LOCK_HOLDER}
    return [path for path in sorted(directory.iterdir()) if path.name not in known and not _is_temporary(path)]


def _is_temporary(path: Path) -> bool:
    """Return whether a killed writer left this file behind: `decisions.jsonl.1234.tmp`."""
    return path.suffix == TEMPORARY and path.name.startswith((*USER_FILES, *DERIVED_FILES))
