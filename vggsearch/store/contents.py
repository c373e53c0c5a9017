"""The files of an index, in one list: the user's own, which nothing can rebuild, and those made from the photos."""

from pathlib import Path

MANIFEST = "manifest.json"
EMBEDDINGS = "embeddings"  # a folder
SEARCH = "search"  # a folder: the vector index, and the edges found in it
LOCAL = "local"  # a folder: local features
SKIPPED = "skipped.parquet"
SKIPPED_NEXT = "skipped.next.parquet"  # becomes skipped.parquet once the manifest lists it
KEYPOINT_MATCHES = "checks.parquet"
CALIBRATION = "calibration.json"
DECISIONS = "decisions.jsonl"
DAMAGED_DECISIONS = "decisions.damaged.jsonl"  # lines of decisions.jsonl that a repair could not read
JOURNALS = "journals"  # a folder: one file for each removal, which undo reads
LOCK = "writer.lock"
LOCK_HOLDER = "writer.txt"
TEMPORARY = ".tmp"  # the end of a name: a file that is being written, or that a killed process left

USER_FILES = (DECISIONS, DAMAGED_DECISIONS, JOURNALS)
"""What only the user can give. No repair, update or build deletes it."""

DERIVED_FILES = (MANIFEST, EMBEDDINGS, SEARCH, LOCAL, SKIPPED, SKIPPED_NEXT, KEYPOINT_MATCHES, CALIBRATION)
"""What indexing the photos again restores, given the same options: it may be deleted, all of it at once."""


def derived_files(directory: Path) -> list[Path]:
    """Return the files and folders in `directory` that indexing again restores, empty folders left out."""
    paths = (directory / name for name in DERIVED_FILES)
    return [path for path in paths if (any(path.iterdir()) if path.is_dir() else path.exists())]


def user_files(directory: Path) -> list[Path]:
    """Return the files and folders in `directory` that only the user can give."""
    return [directory / name for name in USER_FILES if (directory / name).exists()]


def has_parts(directory: Path) -> bool:
    """Say whether there are files of embeddings, whole or not."""
    return any((directory / EMBEDDINGS).glob("part-*"))


def foreign_files(directory: Path) -> list[Path]:
    """Return what is in `directory` and belongs to no index, by name."""
    known = {*USER_FILES, *DERIVED_FILES, LOCK, LOCK_HOLDER}
    return [path for path in sorted(directory.iterdir()) if path.name not in known and not _is_temporary(path)]


def _is_temporary(path: Path) -> bool:
    """Say whether a file is what a killed writer left: `decisions.jsonl.1234.tmp`."""
    return path.suffix == TEMPORARY and path.name.startswith((*USER_FILES, *DERIVED_FILES))
