"""Which of two duplicates is the original, by what both show, and which photo contains another among others."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import COLOUR, DETAIL, DUPLICATES, SURROUNDINGS
from vggsearch.duplicates.confirmation import KeypointMatcher
from vggsearch.duplicates.keep_policy import LOSSLESS, RatedPhoto, age, has_date
from vggsearch.errors import ImageError
from vggsearch.matching.colour import colour_of, is_grey
from vggsearch.matching.common_part import reduced
from vggsearch.matching.detail import Detail, detail_of
from vggsearch.matching.surroundings import Around, around, share_outside, show_others
from vggsearch.photos.resize import small_grey
from vggsearch.photos.upright import Box, OutsideError
from vggsearch.progress import Monitor

WEB_FORMATS = ("WEBP", "AVIF", "GIF")  # no camera writes them
JPEG_FORMATS = ("JPEG", "MPO")  # which record their quality
PART = 768  # pixels a side, at most, of the part of a photo at full size in which detail is looked for
STEP = 64  # pixels, a multiple of the blocks of a JPEG, to which parts are rounded: most pairs then share one
INEXACT = 4  # pixels by which a position may be wrong
FRAMES = (Around.FRAME, Around.DRAWN)
NEITHER = -1  # the row of no photo
WHOLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))  # corners of a photo, in fractions

Pair = tuple[int, int]
Read = Callable[[int, Box | None], Image.Image]  # reads a photo reduced, or a part of it at full size


@dataclass(frozen=True)
class Evidence:
    """What is known of pairs of photos, by rows.

    `why` says in words why the first of two photos is closer to the original than the second, for one order of each
    pair at most. `contains` are the pairs of which one photo contains the other among other pictures, or both
    show one picture among other things. `beyond` are pairs, in this order, of which the first shows some of the
    scene that the second does not; of two crops of one photo, that is true in both orders.
    """

    why: dict[Pair, str] = field(default_factory=dict)
    contains: frozenset[Pair] = frozenset()
    beyond: frozenset[Pair] = frozenset()

    def lost(self) -> dict[int, float]:
        """Return the share of comparisons that each photo lost, for photos that lost any."""
        lost, compared = defaultdict[int, int](int), defaultdict[int, int](int)
        for better, worse in self.why:
            lost[worse] += 1
            compared[better] += 1
            compared[worse] += 1
        return {row: count / compared[row] for row, count in lost.items()}


@dataclass(frozen=True, slots=True)
class Look:
    """A photo as it is compared: its brightness, uint8 (height, width), and its colour, see matching.colour.

    `small` is the brightness in fewer pixels, see common_part.reduced.
    """

    grey: NDArray[np.uint8]
    small: NDArray[np.uint8]
    is_grey: bool
    colour: float


def look_at(image: Image.Image) -> Look:
    """Return how a reduced photo is compared."""
    grey = small_grey(image, SURROUNDINGS.pixels)
    return Look(grey, reduced(grey), is_grey(image), colour_of(image))


class Originals:
    """Compares what photos show, to find the original among duplicates.

    `photos` are the rated photos by row. `read` reads them; it may raise ImageError.
    """

    def __init__(self, photos: dict[int, RatedPhoto], matcher: KeypointMatcher, read: Read) -> None:
        self._photos, self._matcher, self._read = photos, matcher, read
        self._looks: dict[int, Look | None] = {}
        self._details: dict[tuple[int, Box], Detail | None] = {}
        self._beyond: set[Pair] = set()

    def compare(self, pairs: Iterable[Pair], monitor: Monitor) -> Evidence:
        """Compare pairs of rows. Raises Stopped."""
        todo, done = sorted(pairs), 0
        why: dict[Pair, str] = {}
        container: dict[Pair, int] = {}
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(todo), DUPLICATES.looked_at_once):
                monitor.check()
                some = todo[start : start + DUPLICATES.looked_at_once]
                rows = {row for pair in some for row in pair}
                self._looks = {row: self._looks[row] for row in rows & self._looks.keys()}
                missing = sorted(rows - self._looks.keys())
                self._looks |= dict(zip(missing, threads.map(self._look, missing), strict=True))
                for pair, found in zip(some, threads.map(self._judge, some), strict=True):
                    if isinstance(found, int):
                        container[pair] = found
                    elif found is not None:
                        why[found[0]] = found[1]
                done += len(some)
                monitor.show("looking for originals", done, len(todo), "pairs")
        contains = {*container, *self._of_containers(todo, set(container.values()))}
        why = {pair: words for pair, words in why.items() if not {pair, pair[::-1]} & contains}
        return Evidence(why, frozenset(contains), frozenset(self._beyond))

    def _of_containers(self, pairs: Iterable[Pair], containers: set[int]) -> Iterator[Pair]:
        """Yield the pairs of a photo that contains another one with a photo that takes only a part of it, too.

        Where a tile of a collage was cropped to fit, no seam is found at the edges of the whole photo.
        """
        for pair in pairs:
            for row, other in (pair, pair[::-1]):
                position = self._matcher.position(other, row) if row in containers else None
                if position is not None and share_outside(position) >= SURROUNDINGS.share_of_others:
                    yield pair

    def _judge(self, pair: Pair) -> int | tuple[Pair, str] | None:
        """Return the photo that contains the other, else the better one first, and why; None if none is.

        NEITHER means that it was put among other things in both: what one shows around it, the other lacks.
        """
        sides = _Side(self, *pair), _Side(self, *pair[::-1])
        for side in sides:
            if side.shown is Around.OTHERS:
                return side.row
        if all(side.shown in FRAMES for side in sides) and any(side.is_mostly_around for side in sides):
            return NEITHER
        if any(side.shows_a_part_of(opposite) for side, opposite in (sides, sides[::-1])):
            return NEITHER
        self._beyond.update((side.row, opposite.row) for side, opposite in (sides, sides[::-1]) if side.goes_beyond)
        for evidence in EVIDENCE:
            for side, opposite in (sides, sides[::-1]):
                words = evidence(side, opposite)
                if words is not None:
                    return (side.row, opposite.row), words
        return None

    def detail(self, row: int, part: Box) -> Detail | None:
        """Return the detail of a part of a photo, None if it is tiny or cannot be read."""
        if (row, part) not in self._details:
            try:
                self._details[row, part] = detail_of(self._read(row, part))
            except (ImageError, OutsideError):
                self._details[row, part] = None
        return self._details[row, part]

    def _look(self, row: int) -> Look | None:
        try:
            return look_at(self._read(row, None))
        except ImageError:
            return None


class _Side:
    """One photo of a pair: what it shows around the other, and how many of its pixels show what both show."""

    def __init__(self, originals: Originals, row: int, other: int) -> None:
        self.row, self.rated, self._originals = row, originals._photos[row], originals
        self.photo = self.rated.photo
        self.look = originals._looks[row]
        self.alignment = originals._matcher.position(other, row)
        self.shown = around(self.look.grey, self.alignment) if self.look and self.alignment else Around.UNCLEAR

    @property
    def goes_beyond(self) -> bool:
        """Whether this photo shows more of the scene than the other, also where that is unclear, if it was seen."""
        is_known = self.look is not None and self.alignment is not None
        return is_known and self.shown in (Around.SCENE, Around.UNCLEAR)

    @property
    def is_mostly_around(self) -> bool:
        """Whether so much of this photo is around the other that it may be other pictures."""
        return self.alignment is not None and share_outside(self.alignment) >= SURROUNDINGS.share_of_others

    def shows_a_part_of(self, opposite: "_Side") -> bool:
        """Return whether the other photo, which is the smaller one in this, was cropped to fit among others."""
        if self.look is None or opposite.look is None or self.alignment is None or self.alignment.scale > 1:
            return False
        return show_others(opposite.look.grey, opposite.look.small, self.look.grey, self.alignment)

    def size_of(self, opposite: "_Side") -> float:
        """Return how many pixels of this photo, across, show what one pixel of the other shows."""
        if self.alignment is None:
            return 1.0
        own, its = (each.photo.width * each.photo.height for each in (self, opposite))
        return float(self.alignment.scale * np.sqrt(own / its))

    def detail(self) -> Detail | None:
        """Return the detail in the middle of what both photos show, at the full size of this one.

        It is None if that is tiny or cannot be read.
        """
        size = np.array([self.photo.width, self.photo.height])
        corners = np.clip(WHOLE if self.alignment is None else self.alignment.corners, 0, 1) * size
        low, high = corners.min(axis=0), corners.max(axis=0)
        begin = np.ceil((np.maximum(low, (low + high - PART) / 2) - INEXACT) / STEP) * STEP
        end = np.floor((np.minimum(high, begin + PART) + INEXACT) / STEP) * STEP
        if (end - begin < DETAIL.least_side).any():
            return None
        left, top, width, height = np.concatenate([begin, end - begin]).astype(int).tolist()
        return self._originals.detail(self.row, (left, top, width, height))

    def has_pixels_of(self, opposite: "_Side") -> bool:
        """Return whether both files show the same in every pixel; False if that was not compared."""
        own, its = ((each.photo.width, each.photo.height) for each in (self, opposite))
        return own == its and self._originals._matcher.have_same_pixels((self.row, opposite.row))

    @property
    def is_lossless(self) -> bool:
        """Whether its format keeps every pixel."""
        return self.rated.quality == LOSSLESS


def _shows_more(side: _Side, opposite: _Side) -> str | None:
    if side.shown is Around.SCENE and opposite.shown in (Around.NOTHING, Around.FRAME):
        return "shows more of the scene"
    return None


def _is_not_framed(side: _Side, opposite: _Side) -> str | None:
    if opposite.shown is Around.FRAME and side.shown in (Around.NOTHING, Around.DRAWN, Around.UNCLEAR):
        return "the other shows it in a frame or on a screen"
    return None


def _shows_more_detail(side: _Side, opposite: _Side) -> str | None:
    """Look for real detail in the larger photo, unless the rules after this one choose it in any case."""
    ratio = side.size_of(opposite)
    if ratio < DETAIL.least_ratio or _is_chosen_anyway(side, opposite):
        return None
    detail, is_doubtful = side.detail(), _has_date(opposite, side) is not None
    if detail is not None and detail.is_real(ratio, DETAIL.surely_real if is_doubtful else DETAIL.real):
        return f"shows more detail, at {ratio:.1f} times the size"
    return None


def _is_chosen_anyway(side: _Side, opposite: _Side) -> bool:
    return _is_coloured(opposite, side) is None and _has_date(side, opposite) is not None


def _is_coloured(side: _Side, opposite: _Side) -> str | None:
    if side.look is None or opposite.look is None or side.look.is_grey or not opposite.look.is_grey:
        return None
    least = max(COLOUR.least, COLOUR.times * opposite.look.colour)
    return "in colour, the other is not" if side.look.colour > least else None


def _has_date(side: _Side, opposite: _Side) -> str | None:
    if has_date(side.photo) and not has_date(opposite.photo):
        return f"taken {side.photo.taken:%Y-%m-%d %H:%M}, the other has no date"
    return None


def _is_of_a_camera(side: _Side, opposite: _Side) -> str | None:
    if opposite.photo.format in WEB_FORMATS and side.photo.format not in WEB_FORMATS:
        return f"the other was saved as {opposite.photo.format}"
    return None


def _is_lossless(side: _Side, opposite: _Side) -> str | None:
    """Prefer lossless files, except those made from a JPEG: they have its pixels, or still show its blocks."""
    if side.is_lossless == opposite.is_lossless:
        return None
    lossless = side if side.is_lossless else opposite
    if side.has_pixels_of(opposite):
        return f"the {opposite.photo.format} file was made from it" if lossless is opposite else None
    detail = lossless.detail()
    is_of_jpeg = detail is not None and detail.has_jpeg_grid
    if lossless is opposite and is_of_jpeg:
        return f"the {opposite.photo.format} file was made from a JPEG"
    if lossless is side and not is_of_jpeg:
        return "lossless"
    return None


def _is_less_compressed(side: _Side, opposite: _Side) -> str | None:
    if not {side.photo.format, opposite.photo.format} <= set(JPEG_FORMATS):
        return None
    better, worse = side.rated.quality, opposite.rated.quality
    return f"quality {better} vs. {worse}" if better - worse >= DUPLICATES.quality_step else None


def _is_older(side: _Side, opposite: _Side) -> str | None:
    return "the older one" if age(side.photo) < age(opposite.photo) else None


# In order; each takes a photo and the other, and returns in words why the first is closer to the original.
EVIDENCE = (
    _shows_more,
    _is_not_framed,
    _shows_more_detail,
    _is_coloured,
    _has_date,
    _is_of_a_camera,
    _is_lossless,
    _is_less_compressed,
    _is_older,
)
