"""The keypoints of photos that were compared: the latest in memory, the others in a temporary file."""

import logging
import tempfile
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vggsearch.defaults import DUPLICATES
from vggsearch.matching.keypoints import Keypoints

log = logging.getLogger(__name__)

DESCRIPTOR, POINT, SHAPE = 128, 8, 8  # bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file the keypoints of a photo are, and how many, of a picture of `width` x `height` pixels."""

    offset: int
    count: int
    width: int
    height: int

    @property
    def bytes(self) -> int:
        """The number of bytes in the file."""
        return self.count * (DESCRIPTOR + POINT + SHAPE) + self.width * self.height


class KeypointMemory:
    """Keeps keypoints by row, None for a photo that has none: detecting them takes most of a comparison.

    Those of DUPLICATES.remembered photos are in memory, those of DUPLICATES.spilled others in a file without a name
    in the folder of the index, which ends with this object. If that folder cannot be written, or the disk is full,
    they are forgotten. For one thread.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._latest: OrderedDict[int, Keypoints | None] = OrderedDict()
        self._places: dict[int, Place] = {}
        self._file: BinaryIO | None = None
        self._end = 0
        self._has_failed = False

    def __contains__(self, row: int) -> bool:
        """Return whether the keypoints of a row are known; they are then in memory until `forget`."""
        if row not in self._latest and row in self._places:
            self._load(row)
        return row in self._latest

    def __setitem__(self, row: int, keypoints: Keypoints | None) -> None:
        """Keep the keypoints of a row."""
        self._latest[row] = keypoints

    def __getitem__(self, row: int) -> Keypoints | None:
        """Return the keypoints of a row that is in memory. Raises KeyError."""
        self._latest.move_to_end(row)
        return self._latest[row]

    def forget(self) -> None:
        """Move what was not used lately from memory to the file."""
        while len(self._latest) > DUPLICATES.remembered:
            row, keypoints = self._latest.popitem(last=False)
            if keypoints is not None and row not in self._places and len(self._places) < DUPLICATES.spilled:
                self._store(row, keypoints)

    def _store(self, row: int, keypoints: Keypoints) -> None:
        if self._has_failed:
            return
        try:
            file = self._opened()
            file.seek(self._end)
            for values in (keypoints.points, keypoints.shapes, keypoints.descriptors, keypoints.picture):
                file.write(values.tobytes())
            file.flush()
        except OSError as error:
            log.debug("keypoints are not kept in a file: %s", error)
            self._has_failed = True
            return
        place = Place(self._end, len(keypoints.points), keypoints.width, keypoints.height)
        self._places[row] = place
        self._end += place.bytes

    def _load(self, row: int) -> None:
        place = self._places[row]
        try:
            file = self._opened()
            file.seek(place.offset)
            data = np.frombuffer(file.read(place.bytes), np.uint8)
        except OSError as error:
            log.debug("keypoints are detected again: %s", error)
            del self._places[row]
            return
        ends = np.cumsum(place.count * np.array([POINT, SHAPE, DESCRIPTOR]))
        points, shapes, descriptors, picture = np.split(data, ends)
        self._latest[row] = Keypoints(
            points.view(np.float32).reshape(-1, 2),
            shapes.view(np.float32).reshape(-1, 2),
            descriptors.reshape(-1, DESCRIPTOR),
            place.width,
            place.height,
            picture.reshape(place.height, place.width),
        )

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - it lives as long as this object
            weakref.finalize(self, self._file.close)
        return self._file
