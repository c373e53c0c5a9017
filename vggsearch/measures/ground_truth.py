"""Read the ground truth: a text file of paths and labels."""

from collections import Counter
from pathlib import Path, PurePosixPath

from vggsearch.errors import ImageError, TruthError
from vggsearch.photos.opening import open_regular

HEADER = "path\tlabel"


def read_truth(file: Path) -> dict[str, str]:
    """Return the label of each path, in the order of the file; photos with one label are relevant to each other.

    The file is UTF-8. Its first line is the header `path<TAB>label`; each further line is a path, a tab and a
    label. Paths are POSIX and relative to the photo folder. Empty lines are ignored. Raises TruthError for any
    other format.
    """
    header, *lines = _read(file).split(
        "\n"
    )  # not splitlines, which also splits at characters that a path may contain
    if header.rstrip("\r") != HEADER:
        raise TruthError(
            f"{file}, line 1: expected the header `path<TAB>label`, found {header[:60]!r}. Add the header."
        )
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
                f"Delete one of the two lines."
            )
        seen_at.setdefault(path, number)
    if max(Counter(labels.values()).values(), default=0) < 2:
        raise TruthError(
            f"{file} lists {len(labels):,} photos, but no two with the same label, so there is nothing to find. "
            f"Give photos that belong together the same label."
        )
    return labels


def _read(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            return opened.read().decode("utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, ImageError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise TruthError(f"{file} cannot be read: {reason}. Choose a file of paths and labels.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TruthError(f"{file}, line {line}: not UTF-8. Save the file as UTF-8.") from error


def _fields(line: str, place: str) -> tuple[str, str]:
    """Return path and label of a line; `place` names it in errors."""
    fields = line.split("\t")
    if len(fields) != 2 or not all(fields):
        raise TruthError(f"{place}: expected a path, one tab and a label, found {line[:60]!r}. Correct the line.")
    path = PurePosixPath(fields[0])
    if path.is_absolute() or ".." in path.parts:
        raise TruthError(f"{place}: {path} is not relative to the photo folder. Write all paths relative to it.")
    return str(path), fields[1]
