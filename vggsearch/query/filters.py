"""Filters on path, folder, date taken, size and orientation: parse them, and select the photos that pass."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError

FILTER_EXAMPLES = (
    "Write a path glob ('2019/**', '*.png'), folder:trips/rome, taken:2019-05..2020, size:1000.. "
    "or orientation:portrait."
)
GLOB_TOKEN = re.compile(r"(?:\*\*/)+|/\*\*\Z|\*\*|\*|\?|\[!?\]?[^]]*\]|.", re.DOTALL)
BETWEEN = "\0"  # the one character that no path contains


class FoldedPaths:
    """The paths of an index, case-folded and in NFC: cameras write .JPG, and macOS decomposes accented letters.

    They form one text, separated by a character that no path contains, so that one search covers all of them.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._text = _folded(f"{BETWEEN}{BETWEEN.join(paths)}{BETWEEN}" if paths else "")
        encoding, width = ("ascii", np.uint8) if self._text.isascii() else ("utf-32-le", np.uint32)
        self._starts = np.flatnonzero(np.frombuffer(self._text.encode(encoding), width) == 0)

    def matching(self, expression: str) -> NDArray[np.bool_]:
        """Return which paths a regular expression matches in full, bool (rows,). It must not match BETWEEN."""
        found = re.finditer(f"{BETWEEN}(?:{expression})(?={BETWEEN})", self._text)
        starts = np.fromiter((match.start() for match in found), np.int64)
        mask = np.zeros(max(0, len(self._starts) - 1), bool)
        mask[np.searchsorted(self._starts, starts)] = True
        return mask


class PhotoFacts(Protocol):
    """The facts about photos that filters use, by row of an index."""

    @property
    def folded_paths(self) -> FoldedPaths:
        """The paths of the photos."""

    def column(self, name: str) -> NDArray[Any]:
        """One column of the store: width and height in pixels; taken as datetime64, NaT if unknown."""


Keeps = Callable[[PhotoFacts], NDArray[np.bool_]]


@dataclass(frozen=True)
class Filter:
    """A filter: its `text`, and `keeps`, what it means: it returns the rows that pass, bool (rows,)."""

    text: str
    keeps: Keeps = field(compare=False)


def parse_filter(text: object) -> Filter:
    """Parse a filter. Raises OptionError, with examples, if the text is not a filter.

    `path:GLOB`, or a glob alone, applies to the path below the photo folder: `*`, `?` and `[...]` match within one
    folder, `**` across any number of them. A glob without a slash applies to the file name, in any folder.
    `folder:PATH` selects that folder and everything below it. Case is ignored in both. `taken:A..B` takes years,
    months or days, both ends included, and excludes photos without a date. `size:A..B` applies to the longer side,
    in pixels. Either end may be omitted, and a single value stands for both. `orientation:` is portrait, landscape
    or square.
    """
    if not isinstance(text, str):
        raise OptionError(f"A filter is a text, not {text!r}. {FILTER_EXAMPLES}")
    kind, colon, value = text.partition(":")
    if not colon or kind not in FILTER_KINDS:
        if colon and re.fullmatch(r"\w+", kind):
            raise OptionError(
                f"Unknown filter {kind}: in {text!r}. {FILTER_EXAMPLES} For a path with a colon, write path:..."
            )
        kind, value = "path", text
    if not value.strip():
        raise OptionError(f"The filter {text!r} is empty. {FILTER_EXAMPLES}")
    try:
        return Filter(text, FILTER_KINDS[kind](value))
    except ValueError as error:
        raise OptionError(f"The filter {text!r} is invalid: {error}. {FILTER_EXAMPLES}") from error


def _path(value: str) -> Keeps:
    glob = _plain(value)
    if glob.endswith("/"):
        glob += "**"
    expression = _expression(glob) if "/" in glob else ALL_FOLDERS + _expression(glob)
    return lambda facts: facts.folded_paths.matching(expression)


def _folder(value: str) -> Keeps:
    folder = _plain(value).strip("/")
    inside = "" if folder in ("", ".") else f"{re.escape(folder)}/"
    return lambda facts: facts.folded_paths.matching(inside + WILD["**"])


