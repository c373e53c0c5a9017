"""Which photo of a group to keep: an ordered list of keep rules, and the reason in words."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase, translate
from typing import Any

import numpy as np

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import Photo
from vggsearch.errors import ImageError, OptionError, option

log = logging.getLogger(__name__)

LOSSLESS = 101  # above the quality of any JPEG
LOSSY_FORMATS = {  # how many times the bits per pixel a JPEG of the same quality takes
    "JPEG": 1.0,
    "MPO": 1.0,
    "WEBP": 1.3,
    "HEIF": 2.0,
    "AVIF": 2.0,
    "JPEG2000": 1.3,
}
WITH_VIDEO = ("JPEG", "MPO", "HEIF")  # formats of motion photos
LEAST_BYTES_WITH_VIDEO = 300_000
BITS_PER_PIXEL = (0.1, 0.3, 0.6, 1.0, 1.9, 2.9, 5.0)  # of a JPEG of a natural photo, by quality
QUALITIES = (5, 20, 50, 75, 90, 95, 99)
FIRST_PHOTO = 1826  # the year; a camera without a clock, or a scanner, writes the year 1


@dataclass(frozen=True, slots=True)
class RatedPhoto:
    """A photo and the quality of its file: 1 to 100 as in JPEG, or LOSSLESS.

    `lost` is the share of its duplicates that are closer to the original, 0..1. `why` states by sha256 why this
    photo is closer to the original than another. `holds_video` says that it is a motion photo.
    """

    photo: Photo
    quality: int
    lost: float = 0.0
    why: Mapping[str, str] = field(default_factory=dict)
    holds_video: bool = False


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


def age(photo: Photo) -> tuple[float, int]:
    """Return when a photo was taken, or else modified, in seconds since 1970, and when it was modified.

    Of times taken, only whole seconds count: a copy may have lost the fraction.
    """
    if photo.taken is None or not has_date(photo):
        return photo.mtime_ns / 1e9, photo.mtime_ns
    return (photo.taken - datetime(1970, 1, 1)) // timedelta(
        seconds=1
    ), photo.mtime_ns  # timestamp() fails for the year 1


def has_date(photo: Photo) -> bool:
    """Return whether a camera recorded when it took the photo."""
    return photo.taken is not None and photo.taken.year >= FIRST_PHOTO


def _when(candidate: RatedPhoto) -> str:
    photo = candidate.photo
    return f"taken {photo.taken:%Y-%m-%d %H:%M}" if photo.taken is not None else "no date taken"


KEEP_RULES: dict[str, KeepRule] = {
    rule.name: rule
    for rule in (
        KeepRule(
            "original",
            lambda each: -each.lost,
            lambda kept, other: kept.why.get(other.photo.sha256, "closer to the original of other duplicates"),
        ),
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
        KeepRule("oldest", lambda each: tuple(-time for time in age(each.photo)), lambda *_: "the older one"),
        KeepRule("newest", lambda each: age(each.photo), lambda *_: "the newer one"),
        KeepRule("shortest-path", lambda each: -len(each.photo.path), lambda *_: "the shorter path"),
    )
}


def quality_of(photo: Photo, read_quality: Callable[[], int | None]) -> int:
    """Return the quality of a file. That of other lossy formats than JPEG is estimated from the bits per pixel.

    `read_quality` returns that of a JPEG, None for another format; it may raise ImageError.
    """
    if photo.format not in LOSSY_FORMATS:
        return LOSSLESS
    try:
        return read_quality() or _estimated(photo)
    except ImageError:
        return _estimated(photo)


def holds_video(photo: Photo, look: Callable[[], bool]) -> bool:
    """Return whether a file is a motion photo. `look` tells that; it may raise ImageError."""
    if photo.format not in WITH_VIDEO or photo.bytes < LEAST_BYTES_WITH_VIDEO:
        return False
    try:
        return look()
    except ImageError:
        return False


def _estimated(photo: Photo) -> int:
    """Return the quality of a JPEG that takes as many bits per pixel, allowing for better compression."""
    bits = 8 * photo.bytes / max(1, photo.width * photo.height)
    return round(float(np.interp(bits * LOSSY_FORMATS[photo.format], BITS_PER_PIXEL, QUALITIES)))


def keep_rules(text: str = DUPLICATES.keep) -> tuple[KeepRule, ...]:
    """Return the keep rules of a list such as "path:best/*,oldest". Raises OptionError for an unknown rule.

    The default rules follow them: without, a rule that holds for no photo would leave the choice to the path.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise OptionError("No keep rule given. The default is ", option("keep", DUPLICATES.keep), ".")
    return tuple(map(_keep_rule, dict.fromkeys([*names, *DUPLICATES.keep.split(",")])))


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
    return sorted(by_path, key=lambda index: [rule.rate(candidates[index]) for rule in policy], reverse=True)


def reason(kept: RatedPhoto, other: RatedPhoto, policy: Sequence[KeepRule]) -> str:
    """Return in words why one photo is kept rather than another, by the first rule in which they differ."""
    for rule in policy:
        if rule.rate(kept) != rule.rate(other):
            return rule.explain(kept, other)
    return "first by path, all else being equal"
