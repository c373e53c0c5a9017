"""Where an index is when nobody says so: indexes/NAME OF THE PHOTO FOLDER, under the current directory."""

from pathlib import Path

from vggsearch.errors import IndexMissing
from vggsearch.store.contents import MANIFEST

INDEXES = Path("indexes")


def directory_for(photos: Path) -> Path:
    """Return where the index of a photo folder goes by default."""
    return INDEXES / (photos.resolve().name or "root")


def index_of(photos: Path) -> Path:
    """Return where the index of a photo folder is by default. Raises IndexMissing where there is none yet."""
    directory = directory_for(photos)
    if not (directory / MANIFEST).exists():
        raise IndexMissing(f"{photos} has no index yet, {directory} is none. Make it: vggsearch index {photos}")
    return directory


def only_index() -> Path:
    """Return the one index under indexes/. Raises IndexMissing where there is none, or more than one."""
    found = sorted(path.parent for path in INDEXES.glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise IndexMissing(f"There is no index under {INDEXES}/ here. Make one: vggsearch index PHOTOS")
    names = ", ".join(str(path) for path in found)
    raise IndexMissing(f"There are {len(found)} indexes here: {names}. Say which with --index, or VGGSEARCH_INDEX.")
