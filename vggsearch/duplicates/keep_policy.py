"""Which of some duplicates to keep: an ordered list of wishes, and why in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import Photo
from vggsearch.errors import ImageError, OptionError
from vggsearch.photos.decode import decoder_errors, jpeg_quality

LOSSLESS = 101  # a quality above that of every JPEG
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF", "JPEG2000")
UNKNOWN_QUALITY = 90  # of a lossy file that does not say


@dataclass(frozen=True, slots=True)
class RatedPhoto:
    """A photo that may be kept, and the quality of its file: 1 to 100 as in JPEG, LOSSLESS above."""

    photo: Photo
    quality: int


@dataclass(frozen=True, slots=True)
class KeepRule:
    """One thing to keep a photo for. `rates` gives what is compared, larger is kept; `says` why one was kept."""

    name: str
    rates: Callable[[RatedPhoto], Any]
    says: Callable[[RatedPhoto, RatedPhoto], str]


def _against(kept: str, other: str) -> str:
    return f"{kept} against {other}"


def _resolution(candidate: RatedPhoto) -> str:
    return f"{candidate.photo.width} x {candidate.photo.height}"


def _quality(candidate: RatedPhoto) -> str:
    return "lossless" if candidate.quality == LOSSLESS else f"quality {candidate.quality}"


def _age(candidate: RatedPhoto) -> tuple[float, int]:
    """Return when the photo was taken, or else saved; those that say when they were taken are compared by it."""
    taken = candidate.photo.taken
    return (taken.timestamp(), 0) if taken is not None else (candidate.photo.mtime_ns / 1e9, 1)


def _when(candidate: RatedPhoto) -> str:
    photo = candidate.photo
    return f"taken {photo.taken:%Y-%m-%d %H:%M}" if photo.taken is not None else "no date taken"


KEEP_RULES: dict[str, KeepRule] = {
    rule.name: rule
    for rule in (
        KeepRule(
            "resolution",
            lambda each: each.photo.width * each.photo.height,
            lambda kept, other: _against(_resolution(kept), _resolution(other)),
        ),
        KeepRule(
            "quality", lambda each: each.quality, lambda kept, other: _against(_quality(kept), _quality(other))
        ),
        KeepRule(
            "bytes",
            lambda each: each.photo.bytes,
            lambda kept, other: _against(f"{kept.photo.bytes:,} bytes", f"{other.photo.bytes:,}"),
        ),
        KeepRule(
            "exif",
            lambda each: each.photo.taken is not None,
            lambda kept, _: f"{_when(kept)}, which the other does not say",
        ),
        KeepRule("oldest", lambda each: -_age(each)[0], lambda *_: "the older of the two"),
        KeepRule("newest", lambda each: _age(each)[0], lambda *_: "the newer of the two"),
        KeepRule("shortest-path", lambda each: -len(each.photo.path), lambda *_: "the shorter path"),
    )
}


def quality_of(photo: Photo, file: Path) -> int:
    """Return the quality of a photo's file, as far as it can be read: that of a JPEG is in its header."""
    if photo.format not in LOSSY_FORMATS:
        return LOSSLESS
    try:
        with decoder_errors(), file.open("rb") as opened:
            return jpeg_quality(opened) or UNKNOWN_QUALITY
    except ImageError:
        return UNKNOWN_QUALITY


def keep_rules(text: str = DUPLICATES.keep) -> tuple[KeepRule, ...]:
    """Return the wishes of a list such as "path:best/*,oldest". Raises OptionError for an unknown one."""
    found = [_wish(name.strip()) for name in text.split(",") if name.strip()]
    if not found:
        raise OptionError(f"What to keep is empty. Say for instance {DUPLICATES.keep}.")
    return tuple(found)


def _wish(name: str) -> KeepRule:
    if name.startswith("path:"):
        glob = name.removeprefix("path:")
        return KeepRule(
            name, lambda each: fnmatchcase(each.photo.path, glob), lambda *_: f"its path is like {glob}"
        )
    if name not in KEEP_RULES:
        known = ", ".join([*KEEP_RULES, "path:GLOB"])
        raise OptionError(f"Nothing is kept for {name!r}. What there is: {known}.")
    return KEEP_RULES[name]


def ranked(candidates: Sequence[RatedPhoto], policy: Sequence[KeepRule]) -> list[int]:
    """Return the places of the candidates, the one to keep first; where all wishes are equal, by path."""
    by_path = sorted(range(len(candidates)), key=lambda place: candidates[place].photo.path)
    return sorted(by_path, key=lambda place: tuple(_descending(rule.rates(candidates[place])) for rule in policy))


def reason(kept: RatedPhoto, other: RatedPhoto, policy: Sequence[KeepRule]) -> str:
    """Return in words why one photo is kept rather than another: the first wish that tells them apart."""
    for rule in policy:
        if rule.rates(kept) != rule.rates(other):
            return rule.says(kept, other)
    return "first by name, as nothing else tells them apart"


def _descending(value: Any) -> Any:
    return -value
