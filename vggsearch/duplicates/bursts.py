"""Other exposures: photos that look like duplicates, but were taken at another time or with another camera."""

import re
from datetime import datetime
from pathlib import PurePosixPath

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.keep_policy import has_date
from vggsearch.duplicates.results import Photo
from vggsearch.photos.capture import FRACTION, SAVED

SIBLINGS = "shots of one burst, or from one tripod"
OTHER_EXPOSURES = "taken at different times or with different cameras"
NUMBER = re.compile(r"\d+")
# The prefixes are those of cameras: messengers, browsers and screenshots name a file by the time it was saved.
NAMED_BY_TIME = re.compile(
    r"(|img|pxl|mvimg|burst|pano|dsc|dscf|cam)[-_ ]?"
    r"(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)[-_ .t]?(\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)(\d{3})?(?!\d)",
    re.IGNORECASE,
)
NAMED_AS_BURST = re.compile(r"(\d+)img_\d+_burst(\d+)", re.IGNORECASE)  # 00001IMG_00001_BURST20190804101112345
TIME_ZONE_STEP = 15 * 60  # seconds; clocks of two time zones differ by a multiple of it


def other_exposures(first: Photo, second: Photo) -> str | None:
    """Return SIBLINGS or OTHER_EXPOSURES if two photos are not of one exposure, by their files; else None.

    Two shots differ in the time they were taken or in the number in their file name, while a copy keeps both or
    loses the time. So shots of the same size that are at most DUPLICATES.burst_seconds apart are a burst, or were
    taken from one tripod. Of one camera, times decide whatever the sizes and however far apart they are. Times that
    differ by a time zone say nothing: the clock of one may have been corrected. Nor does the time at which a
    program saved a file, unless their names, too, are those of two shots.
    """
    if _are_of_two_cameras(first, second):
        return OTHER_EXPOSURES
    seconds, is_same_size = _seconds_apart(first, second), _size(first) == _size(second)
    if seconds is None or not (is_same_size or _are_of_one_camera(first, second)):
        return None
    if seconds == 0:
        are_two = is_same_size and _are_next_shots(first.path, second.path) and not _is_one_moment(first, second)
        return SIBLINGS if are_two else None
    if seconds % TIME_ZONE_STEP == 0:
        return None
    if is_same_size and seconds <= DUPLICATES.burst_seconds:
        return SIBLINGS
    return OTHER_EXPOSURES if _are_of_one_camera(first, second) else None


def _seconds_apart(first: Photo, second: Photo) -> float | None:
    """Return the time between two shots, by the camera or else by their names; None if unknown.

    A fraction of a second counts only if both have one.
    """
    seconds = _seconds_between(first, second)
    if seconds:
        return seconds
    one, other = _time_in_name(first.path), _time_in_name(second.path)
    if one is not None and other is not None and not _is_one_moment(first, second):
        return abs((one - other).total_seconds())
    return seconds


def _seconds_between(first: Photo, second: Photo) -> float | None:
    """Return the time between two shots by EXIF; None if unknown."""
    if first.taken is None or second.taken is None or not (has_date(first) and has_date(second)):
        return None
    one, other = first.taken, second.taken
    if not (first.taken_kind == second.taken_kind == FRACTION):
        one, other = one.replace(microsecond=0), other.replace(microsecond=0)
    is_saved = SAVED in (first.taken_kind, second.taken_kind)
    if is_saved and one != other and not _are_next_shots(first.path, second.path):
        return None
    return abs((one - other).total_seconds())


def _is_one_moment(first: Photo, second: Photo) -> bool:
    """Return whether a camera recorded the same fraction of the same second. Many write 0 for an unknown one."""
    are_exact = first.taken_kind == second.taken_kind == FRACTION
    return are_exact and first.taken == second.taken and bool(first.taken and first.taken.microsecond)


def _are_of_one_camera(first: Photo, second: Photo) -> bool:
    return first.camera is not None and second.camera is not None and not _are_of_two_cameras(first, second)


def _are_of_two_cameras(first: Photo, second: Photo) -> bool:
    """Return whether the names of two cameras, which a program may have shortened, or their numbers differ."""
    if first.camera is None or second.camera is None:
        return False
    one, other = first.camera.casefold(), second.camera.casefold()
    if not (one.endswith(other) or other.endswith(one)):
        return True
    has_numbers = first.camera_serial is not None and second.camera_serial is not None
    return has_numbers and first.camera_serial != second.camera_serial


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
    """Return whether two names in one folder are those of shots of a burst.

    They differ only in their last number, by little: IMG_0007, IMG_0019.
    """
    one, other = PurePosixPath(first), PurePosixPath(second)
    in_bursts = NAMED_AS_BURST.match(one.stem), NAMED_AS_BURST.match(other.stem)
    if in_bursts[0] is not None and in_bursts[1] is not None:
        return in_bursts[0][2] == in_bursts[1][2] and in_bursts[0][1] != in_bursts[1][1]
    numbers, others = NUMBER.findall(one.stem), NUMBER.findall(other.stem)
    is_same_pattern = one.parent == other.parent and NUMBER.sub("#", one.stem) == NUMBER.sub("#", other.stem)
    if not is_same_pattern or not numbers or numbers[:-1] != others[:-1]:
        return False
    apart = abs(int(numbers[-1]) - int(others[-1]))
    turns_over = int("9" * len(numbers[-1]))  # IMG_0001 follows IMG_9999
    return 0 < min(apart, abs(turns_over - apart)) <= DUPLICATES.shots_a_second