def _taken(value: str) -> Keeps:
    first, last = _range(value)
    since = _period(first)[0] if first else datetime.min
    until = _period(last)[1] if last else datetime.max
    if since >= until:
        raise ValueError(f"{first} is after {last}")
    begin, end = np.datetime64(since, "ms"), np.datetime64(until, "ms")

    def keeps(facts: PhotoFacts) -> NDArray[np.bool_]:
        taken = facts.column("taken")
        within: NDArray[np.bool_] = (begin <= taken) & (taken < end)  # both are false for NaT
        return within

    return keeps


def _size(value: str) -> Keeps:
    first, last = _range(value)
    for number in filter(None, (first, last)):
        if not (number.isascii() and number.isdecimal()):
            raise ValueError(f"{number!r} is not a whole number of pixels")
    least, most = int(first or 0), int(last) if last else None
    if most is not None and least > most:
        raise ValueError(f"{least} is more than {most}")

    def keeps(facts: PhotoFacts) -> NDArray[np.bool_]:
        longer = np.maximum(facts.column("width"), facts.column("height"))
        within: NDArray[np.bool_] = longer >= least
        return within if most is None else within & (longer <= most)

    return keeps


def _orientation(value: str) -> Keeps:
    if value not in SHAPES:
        raise ValueError(f"{value!r} is not one of {', '.join(SHAPES)}")
    has_shape = SHAPES[value]
    return lambda facts: has_shape(facts.column("width"), facts.column("height"))


SHAPES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]] = {
    "portrait": np.less,
    "landscape": np.greater,
    "square": np.equal,
}
FILTER_KINDS: dict[str, Callable[[str], Keeps]] = {
    "path": _path,
    "folder": _folder,
    "taken": _taken,
    "size": _size,
    "orientation": _orientation,
}


def _folded(text: str) -> str:
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def _plain(value: str) -> str:
    """Return a path or glob as it is compared: folded, without a leading ./."""
    return _folded(value.replace(BETWEEN, "")).removeprefix("./")


def _expression(glob: str) -> str:
    """Return the regular expression of a glob. Raises ValueError for an invalid [...] set."""
    return "".join(map(_of_token, GLOB_TOKEN.findall(glob)))


def _of_token(token: str) -> str:
    if token.startswith("**/"):
        return rf"(?:{WILD['**']}/)?"
    if token in WILD:
        return WILD[token]
    if len(token) == 1:
        return re.escape(token)
    is_without, letters = token[1] == "!", token[1:-1].removeprefix("!")
    shown = re.sub(r"([\\\[\]^&~|])", r"\\\1", letters)
    try:
        re.compile(f"[{shown}]")
    except re.error as error:
        raise ValueError(f"{token} is not a valid character set ({error})") from error
    return rf"(?![/\0])[{'^' if is_without else ''}{shown}]"


WILD = {"/**": r"/[^\0]*", "**": r"[^\0]*", "*": r"[^/\0]*", "?": r"[^/\0]"}
ALL_FOLDERS = r"(?>[^\0]*/)?"  # of a path; atomic, since the file name after them contains no slash


def _range(value: str) -> tuple[str, str]:
    """Return both ends of A..B, "" for an omitted one; for A alone, A twice."""
    first, dots, last = (part.strip() for part in value.partition(".."))
    if not dots:
        return first, first
    if not (first or last):
        raise ValueError("it has neither a start nor an end")
    return first, last


def _period(text: str) -> tuple[datetime, datetime]:
    """Return the start of a year, month or day, and of the next one."""
    found = re.fullmatch(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is not a date such as 2019, 2019-05 or 2019-05-31")
    year, month, day = (int(part) if part else None for part in found.groups())
    try:
        begin = datetime(year or 0, month or 1, day or 1)
    except ValueError as error:
        raise ValueError(f"{text} does not exist ({error})") from error
    try:
        if day is not None:
            return begin, begin + timedelta(days=1)
        years, months = divmod(begin.month, 12) if month else (1, 0)
        return begin, datetime(begin.year + years, months + 1, 1)
    except (OverflowError, ValueError):  # the calendar ends with the year 9999
        return begin, datetime.max
