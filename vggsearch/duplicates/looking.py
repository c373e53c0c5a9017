"""Look at pairs of photos: what one shows around the other. Of copies that show the same, one stands for all."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import DUPLICATES, SURROUNDINGS
from vggsearch.duplicates.keep_policy import RatedPhoto
from vggsearch.duplicates.measured import Colours, Measured, Seen
from vggsearch.errors import ImageError
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.colour import colour_of, is_grey
from vggsearch.matching.common_part import CommonPart, common_part, reduced
from vggsearch.matching.surroundings import Around, around, show_others
from vggsearch.photos.resize import small_grey
from vggsearch.photos.upright import Box
from vggsearch.progress import Monitor

SAME = Seen(Around.NOTHING, Around.NOTHING, are_same=True)
SIZE = SURROUNDINGS.pixels
PLACES = np.array([(0, 1, 1, 0), (0, 0, 1, 1), (1, 1, 1, 1)])  # corners of a photo, as columns
WHOLE = ((0, 0), (1, 0), (1, 1), (0, 1))  # as pairs

Pair = tuple[int, int]
Position = Callable[[int, int], Alignment | None]  # of the first photo in the second
Read = Callable[[int, Box | None], Image.Image]  # reads a photo reduced, or a part of it at full size


@dataclass(frozen=True, slots=True)
class Look:
    """A photo as it is compared: its brightness, uint8 (height, width), and its colours.

    `small` is the brightness in fewer pixels, see common_part.reduced.
    """

    grey: NDArray[np.uint8]
    small: NDArray[np.uint8]
    colours: Colours


def look_at(image: Image.Image) -> Look:
    """Return how a reduced photo is compared."""
    grey = small_grey(image, SIZE)
    return Look(grey, reduced(grey), Colours(is_grey(image), colour_of(image)))


class Looker:
    """Looks at pairs of photos, by rows, and knows what was seen in `measured`.

    `photos` are the rated photos by row. `position` tells where one lies in another, and `read` reads them; it may
    raise ImageError.
    """

    def __init__(
        self, photos: Mapping[int, RatedPhoto], position: Position, read: Read, measured: Measured
    ) -> None:
        self._photos, self._position, self._read, self._measured = photos, position, read, measured
        self._looks: dict[int, Look | None] = {}
        self._seen: dict[Pair, Seen] = {}  # also of pairs in the other order

    def look(self, pairs: Sequence[Pair], threads: ThreadPoolExecutor, monitor: Monitor) -> dict[Pair, Seen]:
        """Return what pairs of photos show where one lies on the other. Raises Stopped.

        Each photo is looked at with the best one that it covers exactly. If the two show the same, what is around
        that one in other photos, and what these show around it, goes for the photo as well.
        """
        self._seen = {}
        best = self._best(pairs)
        self._look_at([_sorted(pair) for pair in best.items()], threads, monitor)
        same = {row: other for row, other in best.items() if self._seen[row, other].are_same}
        known = {each for pair in pairs for each in (pair, pair[::-1])}
        standing = {pair: self._standing_for(pair, same, known) for pair in pairs}
        self._look_at([_sorted(pair) for pair in standing.values() if pair[0] != pair[1]], threads, monitor)
        return {pair: self._seen[each] if each[0] != each[1] else SAME for pair, each in standing.items()}

    def colours(self, row: int) -> Colours | None:
        """Return the colours of a photo that was looked at, None if it cannot be read."""
        return self._measured.colours(self._sha256(row))

    def _sha256(self, row: int) -> str:
        return self._photos[row].photo.sha256

    def _best(self, pairs: Iterable[Pair]) -> dict[int, int]:
        """Return for each photo the best one that it covers exactly, unless it is better itself.

        The best one is that which most others cover exactly, then the one with most pixels, then of most quality.
        """
        exact = [pair for pair in pairs if self._are_exact(*pair)]
        count = Counter(row for pair in exact for row in pair)

        def rank(row: int) -> tuple[int, int, int, int]:
            rated = self._photos[row]
            return count[row], rated.photo.width * rated.photo.height, rated.quality, -row

        best: dict[int, int] = {}
        for first, second in exact:
            worse, better = sorted((first, second), key=rank)
            best[worse] = max(best.get(worse, better), better, key=rank)
        return best

    def _are_exact(self, first: int, second: int) -> bool:
        """Return whether two photos cover each other, but for a margin."""
        position = self._position(second, first)
        if position is None:
            return False
        corners, margin = position.corners, SURROUNDINGS.margin / SIZE
        return all(min(max(abs(x - u), abs(y - v)) for x, y in corners) <= margin for u, v in WHOLE)

    def _standing_for(self, pair: Pair, same: Mapping[int, int], known: Container[Pair]) -> Pair:
        """Return the pair that is looked at for one: of the photos that show the same, if they lie there, too."""
        first, second = (same.get(row, row) for row in pair)
        if first == second or (first, second) == pair:
            return first, second
        return (first, second) if (first, second) in known and self._lies_at(pair, first, second) else pair

    def _lies_at(self, pair: Pair, first: int, second: int) -> bool:
        """Return whether the second photo of a pair lies in the first as those do that stand for the two."""
        found, expected = self._placed(pair[1], pair[0]), np.eye(3)
        for query, photo in ((pair[1], second), (second, first), (first, pair[0])):
            expected = self._placed(query, photo) @ expected
        apart = np.abs((found - expected) @ PLACES).max() * SIZE  # NaN if a position is not known
        return bool(apart <= 2 * SURROUNDINGS.margin * max(1.0, np.abs(found[:2, :2]).max()))

    def _placed(self, query: int, photo: int) -> NDArray[np.float64]:
        """Return the (3, 3) matrix from places in a query to those in a photo, in fractions; NaN if not known."""
        position = self._position(query, photo) if query != photo else None
        if position is None:
            return np.eye(3) if query == photo else np.full((3, 3), np.nan)
        (left, top), (right, upper), _, (lower, bottom) = position.corners
        return np.array([[right - left, lower - left, left], [upper - top, bottom - top, top], [0, 0, 1]])

    def _look_at(self, pairs: Iterable[Pair], threads: ThreadPoolExecutor, monitor: Monitor) -> None:
        """Look at pairs, with few photos in memory at once."""
        todo = sorted({pair for pair in pairs if pair not in self._seen})
        for pair in todo:
            self._keep(pair, self._stored(pair))
        todo = [pair for pair in todo if pair not in self._seen]
        for start in range(0, len(todo), DUPLICATES.looked_at_once):
            monitor.check()
            some = todo[start : start + DUPLICATES.looked_at_once]
            rows = {row for pair in some for row in pair}
            self._looks = {row: self._looks[row] for row in rows & self._looks.keys()}
            missing = sorted(rows - self._looks.keys())
            self._looks |= dict(zip(missing, threads.map(self._look, missing), strict=True))
            for pair, seen in zip(some, threads.map(self._see, some), strict=True):
                self._keep(pair, seen)

    def _keep(self, pair: Pair, seen: Seen | None) -> None:
        if seen is not None:
            self._seen[pair], self._seen[pair[::-1]] = seen, seen.turned()

    def _stored(self, pair: Pair) -> Seen | None:
        if any(self.colours(row) is None for row in pair):
            return None
        first, second = sorted(pair, key=self._sha256)
        position = self._position(second, first)
        seen = self._measured.seen(self._sha256(first), self._sha256(second), position) if position else None
        return seen if seen is None or (first, second) == pair else seen.turned()

    def _look(self, row: int) -> Look | None:
        try:
            look = look_at(self._read(row, None))
        except ImageError:
            return None
        self._measured.add_colours(self._sha256(row), look.colours)
        return look

    def _see(self, pair: Pair) -> Seen:
        """Look at a pair. What is seen is stored, unless one of the two cannot be read."""
        first, second = sorted(pair, key=self._sha256)
        one, other = self._looks[first], self._looks[second]
        of_second, of_first = self._position(second, first), self._position(first, second)
        seen = Seen(_around(one, of_second), _around(other, of_first))
        if one is None or other is None or of_second is None or of_first is None:
            return seen if (first, second) == pair else seen.turned()
        if Around.OTHERS not in (seen.first, seen.second):
            parts = list(_parts(one, other, (of_second, of_first)))
            is_all = all(part.hidden == 0 for part, _ in parts)
            are_same = is_all and self._are_exact(first, second)
            seen = replace(seen, is_part=any(is_part for _, is_part in parts), are_same=are_same)
        self._measured.add_seen(self._sha256(first), self._sha256(second), of_second, seen)
        return seen if (first, second) == pair else seen.turned()


def _around(look: Look | None, position: Alignment | None) -> Around:
    return around(look.grey, position) if look is not None and position is not None else Around.UNCLEAR


def _parts(one: Look, other: Look, positions: tuple[Alignment, Alignment]) -> Iterator[tuple[CommonPart, bool]]:
    """Yield what the larger photo shows of the smaller one, and whether it shows others; of equal ones, both."""
    for photo, query, position in ((one, other, positions[0]), (other, one, positions[1])):
        if position.scale <= 1:
            part = common_part(query.small, photo.grey, position)
            yield part, show_others(query.grey, photo.grey, position, part)


def _sorted(pair: Pair) -> Pair:
    first, second = sorted(pair)
    return first, second
