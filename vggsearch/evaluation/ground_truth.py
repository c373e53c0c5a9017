"""Read which photos belong together: a text file of paths and labels."""

from collections import Counter
from pathlib import Path, PurePosixPath

from vggsearch.errors import TruthError

HEADER = "path\tlabel"


def read_truth(file: Path) -> dict[str, str]:
    """Return the label of each path, in the file's order; photos of one label are relevant to each other.

    The file is UTF-8. Its first line is `path<TAB>label`, and so is each that follows; paths are POSIX and
    relative to the photo folder. Empty lines are passed over. Raises TruthError where it is anything else.
    """
    header, *lines = _read(file).split("\n")  # no splitlines: a path may hold what that takes for the end of a line
    if header.rstrip("\r") != HEADER:
        raise TruthError(f"{file}, line 1: not the header `path<TAB>label` but {header[:60]!r}. Put it first.")
    labels: dict[str, str] = {}
    seen_at: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        line = line.rstrip("\r")
        if not line:
            continue
        path, label = _fields(line, f"{file}, line {number}")
        if labels.setdefault(path, label) != label:
            raise TruthError(
                f"{file}, line {number}: {path} is labelled {label}, but {labels[path]} in line {seen_at[path]}. "
                f"Leave one of the two lines."
            )
        seen_at.setdefault(path, number)
    if max(Counter(labels.values()).values(), default=0) < 2:
        raise TruthError(
            f"{file} has {len(labels):,} photos and no label that two of them share, so that there is nothing to "
            f"find. Give photos that belong together the same label."
        )
    return labels


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # spreadsheets write the mark
    except OSError as error:
        raise TruthError(f"{file} cannot be read: {error.strerror}. Name a file of paths and labels.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TruthError(f"{file}, line {line}: not UTF-8. Save the file as UTF-8.") from error


def _fields(line: str, place: str) -> tuple[str, str]:
    """Return path and label of a line; `place` names it in errors."""
    fields = line.split("\t")
    if len(fields) != 2 or not all(fields):
        raise TruthError(f"{place}: not a path, a tab and a label but {line[:60]!r}. Part the two by one tab.")
    path = PurePosixPath(fields[0])
    if path.is_absolute() or ".." in path.parts:
        raise TruthError(f"{place}: {path} does not start at the photo folder. Write paths relative to it.")
    return str(path), fields[1]
