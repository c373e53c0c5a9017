"""The default location of an index: indexes/NAME OF THE PHOTO FOLDER, in the current directory."""

from pathlib import Path

from vggsearch.errors import IndexMissing, Spelled, shell_word
from vggsearch.photos.addresses import TAR, is_address
from vggsearch.photos.walk import printable
from vggsearch.store.contents import MANIFEST

INDEXES = Path("indexes")


def directory_for(photos: Path) -> Path:
    """Return the default place of the index of a photo folder; bytes in its name that are not UTF-8 are escaped."""
    name = photos.name.partition("?")[0].removeprefix(TAR) if is_address(photos) else photos.resolve().name
    return INDEXES / (printable(name) or "root")


def index_of(photos: Path) -> Path:
    """Return the default location of an existing index of a photo folder. Raises IndexMissing if none exists."""
    directory = directory_for(photos)
    if not (directory / MANIFEST).exists():
        create = Spelled(f"ImageIndex.for_photos({str(photos)!r})", f"vggsearch index {shell_word(photos)}")
        raise IndexMissing(f"{photos} has no index yet ({directory}). Create it: ", create)
    return directory


def only_index() -> Path:
    """Return the only index under indexes/. Raises IndexMissing if none exists, or more than one."""
    found = sorted(path.parent for path in INDEXES.glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    if not found:
        create = Spelled("ImageIndex.for_photos(PHOTOS)", "vggsearch index PHOTOS")
        raise IndexMissing(f"There is no index in {INDEXES}/. Create one: ", create)
    names = ", ".join(str(path) for path in found)
    choose = Spelled("Pass the directory of one.", "Choose one with --index or VGGSEARCH_INDEX.")
    raise IndexMissing(f"Found {len(found)} indexes: {names}. ", choose)
