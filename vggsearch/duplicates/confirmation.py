"""Confirm pairs of photos by keypoints and the pixels where they match. Results are stored by content."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
from PIL import Image

from vggsearch.defaults import DUPLICATES, KEYPOINTS
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.families import Families
from vggsearch.duplicates.keypoint_memory import KeypointMemory
from vggsearch.errors import ImageError, IndexDamaged, IndexNotWritable
from vggsearch.knn.keypoint_votes import CodedKeypoints
from vggsearch.matching.alignment import Alignment, inverted
from vggsearch.matching.keypoint_codes import code_keypoints
from vggsearch.matching.keypoints import Keypoints, detect_keypoints
from vggsearch.matching.pixels import align_copy
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.keypoint_codes import KEYPOINT, Codes, read_keypoint_codes, write_keypoint_codes
from vggsearch.store.keypoint_matches import Key, KeypointMatch, read_keypoint_matches, write_keypoint_matches
from vggsearch.system.blas import single_threaded_blas

log = logging.getLogger(__name__)

DETECTED_BY = f"keypoints 7, {astuple(KEYPOINTS)}"  # a change of the algorithm needs another number
MATCHED_BY = f"{DETECTED_BY}, pixels 15, families 1"  # the same
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
        self._keypoints = KeypointMemory(directory)
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
        total = sum(map(len, todo.values())) if total is None else total
        with single_threaded_blas(), ThreadPoolExecutor() as threads:
            for hub, others in todo.items():
                monitor.check()
                self._match_family(hub, others, threads)
                done += len(others)
                monitor.show(stage, done, total, "pairs")
                if time.monotonic() - self._saved_at >= DUPLICATES.saved_seconds:
                    self.save()

    def keypoints(self, rows: Sequence[int]) -> list[Keypoints | None]:
        """Return the keypoints of rows, None for one that cannot be read or has changed."""
        with ThreadPoolExecutor() as threads:
            return self._keypoints_of(rows, threads)

    def coded(self, rows: Sequence[int], monitor: Monitor = SILENT) -> list[CodedKeypoints | None]:
        """Return the coded keypoints of rows, None for one that cannot be read or has changed. Raises Stopped.

        Those of photos that were in no earlier search are detected. All are then stored, also when stopped.
        """
        known = self._read_codes()
        missing = [row for row in rows if self._key(row) not in known]
        try:
            with single_threaded_blas(), ThreadPoolExecutor() as threads:
                for start in range(0, len(missing), DUPLICATES.photos_at_once):
                    monitor.check()
                    some = missing[start : start + DUPLICATES.photos_at_once]
                    for row, keypoints in zip(some, self._keypoints_of(some, threads), strict=True):
                        if keypoints is not None:
                            known[self._key(row)] = _packed(code_keypoints(keypoints))
                    monitor.show("finding keypoints", start + len(some), len(missing))
        finally:
            if missing:
                self._write_codes({key: known[key] for key in map(self._key, rows) if key in known})
        return [_unpacked(known[key]) if key in known else None for key in map(self._key, rows)]

    def have_same_pixels(self, pair: Pair) -> bool:
        """Return whether two files show the same, see photos.pixel_hash. False if they were not compared."""
        keys = [(self._key(first), self._key(second)) for first, second in (pair, pair[::-1])]
        key = next((key for key in keys if key in self._matches), None)
        if key is None:
            return False
        match = self._matches[key]
        if match.same_pixels is None:
            one, other = (self._pixel_hash(row) for row in pair)
            if one is None or other is None:
                return False
            match = replace(match, same_pixels=one == other)
            self._matches[key], self._is_saved = match, False
        return bool(match.same_pixels)

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
        if row not in self._pixel_hashes:
            try:
                self._pixel_hashes[row] = self._decoders.pixel_hash(self._photos.source(row))
            except ImageError:
                self._pixel_hashes[row] = None
        return self._pixel_hashes[row]

    def _is_known(self, first: int, second: int) -> bool:
        """Return whether two photos were compared; if so, other results may follow from that."""
        result = self.result((first, second))
        if result is not None and result[1] is not None and result[1].agreement:
            self._families.add(first, second, was_compared=False)
        return result is not None

    def _match_family(self, hub: int, others: Sequence[int], threads: ThreadPoolExecutor) -> None:
        """Compare a photo with others; first those at the centre of a family, from which the rest may follow.

        Of each family, few are compared at once, since others may follow from these.
        """
        rest, of_each = self._not_following(hub, others), 1
        links = {link for other in rest for link in self._families.links(hub, other)}
        for centre, members in self._by_hub([link for link in sorted(links) if self.result(link) is None]).items():
            self._match(centre, members, threads)
        while rest := self._not_following(hub, rest):
            some = self._some_of_each_family(rest, of_each)
            self._match(hub, some, threads)
            rest = [other for other in rest if other not in some]  # a photo that cannot be read has no result
            of_each *= 2

    def _by_hub(self, pairs: Sequence[Pair]) -> dict[int, list[int]]:
        """Group the pairs by the row that occurs in more of them, so that its keypoints are mirrored only once.

        Of two that occur in as many, it is that of the larger file, and larger files come first: more follows from
        a photo that is whole and sharp.
        """
        count = Counter(row for pair in pairs for row in pair)
        unknown = [row for row in count if row not in self._bytes]
        self._bytes |= {row: photo.bytes for row, photo in self._photos.photos(unknown).items()}
        by_hub: dict[int, list[int]] = defaultdict(list)
        for pair in pairs:
            hub, other = sorted(pair, key=lambda row: (-count[row], -self._bytes[row], row))
            by_hub[hub].append(other)
        return dict(sorted(by_hub.items(), key=lambda each: (-self._bytes[each[0]], each[0])))

    def _some_of_each_family(self, rows: Sequence[int], of_each: int) -> list[int]:
        """Return the first `of_each` rows of each family."""
        seen, some = Counter[int](), list[int]()
        for row in rows:
            centre = self._families.centre(row)
            seen[centre] += 1
            if seen[centre] <= of_each:
                some.append(row)
        return some

    def _not_following(self, hub: int, others: Sequence[int]) -> list[int]:
        """Keep what follows for a photo and others, and return the others that are still to be compared."""
        rest = []
        for other in others:
            if self.result((hub, other)) is None:
                alignment = self._families.follows(hub, other)
                if alignment is None:
                    rest.append(other)
                else:
                    self._keep(hub, other, alignment, was_compared=False)
        return rest

    def _keep(self, query: int, photo: int, alignment: Alignment | None, *, was_compared: bool) -> None:
        self._matches[self._key(query), self._key(photo)] = _as_match(alignment)
        self._is_saved = False
        if alignment is not None and alignment.agreement:
            self._families.add(query, photo, was_compared=was_compared)

    def _match(self, hub: int, others: Sequence[int], threads: ThreadPoolExecutor) -> None:
        """Compare the photo `hub`, as it is and mirrored, with each of the others."""
        if not others:
            return
        query = self._keypoints_of([hub], threads)[0]
        if query is None:
            return
        for start in range(0, len(others), DUPLICATES.photos_at_once):
            some = others[start : start + DUPLICATES.photos_at_once]
            photos = self._keypoints_of(some, threads)
            readable = [(other, photo) for other, photo in zip(some, photos, strict=True) if photo is not None]
            for row, each in ((hub, query), *readable):
                self._families.see(row, each.sharpness)
            alignments = threads.map(lambda each: align_copy(query, each[1]), readable)
            for (other, _), alignment in zip(readable, alignments, strict=True):
                self._keep(hub, other, alignment, was_compared=True)

    def _keypoints_of(self, rows: Sequence[int], threads: ThreadPoolExecutor) -> list[Keypoints | None]:
        missing = [row for row in rows if row not in self._keypoints]
        for row, keypoints in zip(missing, threads.map(self._detect, missing), strict=True):
            self._keypoints[row] = keypoints
        found = [self._keypoints[row] for row in rows]
        self._keypoints.forget()
        return found

    def _detect(self, row: int) -> Keypoints | None:
        image = self._decode(row) if self._photos.is_current(row) else None
        return detect_keypoints(image) if image is not None else None

    def _decode(self, row: int) -> Image.Image | None:
        try:
            return self._decoders.picture(self._photos.source(row), KEYPOINTS.pixels, of_longer=True)
        except ImageError as error:
            log.debug("%s is not compared: %s", self._photos.path(row), error.reason)
            return None

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
