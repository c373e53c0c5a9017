"""Siblings: photos that look like duplicates but are shots of one burst, or from one tripod."""

import re
from datetime import datetime
from pathlib import PurePosixPath

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import Photo

NUMBER = re.compile(r"\d+")
# The prefixes are those of cameras: messengers, browsers and screenshots name a file by the time it was saved.
NAMED_BY_TIME = re.compile(
    r"(|img|pxl|mvimg|burst|pano|dsc|dscf|cam)[-_ ]?"
    r"(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)[-_ .t]?(\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)(\d{3})?(?!\d)",
    re.IGNORECASE,
)
TIME_ZONE_STEP = 15 * 60  # seconds; clocks of two time zones differ by a multiple of it


def are_siblings(first: Photo, second: Photo) -> bool:
    """Return whether two photos are shots of one burst or from one tripod.

    Two shots differ in the time they were taken or in the number in their file name, while a copy keeps both or
    loses the time. So shots of the same size that are at most DUPLICATES.burst_seconds apart are a burst, or were
    taken from one tripod. Times that differ by a time zone say nothing: the clock of one may have been corrected.
    """
    seconds = _seconds_apart(first, second)
    if seconds is None or _size(first) != _size(second):
        return False
    if seconds >= 1:
        return seconds <= DUPLICATES.burst_seconds and seconds % TIME_ZONE_STEP != 0
    return seconds > 0 or _are_next_shots(first.path, second.path)


def _seconds_apart(first: Photo, second: Photo) -> float | None:
    """Return the time between two shots, by the camera or else by their names; None if unknown."""
    if first.taken is not None and second.taken is not None and first.taken != second.taken:
        return abs((first.taken - second.taken).total_seconds())
    one, other = _time_in_name(first.path), _time_in_name(second.path)
    if one is not None and other is not None:
        return abs((one - other).total_seconds())
    return None if first.taken is None or second.taken is None else 0.0


def _time_in_name(path: str) -> datetime | None:
    """Return the time by which a camera named a photo, such as PXL_20240601_120000123.jpg; None if it did not."""
    found = NAMED_BY_TIME.match(PurePosixPath(path).stem)
    if found is None:
        return None
    year, month, day, hour, minute, second, milliseconds = map(int, found.groups("0")[1:])
    try:
        return datetime(year, month, day, hour, minute, second, milliseconds * 1000)
    except ValueError:
        return None


def _size(photo: Photo) -> tuple[int, int]:
    return min(photo.width, photo.height), max(photo.width, photo.height)


def _are_next_shots(first: str, second: str) -> bool:
    """Return whether two names in one folder differ only in their last number, by little: IMG_0007, IMG_0019."""
    one, other = PurePosixPath(first), PurePosixPath(second)
    numbers, others = NUMBER.findall(one.stem), NUMBER.findall(other.stem)
    is_same_pattern = one.parent == other.parent and NUMBER.sub("#", one.stem) == NUMBER.sub("#", other.stem)
    if not is_same_pattern or not numbers or numbers[:-1] != others[:-1]:
        return False
    apart = abs(int(numbers[-1]) - int(others[-1]))
    turns_over = int("9" * len(numbers[-1]))  # IMG_0001 follows IMG_9999
    return 0 < min(apart, abs(turns_over - apart)) <= DUPLICATES.shots_a_second
