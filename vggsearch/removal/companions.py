"""Companions of a photo: sidecars, the video of a Live Photo, the RAW file beside a JPEG."""

import re
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from vggsearch.photos.raw_formats import RAW_MAKERS, is_raw

LIVE = frozenset((".heic", ".heif", ".jpg", ".jpeg"))
VIDEOS = frozenset((".mov", ".mp4"))
SIDECARS = frozenset(
    (
        ".aae",  # Apple Photos
        ".arp",  # ART
        ".dop",  # DxO
        ".json",  # Google Takeout, ExifTool
        ".on1",
        ".pp3",  # RawTherapee
        ".vrd",  # Canon
        ".xmp",
    )
)
VERSION = re.compile(r"_\d{2,}")  # darktable's duplicates: IMG_01.jpg.xmp
NUMBERED = re.compile(r"(.+)(\(\d+\))")  # Google Takeout's: IMG(1).jpg has IMG.jpg(1).json
TAKEOUT = ".supplemental-metadata"  # cut where the name would be too long
PICTURES = LIVE.union(
    RAW_MAKERS, (".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jxl", ".png", ".psd", ".tif", ".tiff", ".webp")
)


def is_video(name: str) -> bool:
    """Return whether a file of this name may be the video of a Live Photo."""
    return _suffix(name) in VIDEOS


def companions(name: str, siblings: Collection[str], leaving: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the companions that go with the photo `name`, in name order.

    `siblings` are all names in its folder. A companion that another photo there needs stays, unless that photo is
    `leaving` too.
    """
    others = [each for each in siblings if each != name and each not in leaving and _suffix(each) in PICTURES]
    found = (each for each in siblings if belongs(each, name))
    return tuple(sorted(each for each in found if not any(_needs(other, each, name) for other in others)))


def belongs(companion: str, photo: str) -> bool:
    """Return whether a file of this name is a companion of a photo of that name in the same folder.

    Suffixes are compared without case, the rest of the name exactly. A video belongs only to a JPEG or HEIC photo.
    """
    stem, suffix, kind = PurePosixPath(photo).stem, _suffix(photo), _suffix(companion)
    if companion == photo or not (kind in SIDECARS or (kind in VIDEOS and suffix in LIVE)):
        return False
    name = companion[: -len(kind)]
    if name == stem or kind in VIDEOS:
        return name == stem
    if name.startswith(stem) and _is_of_photo(name[len(stem) :].casefold(), suffix, kind):
        return True
    numbered = NUMBERED.fullmatch(stem)
    return kind == ".json" and numbered is not None and _is_of_numbered(name, suffix, *numbered.groups())


def common_start(photo: str) -> str:
    """Return how the names of all companions of a photo begin."""
    stem = PurePosixPath(photo).stem
    numbered = NUMBERED.fullmatch(stem)
    return stem if numbered is None else numbered[1]


def _is_of_photo(rest: str, suffix: str, kind: str) -> bool:
    """Return whether `rest`, between the stem of a photo and the suffix of a sidecar, fits: IMG.jpg.xmp."""
    if rest == suffix or (kind == ".json" and _is_takeout(rest, suffix)):
        return True
    return kind == ".xmp" and rest.endswith(suffix) and VERSION.fullmatch(rest.removesuffix(suffix)) is not None


def _is_of_numbered(name: str, suffix: str, stem: str, number: str) -> bool:
    """Return whether Google Takeout's sidecar `name`.json is that of a numbered photo: IMG.jpg(1) of IMG(1).jpg."""
    is_numbered = name.startswith(stem) and name.endswith(number)
    return is_numbered and _is_takeout(name[len(stem) : -len(number)].casefold(), suffix)


def _is_takeout(rest: str, suffix: str) -> bool:
    """Return whether Google Takeout writes `rest` after the stem of a photo: .jpg, .jpg.supplemental-metadata."""
    return rest.startswith(suffix) and TAKEOUT.startswith(rest.removeprefix(suffix))


def raw_partner(name: str, siblings: Collection[str]) -> str | None:
    """Return the name of a file that forms a RAW and JPEG pair with `name`, or None."""
    return next((each for each in sorted(siblings) if each != name and _is_pair(each, name)), None)


def keeper_companions(keeper: str, siblings: Collection[str]) -> Iterator[str]:
    """Yield the companions of a keeper, even if other photos need them: a copy may have the same ones."""
    return (each for each in sorted(siblings) if belongs(each, keeper))


def _needs(other: str, companion: str, photo: str) -> bool:
    """Return whether `other` needs a companion of `photo`: IMG.xmp belongs to both, IMG.jpg.xmp not to IMG.JPG."""
    if companion.startswith(photo) and not companion.startswith(other):
        return False
    return belongs(companion, other)


def _is_pair(one: str, other: str) -> bool:
    is_same_name = PurePosixPath(one).stem == PurePosixPath(other).stem
    return is_same_name and {_suffix(one), _suffix(other)} <= PICTURES and is_raw(one) != is_raw(other)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.casefold()
