"""Siblings: photos that look like duplicates but are shots of one burst, or RAW and developed file of one shot."""

import re
from pathlib import PurePosixPath

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import Photo

NUMBER = re.compile(r"\d+")
NEXT_SHOTS = 3  # largest difference of the file numbers of two burst shots within one second


def sibling(first: Photo, second: Photo) -> str | None:
    """Return how two photos from one press of the shutter are related, in words; None for all other pairs.

    Two shots differ in the time they were taken or in the number in their file name, while a copy keeps both or
    loses the time. So shots of the same size that are at most DUPLICATES.burst_seconds apart are a burst.
    """
    if first.is_raw != second.is_raw and _without_suffix(first) == _without_suffix(second):
        return "RAW and developed file of one shot"
    if first.taken is None or second.taken is None or _size(first) != _size(second):
        return None
    seconds = abs((first.taken - second.taken).total_seconds())
    if 0 < seconds <= DUPLICATES.burst_seconds:
        return f"burst, {seconds:.0f} s apart"
    if seconds == 0 and _are_next_shots(first.path, second.path):
        return "burst, within a second"
    return None


def _without_suffix(photo: Photo) -> PurePosixPath:
    return PurePosixPath(photo.path).with_suffix("")


def _size(photo: Photo) -> tuple[int, int]:
    return min(photo.width, photo.height), max(photo.width, photo.height)


def _are_next_shots(first: str, second: str) -> bool:
    """Return whether two names in one folder differ only in their last number, by little: IMG_0007, IMG_0008."""
    one, other = PurePosixPath(first), PurePosixPath(second)
    numbers, others = NUMBER.findall(one.stem), NUMBER.findall(other.stem)
    is_same_pattern = one.parent == other.parent and NUMBER.sub("#", one.stem) == NUMBER.sub("#", other.stem)
    if not is_same_pattern or not numbers or numbers[:-1] != others[:-1]:
        return False
    return 0 < abs(int(numbers[-1]) - int(others[-1])) <= NEXT_SHOTS
