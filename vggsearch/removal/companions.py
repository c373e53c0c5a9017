"""Companions of a photo: XMP sidecars, the video of a live photo, the RAW file beside a JPEG."""

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from vggsearch.photos.raw_formats import RAW_MAKERS, is_raw

LIVE = frozenset((".heic", ".heif", ".jpg", ".jpeg"))
VIDEOS = frozenset((".mov", ".mp4"))
PICTURES = LIVE.union(
    RAW_MAKERS, (".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jxl", ".png", ".psd", ".tif", ".tiff", ".webp")
)


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
    stem, suffix = PurePosixPath(photo).stem, _suffix(photo)
    if not companion.startswith(stem) or companion == photo:
        return False
    rest = companion[len(stem) :].casefold()
    return rest in (".xmp", f"{suffix}.xmp") or (rest in VIDEOS and suffix in LIVE)


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
