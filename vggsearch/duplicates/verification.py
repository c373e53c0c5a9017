"""Compare pairs of photos by keypoints, each once: what was found is kept by the bytes of the two."""

import hashlib
import logging
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

from PIL import Image

from vggsearch.defaults import DUPLICATES, KEYPOINTS
from vggsearch.errors import ImageError, IndexDamaged, IndexNotWritable
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.keypoints import Keypoints, align, detect_keypoints, single_threaded_blas
from vggsearch.photos.decode import decode, decoder_errors
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.keypoint_matches import Key, KeypointMatch, read_keypoint_matches, write_keypoint_matches

log = logging.getLogger(__name__)

MATCHED_BY = f"keypoints 4, {astuple(KEYPOINTS)}"  # what else is found asks for another number

Pair = tuple[int, int]


class KeypointMatcher:
    """What keypoints say of pairs of photos.

    `files` says where a row's photo is, `keys` the sha256 of its bytes. What was found is kept in `directory`.
    """

    def __init__(self, directory: Path, files: Callable[[int], Path], keys: Callable[[int], str]) -> None:
        self._directory, self._files, self._key = directory, files, keys
        self._known = self._read()
        self._keypoints: OrderedDict[int, Keypoints | None] = OrderedDict()

    def known(self, pair: Pair) -> tuple[Pair, Alignment | None] | None:
        """Return what was said of two rows: the rows as query and photo, and the alignment; None if never asked."""
        for first, second in (pair, pair[::-1]):
            check = self._known.get((self._key(first), self._key(second)))
            if check is not None:
                return (first, second), _alignment(check)
        return None

    def inliers(self, pair: Pair) -> int:
        """Return how many keypoints of two rows fit; -1 where they were not compared."""
        known = self.known(pair)
        if known is None:
            return -1
        return known[1].inliers if known[1] is not None else 0

    def match(
        self,
        pairs: Sequence[Pair],
        stage: str,
        monitor: Monitor = SILENT,
        *,
        before: int = 0,
        total: int | None = None,
    ) -> None:
        """Compare those pairs of rows that were not compared yet. Raises Stopped.

        `stage` names it in progress, where these pairs come after `before` others of `total`. Results are kept
        every minute, and when it is stopped. A pair with a photo that cannot be read counts as not aligned for now,
        and is compared again next time.
        """
        todo = _by_hub([pair for pair in pairs if self.known(pair) is None])
        saved, done = time.monotonic(), before
        total = sum(map(len, todo.values())) if total is None else total
        try:
            with single_threaded_blas(), ThreadPoolExecutor() as threads:
                for hub, others in todo.items():
                    monitor.check()
                    self._match(hub, others, threads)
                    done += len(others)
                    monitor.show(stage, done, total, "pairs")
                    if time.monotonic() - saved >= DUPLICATES.saved_seconds:
                        self.keep()
                        saved = time.monotonic()
        finally:
            if todo:
                self.keep()

    def are_same_picture(self, pair: Pair) -> bool:
        """Whether two photos that were compared have the same pixels, upright, every one of them."""
        keys = [(self._key(first), self._key(second)) for first, second in (pair, pair[::-1])]
        key = next((key for key in keys if key in self._known), None)
        if key is None:
            return False
        check = self._known[key]
        if check.same_pixels is None:
            one, other = (self._pixels(row) for row in pair)
            if one is None or other is None:
                return False
            check = replace(check, same_pixels=one == other)
            self._known[key] = check
        return bool(check.same_pixels)

    def keep(self) -> None:
        """Write what was found into the index; what cannot be written is said, and found anew next time."""
        try:
            write_keypoint_matches(self._directory, self._known, MATCHED_BY)
        except IndexNotWritable as error:
            log.warning("%s What was found is not kept.", error)

    def _pixels(self, row: int) -> bytes | None:
        """Return the hash of all pixels of a photo, None where it cannot be read."""
        try:
            with decoder_errors(), self._files(row).open("rb") as file:
                picture = decode(file, self._files(row).name).image
        except ImageError:
            return None
        return hashlib.sha256(str(picture.size).encode() + picture.tobytes()).digest()

    def _match(self, hub: int, others: Sequence[int], threads: ThreadPoolExecutor) -> None:
        """Check one photo, as it is and mirrored, against some."""
        query = self._photos([hub], threads)[0]
        if query is None:
            return
        photos = self._photos(others, threads)
        there = [(other, photo) for other, photo in zip(others, photos, strict=True) if photo is not None]
        found = threads.map(lambda each: align(query, each[1]), there)
        for (other, _), alignment in zip(there, found, strict=True):
            self._known[self._key(hub), self._key(other)] = _as_match(alignment)

    def _photos(self, rows: Sequence[int], threads: ThreadPoolExecutor) -> list[Keypoints | None]:
        missing = [row for row in rows if row not in self._keypoints]
        self._keypoints |= dict(zip(missing, threads.map(self._look_at, missing), strict=True))
        found = []
        for row in rows:
            self._keypoints.move_to_end(row)
            found.append(self._keypoints[row])
        while len(self._keypoints) > DUPLICATES.remembered:
            self._keypoints.popitem(last=False)
        return found

    def _look_at(self, row: int) -> Keypoints | None:
        picture = self._picture(row)
        return detect_keypoints(picture) if picture is not None else None

    def _picture(self, row: int) -> Image.Image | None:
        path = self._files(row)
        try:
            with decoder_errors(), path.open("rb") as file:
                return decode(file, path.name, at_least=KEYPOINTS.pixels).image
        except ImageError as error:
            log.debug("%s is not compared: %s", path, error.reason)
            return None

    def _read(self) -> dict[Key, KeypointMatch]:
        try:
            return read_keypoint_matches(self._directory, MATCHED_BY)
        except IndexDamaged as error:
            log.warning("%s", error)
            return {}


def _by_hub(pairs: Sequence[Pair]) -> dict[int, list[int]]:
    """Return the pairs by the row of the two that is in more of them, so that it is mirrored once."""
    count = Counter(row for pair in pairs for row in pair)
    found: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        hub, other = sorted(pair, key=lambda row: (-count[row], row))
        found[hub].append(other)
    return dict(sorted(found.items()))


def _as_match(alignment: Alignment | None) -> KeypointMatch:
    if alignment is None:
        return KeypointMatch()
    corners = tuple(number for corner in alignment.corners for number in corner)
    return KeypointMatch(
        alignment.score, alignment.inliers, alignment.mirrored, alignment.turned, alignment.scale, corners
    )


def _alignment(check: KeypointMatch) -> Alignment | None:
    if not check.score:
        return None
    corners = tuple(zip(check.corners[::2], check.corners[1::2], strict=True))
    return Alignment(check.score, check.inliers, check.mirrored, check.turned, check.scale, corners)
