"""The system's trash: put a file there, and find it there again where the system says how."""

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

WHERE_ELSE = {"darwin": "Look in the Trash, in the Dock.", "win32": "Look in the Recycle Bin."}


@dataclass(frozen=True, slots=True)
class Trashed:
    """A file in the trash, the note that says where it was, and when it was put there, as the note has it."""

    file: Path
    note: Path
    when: str


def send(path: Path) -> None:
    """Put a file into the trash. Raises ActionRefused, with the way out, where that cannot be."""
    try:
        from send2trash import send2trash
    except ImportError as error:
        raise ActionRefused(
            "the trash needs the package Send2Trash: pip install Send2Trash, or choose --action move:DIR"
        ) from error
    try:
        send2trash(os.fspath(path))
    except OSError as error:
        if not os.path.lexists(path):
            return  # it went all the same
        raise ActionRefused(
            f"{path} could not be put into the trash ({error.strerror or error}): choose --action move:DIR"
        ) from error
    if os.path.lexists(path):
        raise ActionRefused(f"{path} was not put into the trash: choose --action move:DIR")


def landed(path: Path) -> Trashed | None:
    """Return what was just put there and was `path`; None where this system does not say."""
    found = []
    for folder in _folders(path):
        notes = folder / "info"
        with suppress(OSError):
            names = [name for name in os.listdir(notes) if name.startswith(path.stem)]  # noqa: PTH208 - many thousands
            found += _notes(folder, [notes / name for name in names]).get(path, [])
    return max(found, key=lambda each: each.note.stat().st_mtime_ns, default=None)


class Trash:
    """All that is in the trash, read once; there may be many thousands of notes."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[Path, list[Trashed]]] = {}

    def find(self, path: Path) -> list[Trashed]:
        """Return all that was `path`, newest first; none where this system does not say."""
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
    """Say where a person finds what is in the trash."""
    return WHERE_ELSE.get(sys.platform, "Look in the trash of your desktop.")


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders of the freedesktop.org trash that may hold a file: the user's own, and those of its volume.

    Send2Trash, or GIO where it is there, chooses one of them. Which one is the user's own, it read from the
    environment.
    """
    if sys.platform in WHERE_ELSE:
        return
    from send2trash import plat_other

    yield Path(plat_other.HOMETRASH)
    for folder in path.parents:
        yield folder / ".Trash" / str(os.getuid())
        yield folder / f".Trash-{os.getuid()}"


def _base(folder: Path) -> Path:
    """Return what the paths in a trash folder's notes are relative to, where they are."""
    return folder.parents[1] if folder.parent.name == ".Trash" else folder.parent


def _read(note: Path) -> tuple[str | None, str]:
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(note.read_text(encoding="utf-8", errors="surrogateescape"))
        info = parser["Trash Info"]
        return unquote(info["Path"], errors="surrogateescape"), info.get("DeletionDate", "")
    except (OSError, Error, KeyError):
        return None, ""
