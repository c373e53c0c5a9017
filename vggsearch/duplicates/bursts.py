"""Photos that look like duplicates and are not: shots of one burst, the raw and the developed file of one shot."""

import re
from pathlib import PurePosixPath

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import Photo
from vggsearch.photos.raw_formats import is_raw

NUMBER = re.compile(r"\d+")
NEXT_SHOTS = 3  # numbers that two shots of one second may lie apart: faster cameras write bursts into one folder


def sibling(first: Photo, second: Photo) -> str | None:
    """Return in words what two photos are to each other, if they were made by one press of the button; else None.

    Two shots differ in when they were taken, or in the numbers the camera gave them; a copy keeps both, or loses
    the first. So shots of one size, DUPLICATES.burst_seconds apart at most, are a burst.
    """
    if _is_raw_pair(first.path, second.path):
        return "raw and developed file of one shot"
    if first.taken is None or second.taken is None or _size(first) != _size(second):
        return None
    apart = abs((first.taken - second.taken).total_seconds())
    if 0 < apart <= DUPLICATES.burst_seconds:
        return f"burst, {apart:.0f} s apart"
    if apart == 0 and _are_next_shots(first.path, second.path):
        return "burst, within a second"
    return None


def _is_raw_pair(first: str, second: str) -> bool:
    one, other = PurePosixPath(first), PurePosixPath(second)
    return one.with_suffix("") == other.with_suffix("") and is_raw(first) != is_raw(second)


def _size(photo: Photo) -> tuple[int, int]:
    return min(photo.width, photo.height), max(photo.width, photo.height)


def _are_next_shots(first: str, second: str) -> bool:
    """Whether two names in one folder differ in their last number alone, by little: IMG_0007 and IMG_0008."""
    one, other = PurePosixPath(first), PurePosixPath(second)
    numbers, others = NUMBER.findall(one.stem), NUMBER.findall(other.stem)
    is_alike = one.parent == other.parent and NUMBER.sub("#", one.stem) == NUMBER.sub("#", other.stem)
    if not is_alike or not numbers or numbers[:-1] != others[:-1]:
        return False
    return 0 < abs(int(numbers[-1]) - int(others[-1])) <= NEXT_SHOTS
