"""Which photo of a group to keep: an ordered list of keep rules, and the reason in words."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase, translate
from typing import Any

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import Photo
from vggsearch.errors import ImageError, OptionError, option

log = logging.getLogger(__name__)

LOSSLESS = 101  # above the quality of any JPEG
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF", "JPEG2000")
FIRST_PHOTO = 1826  # the year; a camera without a clock, or a scanner, writes the year 1
UNKNOWN_QUALITY = 90  # assumed for a lossy file that does not record it


@dataclass(frozen=True, slots=True)
class RatedPhoto:
    """A photo and the quality of its file: 1 to 100 as in JPEG, or LOSSLESS."""

    photo: Photo
    quality: int


@dataclass(frozen=True, slots=True)
class KeepRule:
    """One criterion for keeping a photo.

    `rate` returns the value to compare, of which the larger is kept; `explain` takes the kept and the other photo
    and returns the reason in words. `glob` is that of a rule path:GLOB.
    """

    name: str
    rate: Callable[[RatedPhoto], Any]
    explain: Callable[[RatedPhoto, RatedPhoto], str]
    glob: str | None = None


def _versus(kept: str, other: str) -> str:
    return f"{kept} vs. {other}"


def _resolution(candidate: RatedPhoto) -> str:
    return f"{candidate.photo.width} x {candidate.photo.height}"


def _quality(candidate: RatedPhoto) -> str:
    return "lossless" if candidate.quality == LOSSLESS else f"quality {candidate.quality}"


def _age(candidate: RatedPhoto) -> float:
    """Return when the photo was taken, or else when its file was modified, in seconds since 1970."""
    taken = candidate.photo.taken
    if taken is None or taken.year < FIRST_PHOTO:
        return candidate.photo.mtime_ns / 1e9
    return (taken - datetime(1970, 1, 1)).total_seconds()  # datetime.timestamp fails for the year 1


def _when(candidate: RatedPhoto) -> str:
    photo = candidate.photo
    return f"taken {photo.taken:%Y-%m-%d %H:%M}" if photo.taken is not None else "no date taken"


KEEP_RULES: dict[str, KeepRule] = {
    rule.name: rule
    for rule in (
        KeepRule(
            "resolution",
            lambda each: each.photo.width * each.photo.height,
            lambda kept, other: _versus(_resolution(kept), _resolution(other)),
        ),
        KeepRule(
            "quality", lambda each: each.quality, lambda kept, other: _versus(_quality(kept), _quality(other))
        ),
        KeepRule(
            "bytes",
            lambda each: each.photo.bytes,
            lambda kept, other: _versus(f"{kept.photo.bytes:,} bytes", f"{other.photo.bytes:,}"),
        ),
        KeepRule(
            "exif",
            lambda each: each.photo.taken is not None,
            lambda kept, _: f"{_when(kept)}, the other has no date",
        ),
        KeepRule("oldest", lambda each: -_age(each), lambda *_: "the older one"),
        KeepRule("newest", _age, lambda *_: "the newer one"),
        KeepRule("shortest-path", lambda each: -len(each.photo.path), lambda *_: "the shorter path"),
    )
}


def quality_of(photo: Photo, read_quality: Callable[[], int | None]) -> int:
    """Return the quality of a file, UNKNOWN_QUALITY if it cannot be determined.

    `read_quality` returns that of a JPEG, None for another format; it may raise ImageError.
    """
    if photo.format not in LOSSY_FORMATS:
        return LOSSLESS
    try:
        return read_quality() or UNKNOWN_QUALITY
    except ImageError:
        return UNKNOWN_QUALITY


def keep_rules(text: str = DUPLICATES.keep) -> tuple[KeepRule, ...]:
    """Return the keep rules of a list such as "path:best/*,oldest". Raises OptionError for an unknown rule."""
    rules = [_keep_rule(name.strip()) for name in text.split(",") if name.strip()]
    if not rules:
        raise OptionError("No keep rule given. The default is ", option("keep", DUPLICATES.keep), ".")
    return tuple(rules)


def warn_of_unmatched(rules: Sequence[KeepRule], paths: Iterable[str]) -> None:
    """Log a warning for each rule path:GLOB that matches none of the paths: it may be misspelt."""
    for rule in rules:
        if rule.glob is not None and not any(map(re.compile(translate(rule.glob)).match, paths)):
            log.warning("The keep rule %s matches no photo of the index.", rule.name)


def _keep_rule(name: str) -> KeepRule:
    if name.startswith("path:"):
        glob = name.removeprefix("path:")
        return KeepRule(
            name, lambda each: fnmatchcase(each.photo.path, glob), lambda *_: f"its path matches {glob}", glob
        )
    if name not in KEEP_RULES:
        known = ", ".join([*KEEP_RULES, "path:GLOB"])
        raise OptionError(f"Unknown keep rule {name!r}. Available: {known}.")
    return KEEP_RULES[name]


def ranked(candidates: Sequence[RatedPhoto], policy: Sequence[KeepRule]) -> list[int]:
    """Return the indices of the candidates, the one to keep first; if all rules are tied, by path."""
    by_path = sorted(range(len(candidates)), key=lambda index: candidates[index].photo.path)
    return sorted(by_path, key=lambda index: tuple(_descending(rule.rate(candidates[index])) for rule in policy))


def reason(kept: RatedPhoto, other: RatedPhoto, policy: Sequence[KeepRule]) -> str:
    """Return in words why one photo is kept rather than another, by the first rule in which they differ."""
    for rule in policy:
        if rule.rate(kept) != rule.rate(other):
            return rule.explain(kept, other)
    return "first by path, all else being equal"


def _descending(value: Any) -> Any:
    return -value
