"""What follows for two photos from a third one: both are copies of it, so they need not be compared themselves."""

from collections import defaultdict
from collections.abc import Callable

from vggsearch.matching.alignment import Alignment
from vggsearch.matching.composed import laid_by_common

MOST_TRIED = 3  # common photos, from which a pair may follow
AS_SHARP = 0.5  # of the sharpness of the blurrier one of two, that of a third one: else it hides how they differ

Pair = tuple[int, int]
Position = Callable[[int, int], Alignment | None]


class Families:
    """Photos, by row, whose pixels agree. `position` tells where one of two lies in the other."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._agreeing: dict[int, set[int]] = defaultdict(set)
        self._compared: dict[int, int] = defaultdict(int)
        self._sharpness: dict[int, float] = {}

    def see(self, row: int, sharpness: float) -> None:
        """Note how sharp a photo is; only from such photos something follows."""
        self._sharpness[row] = sharpness

    def add(self, first: int, second: int, *, was_compared: bool) -> None:
        """Note that two photos agree: that they were compared, or that it follows from others."""
        self._agreeing[first].add(second)
        self._agreeing[second].add(first)
        if was_compared:
            self._compared[first] += 1
            self._compared[second] += 1

    def centre(self, row: int) -> int:
        """Return the photo at the centre of the family of a photo, which was compared with most others."""
        best = max(self._agreeing.get(row, ()), key=self._size, default=row)
        return self.centre(best) if self._size(best) > self._size(row) else row

    def links(self, first: int, second: int) -> list[Pair]:
        """Return the pairs to compare so that something may follow for two photos: both with the larger centre."""
        centre = max(self.centre(first), self.centre(second), key=self._size)
        return [(centre, each) for each in (first, second)] if centre not in (first, second) else []

    def follows(self, first: int, second: int) -> Alignment | None:
        """Return the position of the first photo in the second, if it follows from that of both in a third one."""
        common = self._agreeing.get(first, set()) & self._agreeing.get(second, set())
        sharp = [row for row in common if self._is_sharp(row, first, second)]
        for row in sorted(sharp, key=self._size, reverse=True)[:MOST_TRIED]:
            one, other = self._position(first, row), self._position(second, row)
            found = laid_by_common(one, other) if one is not None and other is not None else None
            if found is not None:
                return found
        return None

    def _size(self, row: int) -> tuple[int, int]:
        return self._compared.get(row, 0), -row

    def _is_sharp(self, row: int, *pair: int) -> bool:
        known = [self._sharpness[each] for each in pair if each in self._sharpness]
        return row in self._sharpness and bool(known) and self._sharpness[row] >= AS_SHARP * min(known)
