"""Paths as users give them: with `~`, and relative to a current folder that may change later."""

import os
import sys
from pathlib import Path

from vggsearch.errors import OptionError


def from_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading `~/` replaced by the home folder. `~name` stays: photos have such names.

    Raises OptionError for what is no path.

    >>> from_home("~/photos") == Path.home() / "photos", str(from_home("~a.jpg"))
    (True, '~a.jpg')
    """
    try:
        given = Path(path)
    except TypeError:
        raise OptionError(f"A path is a text or a pathlib.Path, not {type(path).__name__}.") from None
    if "\0" in str(given):
        raise OptionError(f"{str(path)!r} contains a null character, which no path does.")
    return given.expanduser() if given.parts[:1] == ("~",) else given


class Place:
    """A place on disk that stays the same when the current folder changes.

    `path` is the path as it was given, which is short in messages, for as long as it leads there; then an absolute
    one.
    """

    def __init__(self, given: str | os.PathLike[str]) -> None:
        self._given = from_home(given)
        self._given_in = current_folder()
        self._absolute = self._given.absolute()

    @property
    def path(self) -> Path:
        """The path that leads there now."""
        return self._given if self._given.is_absolute() or self._given_in == current_folder() else self._absolute


def current_folder() -> str | None:
    """Return the current folder, None if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def cache_folder() -> Path | None:
    """Return the folder for what can be computed again, None if the user has no home folder."""
    inside = {"darwin": "Library/Caches", "win32": "AppData/Local"}.get(sys.platform, ".cache")
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / inside / "vggsearch" if home.is_absolute() and home != home.parent else None
