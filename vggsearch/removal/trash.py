"""The system's trash: put a file in it, and find it there again where the system allows."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from configparser import ConfigParser, Error
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from vggsearch.errors import ActionRefused

OTHER_TRASHES = {"darwin": "Look in the Trash, in the Dock.", "win32": "Look in the Recycle Bin."}


@dataclass(frozen=True, slots=True)
class Trashed:
    """A file in the trash, its .trashinfo file (`note`), and when it was put there according to that."""

    file: Path
    note: Path
    when: str


def send(path: Path) -> Trashed | None:
    """Put a file in the trash and return it there, None if this system does not record where that is.

    Only what was added to the trash meanwhile is read. Raises ActionRefused, with the way out, if it fails.
    """
    before = _notes_named_as(path)
    _send(path)
    added = {folder: names - before.get(folder, set()) for folder, names in _notes_named_as(path).items()}
    found = [
        each
        for folder, names in added.items()
        for each in _notes(folder, (folder / "info" / name for name in names)).get(path, [])
    ]
    return max(found, key=lambda each: each.note.stat().st_mtime_ns, default=None)


def _send(path: Path) -> None:
    try:
        from send2trash import send2trash
    except ImportError as error:
        raise ActionRefused(
            "the trash needs the package Send2Trash: pip install Send2Trash, or use move:DIR instead"
        ) from error
    try:
        send2trash(os.fspath(path))
    except OSError as error:
        if not os.path.lexists(path):
            return  # it is in the trash nevertheless
        raise ActionRefused(
            f"{path} could not be put in the trash ({error.strerror or error}): use move:DIR instead"
        ) from error
    if os.path.lexists(path):
        raise ActionRefused(f"{path} was not put in the trash: use move:DIR instead")


def _notes_named_as(path: Path) -> dict[Path, set[str]]:
    """Return the names of the .trashinfo files of each trash folder that may be those of a file."""
    found = {}
    for folder in _folders(path):
        with suppress(OSError):
            names = os.listdir(folder / "info")  # noqa: PTH208 - many thousands
            found[folder] = {name for name in names if name.startswith(path.stem)}
    return found


class Trash:
    """The contents of the trash, read once: there may be many thousands of files."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[Path, list[Trashed]]] = {}

    def find(self, path: Path) -> list[Trashed]:
        """Return the files put in the trash from `path`, newest first; none if this system does not record that."""
        found = []
        for folder in _folders(path):
            if folder not in self._known:
                self._known[folder] = _notes(folder, (folder / "info").glob("*.trashinfo"))
            found += self._known[folder].get(path, [])
        return sorted(found, key=lambda each: each.when, reverse=True)


def _notes(folder: Path, notes: Iterable[Path]) -> dict[Path, list[Trashed]]:
    found: defaultdict[Path, list[Trashed]] = defaultdict(list)
    for note in notes:
        was, when = _read(note)
        if was is not None:
            found[_base(folder) / was].append(Trashed(folder / "files" / note.stem, note, when))
    return dict(found)


def where_to_look() -> str:
    """Tell the user where the trash is."""
    return OTHER_TRASHES.get(sys.platform, "Look in the trash of your desktop.")


def _folders(path: Path) -> Iterator[Path]:
    """Yield the freedesktop.org trash folders that may contain a file: the user's own and those of its volume.

    Send2Trash, or GIO if installed, chooses one of them. Send2Trash has read the user's own from the environment.
    """
    if sys.platform in OTHER_TRASHES:
        return
    try:
        from send2trash import plat_other
    except ImportError:
        return
    yield Path(plat_other.HOMETRASH)
    for folder in path.parents:
        yield folder / ".Trash" / str(os.getuid())
        yield folder / f".Trash-{os.getuid()}"


def _base(folder: Path) -> Path:
    """Return the folder that relative paths in a trash folder's .trashinfo files start from."""
    return folder.parents[1] if folder.parent.name == ".Trash" else folder.parent


def _read(note: Path) -> tuple[str | None, str]:
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(note.read_text(encoding="utf-8", errors="surrogateescape"))
        info = parser["Trash Info"]
        return unquote(info["Path"], errors="surrogateescape"), info.get("DeletionDate", "")
    except (OSError, Error, KeyError):
        return None, ""
