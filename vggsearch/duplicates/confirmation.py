"""Confirm pairs of photos by keypoints and the pixels where they match. Results are stored by content."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np

from vggsearch.defaults import DUPLICATES, KEYPOINTS
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.families import Families
from vggsearch.duplicates.keypoint_detection import KeypointDetector
from vggsearch.errors import ImageError, IndexDamaged, IndexNotWritable
from vggsearch.knn.keypoint_votes import CodedKeypoints
from vggsearch.matching.alignment import Alignment, inverted
from vggsearch.matching.keypoint_codes import code_keypoints
from vggsearch.matching.keypoints import Keypoints
from vggsearch.matching.pixels import align_copy
from vggsearch.matching.threads import single_threaded
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.keypoint_codes import KEYPOINT, Codes, read_keypoint_codes, write_keypoint_codes
from vggsearch.store.keypoint_matches import Key, KeypointMatch, read_keypoint_matches, write_keypoint_matches

log = logging.getLogger(__name__)

DETECTED_BY = f"keypoints 7, {astuple(KEYPOINTS)}"  # a change of the algorithm needs another number
MATCHED_BY = f"{DETECTED_BY}, pixels 20, families 1"  # the same
CODED_BY = f"{DETECTED_BY}, codes 1"  # the same

Pair = tuple[int, int]


class KeypointMatcher:
    """Matches the keypoints of pairs of photos, and keeps the results in the index `directory`.

    Pairs are pairs of rows of `photos`, which `decoders` decode.
    """

    def __init__(self, directory: Path, photos: Collection, decoders: Decoders) -> None:
        self._directory, self._photos, self._key, self._decoders = directory, photos, photos.key, decoders
        self._is_saved, self._saved_at = True, time.monotonic()
        self._matches = self._read()
        self._detector = KeypointDetector(directory, photos, decoders)
        # The other CPUs detect keypoints meanwhile; more threads that align mostly wait for the interpreter.
        self._threads = ThreadPoolExecutor(max(1, default_workers() // 2), thread_name_prefix="align")
        self._families = Families(self.position)
        self._pixel_hashes: dict[int, str | None] = {}
        self._bytes: dict[int, int] = {}

    def result(self, pair: Pair) -> tuple[Pair, Alignment | None] | None:
        """Return the result for two rows, None if they were not compared.

        The result is the rows, ordered as query and photo, and the alignment, None if they do not match.
        """
        for first, second in (pair, pair[::-1]):
            match = self._matches.get((self._key(first), self._key(second)))
            if match is not None:
                return (first, second), _alignment(match)
        return None

    def position(self, query: int, photo: int) -> Alignment | None:
        """Return where one photo lies in another, None if that is not known."""
        (first, _), alignment = self.result((query, photo)) or ((query, photo), None)
        return alignment if alignment is None or first == query else inverted(alignment)

    def inliers(self, pair: Pair) -> int:
        """Return the evidence that two rows are copies, 0 if they do not match, -1 if they were not compared."""
        result = self.result(pair)
        if result is None:
            return -1
        return result[1].evidence if result[1] is not None else 0

    def match(
        self,
        pairs: Sequence[Pair],
        stage: str,
        monitor: Monitor = SILENT,
        *,
        before: int = 0,
        total: int | None = None,
    ) -> None:
        """Compare the pairs of rows that were not compared yet. Raises Stopped.

        Progress is shown as `stage`, with `before` pairs already done of `total`. Results are stored every minute;
        `save` stores the last ones. A pair with a photo that cannot be read, or is no longer the one that was
        indexed, has no result, and is compared the next time.
        """
        todo, done = self._by_hub([pair for pair in pairs if not self._is_known(*pair)]), before
        total = len(todo) if total is None else total
        with single_threaded():
            for some, next_ones in pairwise(chain(self._apart(todo), [[]])):
                monitor.check()
                self._expect(some)
                self._expect(next_ones)
                self._match_families(some)
                done += len(some)
                monitor.show(stage, done, total, "pairs")
                if time.monotonic() - self._saved_at >= DUPLICATES.saved_seconds:
                    self.save()

    def keypoints(self, rows: Sequence[int]) -> list[Keypoints | None]:
        """Return the keypoints of rows, None for one that cannot be read or has changed."""
        return self._detector.keypoints(rows)

    def coded(self, rows: Sequence[int], monitor: Monitor = SILENT) -> list[CodedKeypoints | None]:
        """Return the coded keypoints of rows, None for one that cannot be read or has changed. Raises Stopped.

        Those of photos that were in no earlier search are detected. All are then stored, also when stopped.
        """
        known = self._read_codes()
        missing = [row for row in rows if self._key(row) not in known]
        try:
            with single_threaded():
                for start in range(0, len(missing), DUPLICATES.photos_at_once):
                    monitor.check()
                    end = start + DUPLICATES.photos_at_once
                    some = missing[start:end]
                    self._detector.expect(missing[start : end + DUPLICATES.photos_at_once])
                    for row, keypoints in zip(some, self._detector.keypoints(some), strict=True):
                        if keypoints is not None:
                            known[self._key(row)] = _packed(code_keypoints(keypoints))
                    monitor.show("finding keypoints", start + len(some), len(missing))
        finally:
            if missing:
                self._write_codes({key: known[key] for key in map(self._key, rows) if key in known})
        return [_unpacked(known[key]) if key in known else None for key in map(self._key, rows)]

    def compare_pixels(self, pairs: Sequence[Pair]) -> None:
        """Read the files of pairs for `have_same_pixels`, several at once."""
        todo = [pair for pair in pairs if (key := self._compared(pair)) and self._matches[key].same_pixels is None]
        rows = {*chain.from_iterable(todo)} - self._pixel_hashes.keys()
        with ThreadPoolExecutor(default_workers()) as threads:
            self._pixel_hashes |= zip(rows, threads.map(self._pixel_hash, rows), strict=True)

    def have_same_pixels(self, pair: Pair) -> bool:
        """Return whether two files show the same, see photos.pixel_hash. False if they were not compared."""
        key = self._compared(pair)
        if key is None:
            return False
        match = self._matches[key]
        if match.same_pixels is None:
            self.compare_pixels([pair])
            one, other = (self._pixel_hashes[row] for row in pair)
            if one is None or other is None:
                return False
            match = replace(match, same_pixels=one == other)
            self._matches[key], self._is_saved = match, False
        return bool(match.same_pixels)

    def _compared(self, pair: Pair) -> Key | None:
        """Return the key of the result for a pair, None if it was not compared."""
        keys = ((self._key(first), self._key(second)) for first, second in (pair, pair[::-1]))
        return next((key for key in keys if key in self._matches), None)

    def save(self) -> None:
        """Write all results into the index if there are new ones, or log a warning if it cannot be written."""
        self._saved_at = time.monotonic()
        if self._is_saved:
            return
        try:
            write_keypoint_matches(self._directory, self._matches, MATCHED_BY)
            self._is_saved = True
        except IndexNotWritable as error:
            log.warning("%s The results of comparing photos were not stored.", error)

    def _pixel_hash(self, row: int) -> str | None:
        """Return a hash of all that a photo shows, None if it cannot be read."""
        try:
            return self._decoders.pixel_hash(self._photos.source(row))
        except ImageError:
            return None

    def _is_known(self, first: int, second: int) -> bool:
        """Return whether two photos were compared; if so, other results may follow from that."""
        result = self.result((first, second))
        if result is not None and result[1] is not None and result[1].agreement:
            self._families.add(first, second, was_compared=False)
        return result is not None

    def _apart(self, pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
        """Split pairs of a hub and another row into lists to be compared at once: from none, others may follow.

        Of two hubs in one list, neither a row nor the centre of its family is the same. All pairs of a hub are in
        one list. Few photos are in a list, unless one hub has so many.
        """
        some, seen = list[Pair](), set[int]()
        for _, of_hub in groupby(pairs, itemgetter(0)):
            group = list(of_hub)
            rows = {each for row in chain.from_iterable(group) for each in (row, self._families.centre(row))}
            if some and (rows & seen or len(rows | seen) > DUPLICATES.photos_at_once):
                yield some
                some, seen = [], set()
            some += group
            seen |= rows
        if some:
            yield some

    def _match_families(self, pairs: Sequence[Pair]) -> None:
        """Compare hubs with others; first those at the centre of a family, from which the rest may follow.

        Of each family, few are compared at once, since others may follow from these.
        """
        rest, of_each = self._not_following(pairs), 1
        links = {link for pair in rest for link in self._families.links(*pair)}
        self._match(self._by_hub([link for link in sorted(links) if self.result(link) is None]))
        while rest := self._not_following(rest):
            some = self._some_of_each_family(rest, of_each)
            self._match(some)
            tried = set(some)  # a photo that cannot be read has no result
            rest = [pair for pair in rest if pair not in tried]
            of_each *= 2

    def _by_hub(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Sort pairs by the row that occurs in more of them, which comes first, as the one that others lie on.

        Of two that occur in as many, it is that of the larger file, and larger files come first: more follows from
        a photo that is whole and sharp.
        """
        count = Counter(chain.from_iterable(pairs))
        unknown = [row for row in count if row not in self._bytes]
        self._bytes |= {row: photo.bytes for row, photo in self._photos.photos(unknown).items()}

        def with_hub(first: int, second: int) -> Pair:
            hub = min(first, second, key=lambda row: (-count[row], -self._bytes[row], row))
            return (first, second) if hub == first else (second, first)

        return sorted((with_hub(*pair) for pair in pairs), key=lambda pair: (-self._bytes[pair[0]], pair[0]))

    def _some_of_each_family(self, pairs: Sequence[Pair], of_each: int) -> list[Pair]:
        """Return the first `of_each` pairs of each hub with each family."""
        seen, some = Counter[Pair](), list[Pair]()
        for hub, other in pairs:
            family = hub, self._families.centre(other)
            seen[family] += 1
            if seen[family] <= of_each:
                some.append((hub, other))
        return some

    def _not_following(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Keep what follows for pairs, and return those that are still to be compared."""
        rest = []
        for hub, other in pairs:
            if self.result((hub, other)) is None:
                alignment = self._families.follows(hub, other)
                if alignment is None:
                    rest.append((hub, other))
                else:
                    self._keep(hub, other, alignment, was_compared=False)
        return rest

    def _keep(self, query: int, photo: int, alignment: Alignment | None, *, was_compared: bool) -> None:
        self._matches[self._key(query), self._key(photo)] = _as_match(alignment)
        self._is_saved = False
        if alignment is not None and alignment.agreement:
            self._families.add(query, photo, was_compared=was_compared)

    def _match(self, pairs: Sequence[Pair]) -> None:
        """Compare the first photo of each pair, as it is and mirrored, with the second one."""
        for start in range(0, len(pairs), DUPLICATES.photos_at_once):
            some = pairs[start : start + DUPLICATES.photos_at_once]
            self._expect(some)
            self._expect(pairs[start + DUPLICATES.photos_at_once :])
            rows = list(dict.fromkeys(chain.from_iterable(some)))
            detected = zip(rows, self._detector.keypoints(rows), strict=True)
            found = {row: keypoints for row, keypoints in detected if keypoints is not None}
            for row, keypoints in found.items():
                self._families.see(row, keypoints.sharpness)
            readable = [pair for pair in some if found.keys() >= {*pair}]
            ones, others = ([found[pair[place]] for pair in readable] for place in (0, 1))
            alignments = self._threads.map(align_copy, ones, others)
            for pair, alignment in zip(readable, alignments, strict=True):
                self._keep(*pair, alignment, was_compared=True)

    def _expect(self, pairs: Sequence[Pair]) -> None:
        """Begin to detect the keypoints of the first pairs."""
        self._detector.expect(chain.from_iterable(pairs[: DUPLICATES.photos_at_once]))

    def _read_codes(self) -> dict[str, Codes]:
        try:
            return read_keypoint_codes(self._directory, CODED_BY)
        except IndexDamaged as error:
            log.warning("%s", error)
            return {}

    def _write_codes(self, codes: dict[str, Codes]) -> None:
        try:
            write_keypoint_codes(self._directory, codes, CODED_BY)
        except IndexNotWritable as error:
            log.warning("%s The keypoints of photos were not stored.", error)

    def _read(self) -> dict[Key, KeypointMatch]:
        try:
            return read_keypoint_matches(self._directory, MATCHED_BY)
        except IndexDamaged as error:
            log.warning("%s", error)
            self._is_saved = False
            return {}


def _packed(keypoints: CodedKeypoints) -> Codes:
    packed = np.empty(len(keypoints), KEYPOINT)
    packed["code"], packed["angle"], packed["size"] = keypoints.codes, keypoints.angles, keypoints.sizes
    return packed


def _unpacked(codes: Codes) -> CodedKeypoints:
    return CodedKeypoints(codes["code"], codes["angle"], codes["size"])


def _as_match(alignment: Alignment | None) -> KeypointMatch:
    if alignment is None:
        return KeypointMatch()
    corners = tuple(coordinate for corner in alignment.corners for coordinate in corner)
    return KeypointMatch(
        alignment.score,
        alignment.inliers,
        alignment.agreement,
        alignment.mirrored,
        alignment.turned,
        alignment.scale,
        corners,
    )


def _alignment(match: KeypointMatch) -> Alignment | None:
    if not match.score:
        return None
    corners = tuple(zip(match.corners[::2], match.corners[1::2], strict=True))
    return Alignment(
        match.score, match.inliers, match.mirrored, match.turned, match.scale, corners, match.agreement
    )
