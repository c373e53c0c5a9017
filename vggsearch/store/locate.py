"""The default location of an index: indexes/NAME OF THE PHOTO FOLDER, in the current directory."""

from pathlib import Path

from vggsearch.errors import IndexMissing
from vggsearch.store.contents import MANIFEST

INDEXES = Path("indexes")


def directory_for(photos: Path) -> Path:
    """Return the default location of the index of a photo folder."""
    return INDEXES / (photos.resolve().name or "root")


def index_of(photos: Path) -> Path:
    """Return the default location of an existing index of a photo folder. Raises IndexMissing if there is none."""
    directory = directory_for(photos)
    if not (directory / MANIFEST).exists():
        raise IndexMissing(f"{photos} has no index yet ({directory}). Create it: vggsearch index {photos}")
    return directory


def only_index() -> Path:
    """Return the only index under indexes/. Raises IndexMissing if there is none, or more than one."""
    found = sorted(path.parent for path in INDEXES.glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise IndexMissing(f"There is no index in {INDEXES}/. Create one: vggsearch index PHOTOS")
    names = ", ".join(str(path) for path in found)
    raise IndexMissing(f"Found {len(found)} indexes: {names}. Choose one with --index or VGGSEARCH_INDEX.")
