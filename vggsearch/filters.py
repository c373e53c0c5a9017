"""Which photos may be found: filters on path, folder, date taken, size and orientation, parsed from text."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from vggsearch.errors import OptionError

WAY_OUT = (
    "Write a path glob ('2019/**', '*.png'), folder:trips/rome, taken:2019-05..2020, size:1000.. "
    "or orientation:portrait."
)


@dataclass(frozen=True)
class Filter:
    """A rule that photos keep or not: `text` as it was written.

    `keeps` says whether a photo does; it takes the values of `columns`, which are columns of the store, in order.
    """

    text: str
    columns: tuple[str, ...]
    keeps: Callable[..., bool]


def parse_filter(text: str) -> Filter:
    """Return the filter that a text asks for. Raises OptionError, with what can be written, where it asks for none.

    `path:GLOB`, or a glob alone, is on the path below the photo folder: `*`, `?` and `[...]` stay within a folder,
    `**` goes through any number of them. A glob without a slash is on the name, in whichever folder. `folder:PATH`
    is that folder and all below. Neither minds case. `taken:A..B` takes years, months or days, both included, and
    passes over photos without a date; `size:A..B` is on the longer side, in pixels; each end may be left open, and
    one value alone is a range of itself. `orientation:` is portrait, landscape or square.
    """
    kind, colon, value = text.partition(":")
    if not colon or kind not in KINDS:
        if colon and re.fullmatch(r"\w+", kind):
            raise OptionError(
                f"There is no filter {kind}:, in {text!r}. {WAY_OUT} Of a path with a colon: path:..."
            )
        kind, value = "path", text
    if not value.strip():
        raise OptionError(f"The filter {text!r} says nothing. {WAY_OUT}")
    columns, parse = KINDS[kind]
    try:
        return Filter(text, columns, parse(value))
    except ValueError as error:
        raise OptionError(f"The filter {text!r} cannot be read: {error}. {WAY_OUT}") from error


def _path(value: str) -> Callable[[str], bool]:
    glob = _folded(value).removeprefix("./")
    if glob.endswith("/"):
        glob += "**"
    found = re.compile(_expression(glob if "/" in glob else f"**/{glob}"), re.DOTALL)
    return lambda path: found.fullmatch(_folded(path)) is not None


def _folder(value: str) -> Callable[[str], bool]:
    folder = _folded(value).removeprefix("./").strip("/")
    inside = "" if folder in ("", ".") else f"{folder}/"
    return lambda path: _folded(path).startswith(inside)


def _taken(value: str) -> Callable[[datetime | None], bool]:
    first, last = _range(value)
    since = _period(first)[0] if first else datetime.min
    until = _period(last)[1] if last else datetime.max
    if since >= until:
        raise ValueError(f"{first} is after {last}")
    return lambda taken: taken is not None and since <= taken < until


def _size(value: str) -> Callable[[int, int], bool]:
    first, last = _range(value)
    for number in filter(None, (first, last)):
        if not (number.isascii() and number.isdecimal()):
            raise ValueError(f"{number!r} is no whole number of pixels")
    least, most = int(first or 0), int(last) if last else None
    if most is not None and least > most:
        raise ValueError(f"{least} is more than {most}")
    return lambda width, height: least <= max(width, height) and (most is None or max(width, height) <= most)


def _orientation(value: str) -> Callable[[int, int], bool]:
    shapes: dict[str, Callable[[int, int], bool]] = {
        "portrait": lambda width, height: width < height,
        "landscape": lambda width, height: width > height,
        "square": lambda width, height: width == height,
    }
    if value not in shapes:
        raise ValueError(f"{value!r} is not portrait, landscape or square")
    return shapes[value]


KINDS: dict[str, tuple[tuple[str, ...], Callable[[str], Callable[..., bool]]]] = {
    "path": (("path",), _path),
    "folder": (("path",), _folder),
    "taken": (("taken",), _taken),
    "size": (("width", "height"), _size),
    "orientation": (("width", "height"), _orientation),
}


def _folded(path: str) -> str:
    """Return a path as filters compare it: macOS takes names apart into letters and accents, cameras write .JPG."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _expression(glob: str) -> str:
    """Return the regular expression of a glob."""
    tokens = re.findall(r"\*\*/|/\*\*\Z|\*\*|\*|\?|\[!?\]?[^]]*\]|.", glob, re.DOTALL)
    return "".join(_TOKENS[token] if token in _TOKENS else _of_token(token) for token in tokens)


_TOKENS = {"**/": r"(?:.*/)?", "/**": r"/.*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


def _of_token(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    is_without, letters = token[1] == "!", token[1:-1].removeprefix("!")
    shown = re.sub(r"([\\\[\]^&~|])", r"\\\1", letters)
    try:
        re.compile(f"[{shown}]")
    except re.error as error:
        raise ValueError(f"{token} is no set of letters ({error})") from error
    return f"(?!/)[{'^' if is_without else ''}{shown}]"


def _range(value: str) -> tuple[str, str]:
    """Return both ends of A..B, "" for one left open; of A alone, A twice."""
    first, dots, last = (part.strip() for part in value.partition(".."))
    if not dots:
        return first, first
    if not (first or last):
        raise ValueError("it has neither a first nor a last")
    return first, last


def _period(text: str) -> tuple[datetime, datetime]:
    """Return when a year, a month or a day begins, and when the next one does."""
    found = re.fullmatch(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is no date as 2019, 2019-05 or 2019-05-31")
    year, month, day = (int(part) if part else None for part in found.groups())
    try:
        begin = datetime(year or 0, month or 1, day or 1)
    except ValueError as error:
        raise ValueError(f"there is no {text} ({error})") from error
    try:
        if day is not None:
            return begin, begin + timedelta(days=1)
        years, months = divmod(begin.month, 12) if month else (1, 0)
        return begin, datetime(begin.year + years, months + 1, 1)
    except (OverflowError, ValueError):  # the calendar ends with the year 9999
        return begin, datetime.max
