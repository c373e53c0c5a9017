"""Files that a user names for output: a misspelt name costs no other file, and errors name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vggsearch.errors import OptionError


def check_replaceable(path: Path, start: str) -> None:
    """Raise OptionError if a file exists that does not begin with `start`, as what is to replace it does.

    The same for a folder, a device and a pipe, from which reading might never return.
    """
    if path.exists() and not path.is_file():
        raise OptionError(f"{path} is not a file. Choose another file name.")
    try:
        with path.open("rb") as file:
            found = file.read(len(start.encode()))
    except FileNotFoundError:
        return
    if found != start.encode():
        raise OptionError(f"{path} exists and was not written by vggsearch. Choose another file name.")


def check_empty(folder: Path) -> None:
    """Raise OptionError unless a folder is empty or does not exist."""
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise OptionError(f"{folder} exists and is not an empty folder. Choose another one.")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError that names none, as those of writing to an open file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
