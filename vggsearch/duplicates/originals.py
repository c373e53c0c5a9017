"""Which of two duplicates is the original, by what both show, and which photo contains another among others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image

from vggsearch.defaults import COLOUR, DETAIL, DUPLICATES, SURROUNDINGS
from vggsearch.duplicates.confirmation import KeypointMatcher
from vggsearch.duplicates.keep_policy import LOSSLESS, RatedPhoto, age, has_date
from vggsearch.duplicates.looking import WHOLE, Looker, Pair, Read
from vggsearch.duplicates.measured import Measured, Seen
from vggsearch.errors import ImageError
from vggsearch.matching.detail import Detail, detail_of, has_jpeg_grid
from vggsearch.matching.surroundings import Around, share_outside
from vggsearch.matching.threads import single_threaded
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.photos.upright import Box, OutsideError
from vggsearch.progress import Monitor

WEB_FORMATS = ("WEBP", "AVIF", "GIF")  # no camera writes them
JPEG_FORMATS = ("JPEG", "MPO")  # which record their quality
PART = 768  # pixels a side, at most, of the part of a photo at full size in which detail is looked for
STEP = 64  # pixels, a multiple of the blocks of a JPEG, to which parts are rounded: most pairs then share one
INEXACT = 4  # pixels by which a position may be wrong
FRAMES = (Around.FRAME, Around.DRAWN)
REMEMBERED = 8 * DUPLICATES.looked_at_once  # positions: those of all pairs that are judged at once
NEITHER = -1  # the row of no photo


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


class Originals:
    """Compares what photos show, to find the original among duplicates.

    `photos` are the rated photos by row. `read` reads them; it may raise ImageError. What was seen of them is kept
    in `measured`.
    """

    def __init__(
        self,
        photos: dict[int, RatedPhoto],
        matcher: KeypointMatcher,
        read: Read,
        measured: Measured | None = None,
    ) -> None:
        self._photos, self._matcher, self._read = photos, matcher, read
        self._measured = measured if measured is not None else Measured()
        self._position = lru_cache(REMEMBERED)(matcher.position)
        self._looker = Looker(photos, self._position, read, self._measured)
        self._beyond: set[Pair] = set()

    def compare(self, pairs: Iterable[Pair], monitor: Monitor) -> Evidence:
        """Compare pairs of rows. Raises Stopped. What was seen is stored, also when stopped."""
        todo, done, are_all = sorted(pairs), 0, False
        why: dict[Pair, str] = {}
        container: dict[Pair, int] = {}
        try:
            with single_threaded(), ThreadPoolExecutor(default_workers()) as threads:
                for some in _of_families(todo, DUPLICATES.looked_at_once):
                    seen = self._looker.look(some, threads, monitor)
                    found_of_all = threads.map(lambda pair, seen=seen: self._judge(pair, seen[pair]), some)
                    for pair, found in zip(some, found_of_all, strict=True):
                        if isinstance(found, int):
                            container[pair] = found
                        elif found is not None:
                            why[found[0]] = found[1]
                    done += len(some)
                    monitor.show("looking for originals", done, len(todo), "pairs")
            are_all = True
        finally:
            self._measured.save(are_all=are_all)
        contains = {*container, *self._of_containers(todo, set(container.values()))}
        why = {pair: words for pair, words in why.items() if not {pair, pair[::-1]} & contains}
        return Evidence(why, frozenset(contains), frozenset(self._beyond))

    def _of_containers(self, pairs: Iterable[Pair], containers: set[int]) -> Iterator[Pair]:
        """Yield the pairs of a photo that contains another one with a photo that takes only a part of it, too.

        Where a tile of a collage was cropped to fit, no seam is found at the edges of the whole photo.
        """
        for pair in pairs:
            for row, other in (pair, pair[::-1]):
                position = self._position(other, row) if row in containers else None
                if position is not None and share_outside(position) >= SURROUNDINGS.share_of_others:
                    yield pair

    def _judge(self, pair: Pair, seen: Seen) -> int | tuple[Pair, str] | None:
        """Return the photo that contains the other, else the better one first, and why; None if none is.

        NEITHER means that it was put among other things in both: what one shows around it, the other lacks.
        """
        sides = _Side(self, *pair, seen.first), _Side(self, *pair[::-1], seen.second)
        for side in sides:
            if side.shown is Around.OTHERS:
                return side.row
        if all(side.shown in FRAMES for side in sides) and any(side.is_mostly_around for side in sides):
            return NEITHER
        if seen.is_part:
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
        sha256 = self._photos[row].photo.sha256
        known = self._measured.detail(sha256, part)
        if known is not None:
            return known
        pixels = self._pixels(row, part)
        detail = detail_of(pixels) if pixels is not None else None
        if detail is not None:
            self._measured.add_detail(sha256, part, detail)
        return detail

    def has_jpeg_grid(self, row: int, part: Box) -> bool:
        """Return whether a part of a photo was once in a JPEG, False if it cannot be read."""
        sha256 = self._photos[row].photo.sha256
        known = self._measured.has_grid(sha256, part)
        if known is not None:
            return known
        pixels = self._pixels(row, part)
        has_grid = pixels is not None and has_jpeg_grid(pixels)
        if pixels is not None:
            self._measured.add_grid(sha256, part, has_grid=has_grid)
        return has_grid

    def _pixels(self, row: int, part: Box) -> Image.Image | None:
        try:
            return self._read(row, part)
        except (ImageError, OutsideError):
            return None


def _of_families(pairs: Sequence[Pair], least: int) -> Iterator[list[Pair]]:
    """Yield pairs, those of photos that other pairs connect together: `least` at once or, at the end, fewer."""
    of: dict[int, int] = {}

    def first(row: int) -> int:
        while of.get(row, row) != row:
            of[row] = row = of.get(of[row], of[row])
        return row

    for one, other in pairs:
        low, high = sorted((first(one), first(other)))
        of[high] = low
    families: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        families[first(pair[0])].append(pair)
    some: list[Pair] = []
    for family in families.values():
        some += family
        if len(some) >= least:
            yield some
            some = []
    if some:
        yield some


class _Side:
    """One photo of a pair: what it shows around the other, and how many of its pixels show what both show."""

    def __init__(self, originals: Originals, row: int, other: int, shown: Around) -> None:
        self.row, self.rated, self._originals = row, originals._photos[row], originals
        self.photo = self.rated.photo
        self.colours = originals._looker.colours(row)
        self.alignment = originals._position(other, row)
        self.shown = shown

    @property
    def goes_beyond(self) -> bool:
        """Whether this photo shows more of the scene than the other, also where that is unclear, if it was seen."""
        is_known = self.colours is not None and self.alignment is not None
        return is_known and self.shown in (Around.SCENE, Around.UNCLEAR)

    @property
    def is_mostly_around(self) -> bool:
        """Whether so much of this photo is around the other that it may be other pictures."""
        return self.alignment is not None and share_outside(self.alignment) >= SURROUNDINGS.share_of_others

    def size_of(self, opposite: "_Side") -> float:
        """Return how many pixels of this photo, across, show what one pixel of the other shows."""
        if self.alignment is None:
            return 1.0
        own, its = (each.photo.width * each.photo.height for each in (self, opposite))
        return float(self.alignment.scale * np.sqrt(own / its))

    def detail(self) -> Detail | None:
        """Return the detail in the part that tells, None if that is tiny or cannot be read."""
        part = self._telling_part()
        return self._originals.detail(self.row, part) if part is not None else None

    def has_jpeg_grid(self) -> bool:
        """Return whether that part was once in a JPEG, False if it is tiny or cannot be read."""
        part = self._telling_part()
        return part is not None and self._originals.has_jpeg_grid(self.row, part)

    def _telling_part(self) -> Box | None:
        """Return the middle of what both photos show, at the full size of this one; None if that is tiny."""
        size = np.array([self.photo.width, self.photo.height])
        corners = np.clip(WHOLE if self.alignment is None else self.alignment.corners, 0, 1) * size
        low, high = corners.min(axis=0), corners.max(axis=0)
        begin = np.ceil((np.maximum(low, (low + high - PART) / 2) - INEXACT) / STEP) * STEP
        end = np.floor((np.minimum(high, begin + PART) + INEXACT) / STEP) * STEP
        if (end - begin < DETAIL.least_side).any():
            return None
        left, top, width, height = np.concatenate([begin, end - begin]).astype(int).tolist()
        return left, top, width, height

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
    chosen_first = _holds_video(opposite, side) or _is_coloured(opposite, side)
    return chosen_first is None and _has_date(side, opposite) is not None


def _holds_video(side: _Side, opposite: _Side) -> str | None:
    if side.rated.holds_video and not opposite.rated.holds_video:
        return "it holds a video, the other does not"
    return None


def _is_coloured(side: _Side, opposite: _Side) -> str | None:
    own, its = side.colours, opposite.colours
    if own is None or its is None or own.is_grey or not its.is_grey:
        return None
    return "in colour, the other is not" if own.colour > max(COLOUR.least, COLOUR.times * its.colour) else None


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
    is_of_jpeg = lossless.has_jpeg_grid()
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
    _holds_video,
    _is_coloured,
    _has_date,
    _is_of_a_camera,
    _is_lossless,
    _is_less_compressed,
    _is_older,
)
