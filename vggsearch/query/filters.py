"""Filters on path, folder, date taken, size and orientation: parse them, and select the photos that pass."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.store.paths import Paths

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

    def __init__(self, paths: Paths) -> None:
        self._text = folded(f"{BETWEEN}{paths.joined_by(BETWEEN)}{BETWEEN}" if paths else "")
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


class Rule(Protocol):
    """What a filter asks of a photo."""

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,)."""


@dataclass(frozen=True)
class Filter:
    """A filter: its `text`, and the `rule` that it states."""

    text: str
    rule: Rule = field(compare=False)

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,)."""
        return self.rule.keeps(facts)


@dataclass(frozen=True)
class Dialect:
    """How regular expressions are written: `wild` by wildcard of a glob, `folders` for any folders before a name.

    `one_of` writes a set of characters but the slash, from the inside of its brackets.
    """

    wild: Mapping[str, str]
    folders: str
    one_of: Callable[[str], str]


# Of all paths in one text, see FoldedPaths; the folders are atomic, since the file name after them has no slash.
PYTHON = Dialect(
    {"/**": r"/[^\0]*", "**": r"[^\0]*", "*": r"[^/\0]*", "?": r"[^/\0]"},
    r"(?>[^\0]*/)?",
    lambda inside: rf"(?![/\0])[{inside}]",
)


@dataclass(frozen=True)
class Glob:
    """The path matches a glob, folded; one without a slash matches file names in any folder."""

    glob: str

    def expression(self, dialect: Dialect) -> str:
        """Return the regular expression that matches the whole path. Raises ValueError for an invalid [...] set."""
        expression = "".join(_of_token(token, dialect) for token in GLOB_TOKEN.findall(self.glob))
        return expression if "/" in self.glob else dialect.folders + expression

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,)."""
        return facts.folded_paths.matching(self.expression(PYTHON))


@dataclass(frozen=True)
class Below:
    """The photo lies in a folder, folded, or below it; "" is the photo folder."""

    folder: str

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,)."""
        inside = f"{re.escape(self.folder)}/" if self.folder else ""
        return facts.folded_paths.matching(inside + PYTHON.wild["**"])


@dataclass(frozen=True)
class Taken:
    """The photo was taken at `since` or later, and before `until`."""

    since: datetime
    until: datetime

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,); those of an unknown date, NaT, do not."""
        taken, begin, end = facts.column("taken"), np.datetime64(self.since, "ms"), np.datetime64(self.until, "ms")
        within: NDArray[np.bool_] = (begin <= taken) & (taken < end)
        return within


@dataclass(frozen=True)
class Longer:
    """The longer side has `least` to `most` pixels, None for any number."""

    least: int
    most: int | None

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,)."""
        longer = np.maximum(facts.column("width"), facts.column("height"))
        within: NDArray[np.bool_] = longer >= self.least
        return within if self.most is None else within & (longer <= self.most)


@dataclass(frozen=True)
class Shaped:
    """The photo has a shape: a key of SHAPES."""

    shape: str

    def keeps(self, facts: PhotoFacts) -> NDArray[np.bool_]:
        """Return which rows pass, bool (rows,)."""
        return SHAPES[self.shape](facts.column("width"), facts.column("height"))


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


def _path(value: str) -> Rule:
    glob = _plain(value)
    rule = Glob(f"{glob}**" if glob.endswith("/") else glob)
    rule.expression(PYTHON)
    return rule


def _folder(value: str) -> Rule:
    folder = _plain(value).strip("/")
    return Below("" if folder == "." else folder)


def _taken(value: str) -> Rule:
    first, last = _range(value)
    since = _period(first)[0] if first else datetime.min
    until = _period(last)[1] if last else datetime.max
    if since >= until:
        raise ValueError(f"{first} is after {last}")
    return Taken(since, until)


def _size(value: str) -> Rule:
    first, last = _range(value)
    for number in filter(None, (first, last)):
        if not (number.isascii() and number.isdecimal()):
            raise ValueError(f"{number!r} is not a whole number of pixels")
    least, most = int(first or 0), int(last) if last else None
    if most is not None and least > most:
        raise ValueError(f"{least} is more than {most}")
    return Longer(least, most)


def _orientation(value: str) -> Rule:
    if value not in SHAPES:
        raise ValueError(f"{value!r} is not one of {', '.join(SHAPES)}")
    return Shaped(value)


SHAPES: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]] = {
    "portrait": np.less,
    "landscape": np.greater,
    "square": np.equal,
}
FILTER_KINDS: dict[str, Callable[[str], Rule]] = {
    "path": _path,
    "folder": _folder,
    "taken": _taken,
    "size": _size,
    "orientation": _orientation,
}


def folded(text: str) -> str:
    """Return a text as filters compare it: case-folded and in NFC."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def _plain(value: str) -> str:
    """Return a path or glob as it is compared: folded, without a leading ./."""
    return folded(value.replace(BETWEEN, "")).removeprefix("./")


def _of_token(token: str, dialect: Dialect) -> str:
    if token.startswith("**/"):
        return rf"(?:{dialect.wild['**']}/)?"
    if token in dialect.wild:
        return dialect.wild[token]
    if len(token) == 1:
        return re.escape(token)
    is_without, letters = token[1] == "!", token[1:-1].removeprefix("!")
    shown = re.sub(r"([\\\[\]^&~|])", r"\\\1", letters)
    try:
        re.compile(f"[{shown}]")
    except re.error as error:
        raise ValueError(f"{token} is not a valid character set ({error})") from error
    return dialect.one_of(f"{'^' if is_without else ''}{shown}")


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
