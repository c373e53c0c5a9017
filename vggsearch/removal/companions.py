"""Files that belong to a photo: XMP sidecars, the video of a live photo, the RAW file beside a JPEG."""

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from vggsearch.photos.raw_formats import RAW_MAKERS, is_raw

LIVE = frozenset((".heic", ".heif", ".jpg", ".jpeg"))
VIDEOS = frozenset((".mov", ".mp4"))
PICTURES = LIVE.union(
    RAW_MAKERS, (".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jxl", ".png", ".psd", ".tif", ".tiff", ".webp")
)


def companions(name: str, siblings: Collection[str], leaving: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names that go with the photo `name`, in name order.

    `siblings` are all names in its folder. What another photo there needs stays, unless that one is `leaving`, too.
    """
    others = [each for each in siblings if each != name and each not in leaving and _suffix(each) in PICTURES]
    found = (each for each in siblings if belongs(each, name))
    return tuple(sorted(each for each in found if not any(_needs(other, each, name) for other in others)))


def belongs(companion: str, photo: str) -> bool:
    """Say whether a file of this name is a companion of a photo of that name, in the same folder.

    Suffixes count in any spelling, the rest of the name to the letter. A video belongs to a JPEG or a HEIC only.
    """
    stem, suffix = PurePosixPath(photo).stem, _suffix(photo)
    if not companion.startswith(stem) or companion == photo:
        return False
    rest = companion[len(stem) :].casefold()
    return rest in (".xmp", f"{suffix}.xmp") or (rest in VIDEOS and suffix in LIVE)


def raw_partner(name: str, siblings: Collection[str]) -> str | None:
    """Return the name of a file that makes a RAW and JPEG pair with `name`, or None."""
    return next((each for each in sorted(siblings) if each != name and _is_pair(each, name)), None)


def twins(keeper: str, siblings: Collection[str]) -> Iterator[str]:
    """Yield the companions of a keeper, whoever else needs them: those of its copies may be the same."""
    return (each for each in sorted(siblings) if belongs(each, keeper))


def _needs(other: str, companion: str, photo: str) -> bool:
    """IMG.jpg.xmp is IMG.jpg's rather than IMG.JPG's; IMG.xmp is of both."""
    if companion.startswith(photo) and not companion.startswith(other):
        return False
    return belongs(companion, other)


def _is_pair(one: str, other: str) -> bool:
    is_same_name = PurePosixPath(one).stem == PurePosixPath(other).stem
    return is_same_name and {_suffix(one), _suffix(other)} <= PICTURES and is_raw(one) != is_raw(other)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.casefold()
