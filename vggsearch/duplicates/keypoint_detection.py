"""Detect the keypoints of photos in threads, also of those that are needed next."""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vggsearch.defaults import KEYPOINTS
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.keypoint_memory import KeypointMemory
from vggsearch.errors import ImageError
from vggsearch.matching.keypoints import Keypoints, keypoints_of
from vggsearch.photos.decoder_pool import Decoders, default_workers

log = logging.getLogger(__name__)


class KeypointDetector:
    """Detects the keypoints of photos, by row of `photos`, which `decoders` decode, and keeps them.

    Those that do not fit into memory are kept in `directory`. A photo has none, None, if it cannot be read or is no
    longer the one that was indexed.
    """

    def __init__(self, directory: Path, photos: Collection, decoders: Decoders) -> None:
        self._photos, self._decoders = photos, decoders
        self._known = KeypointMemory(directory)
        self._threads = ThreadPoolExecutor(default_workers(), thread_name_prefix="keypoints")
        self._expected: dict[int, Future[Keypoints | None]] = {}

    def expect(self, rows: Iterable[int]) -> None:
        """Begin to detect the keypoints of rows that are needed soon: few, since they are in memory."""
        for row in rows:
            if row not in self._expected and row not in self._known:
                self._expected[row] = self._threads.submit(self._detect, row)

    def keypoints(self, rows: Sequence[int]) -> list[Keypoints | None]:
        """Return the keypoints of rows."""
        self.expect(rows)
        for row in [row for row, each in self._expected.items() if row in rows or each.done()]:
            self._known[row] = self._expected.pop(row).result()
        found = [self._known[row] for row in rows]
        self._known.forget()
        return found

    def _detect(self, row: int) -> Keypoints | None:
        if not self._photos.is_current(row):
            return None
        try:
            return keypoints_of(self._decoders.grey(self._photos.source(row), KEYPOINTS.pixels))
        except ImageError as error:
            log.debug("%s is not compared: %s", self._photos.path(row), error.reason)
            return None
