"""Values that clients send as text: parse them, or say what is wrong with them."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from vggsearch.defaults import SERVE
from vggsearch.photos.inputs import Box
from vggsearch.serve.answers import bad_request

Value = TypeVar("Value")
Texts = Mapping[str, str]

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _parsed(values: Texts, name: str, default: Value, parse: Callable[[str], Value], what: str) -> Value:
    text = values.get(name, "").strip()
    if not text:
        return default
    try:
        return parse(text)
    except ValueError:
        raise bad_request(f"{name}={text!r} is not {what}.") from None


def whole(values: Texts, name: str, default: int, least: int = 0, most: int = 2**31) -> int:
    """Return a whole number from `least` to `most`. Raises Problem."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text[:12]) <= most:
            raise ValueError
        return int(text)

    return _parsed(values, name, default, parse, f"a whole number from {least:,} to {most:,}")


def number(values: Texts, name: str, default: Value) -> float | Value:
    """Return a number. Raises Problem; its range is checked where it is used."""

    def parse(text: str) -> float:
        found = float(text)
        if not math.isfinite(found):
            raise ValueError
        return found

    return _parsed(values, name, default, parse, "a number")  # type: ignore[arg-type]


def flag(values: Texts, name: str, *, default: bool) -> bool:
    """Return a yes or a no. Raises Problem."""

    def parse(text: str) -> bool:
        if text.lower() not in (*YES, *NO):
            raise ValueError
        return text.lower() in YES

    return _parsed(values, name, default, parse, "true or false")


def paging(values: Texts, count: int) -> tuple[int, int]:
    """Return offset and count of what is listed. Raises Problem."""
    return whole(values, "offset", 0), whole(values, "count", count, 1, SERVE.most_listed)


def region(values: Texts) -> tuple[float, float, float, float] | None:
    """Return `crop`: left, top, width and height, in fractions of the picture. Raises Problem."""

    def parse(text: str) -> tuple[float, float, float, float]:
        left, top, width, height = map(float, text.split(","))
        if not (0 <= left < 1 and 0 <= top < 1 and 0 < width <= 1 and 0 < height <= 1):
            raise ValueError
        return left, top, min(width, 1 - left), min(height, 1 - top)

    return _parsed(values, "crop", None, parse, "x,y,width,height with numbers from 0 to 1")


def in_pixels(crop: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """Return a region in pixels of a picture of a size, one pixel at least."""
    (left, top, width, height), (across, down) = crop, size
    x, y = min(round(left * across), across - 1), min(round(top * down), down - 1)
    return x, y, max(1, min(round(width * across), across - x)), max(1, min(round(height * down), down - y))


def filter_texts(values: Texts, given: list[str]) -> tuple[str, ...]:
    """Return all filters of a request. Raises Problem."""
    return (*own_filters(given), *named_filters(values).values())


def own_filters(given: list[str]) -> list[str]:
    """Return the filters of a request that are spelled as on the command line. Raises Problem."""
    return [_bounded(text) for text in given if text.strip()]


def named_filters(values: Texts) -> dict[str, str]:
    """Return the filters that a request names, as on the command line, by their kind. Raises Problem."""
    since, until = values.get("since", "").strip(), values.get("until", "").strip()
    least = whole(values, "min_side", 0)
    named = {
        "folder": values.get("folder", "").strip(),
        "taken": f"{since}..{until}" if since or until else "",
        "size": f"{least}.." if least else "",
        "orientation": values.get("orientation", "").strip(),
    }
    return {kind: _bounded(f"{kind}:{value}") for kind, value in named.items() if value}


def _bounded(text: str) -> str:
    if len(text) > SERVE.filter_characters or text.count("*") > SERVE.filter_wildcards:
        raise bad_request(
            f"A filter has at most {SERVE.filter_characters} characters and {SERVE.filter_wildcards} stars."
        )
    return text
