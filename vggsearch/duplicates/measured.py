"""What was measured of photos to tell which is the original. It is stored by content, in the index."""

import logging
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np

from vggsearch.defaults import COLOUR, DETAIL, SURROUNDINGS
from vggsearch.errors import IndexDamaged, IndexNotWritable
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.detail import Detail
from vggsearch.matching.surroundings import Around
from vggsearch.photos.upright import Box
from vggsearch.store.measurements import Numbers, read_measurements, write_measurements

log = logging.getLogger(__name__)

# A change of matching.surroundings, common_part, detail or colour, or of what is stored, needs another number.
MEASURED_BY = f"originals 3, {astuple(SURROUNDINGS)}, {astuple(DETAIL)}, {astuple(COLOUR)}"
AROUND = tuple(Around)
CORNERS = 8  # numbers
FLAGS = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Colours:
    """Whether a photo is grey, and how much colour it has, see matching.colour."""

    is_grey: bool
    colour: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What two photos show where one lies on the other.

    `first` is what the first photo shows around the second, `second` the reverse. `is_part` says that one was
    cropped to fit among other pictures, see surroundings.show_others, and `are_same` that the two cover each other
    exactly, with the same scene at all edges.
    """

    first: Around
    second: Around
    is_part: bool = False
    are_same: bool = False

    def turned(self) -> "Seen":
        """Return the same for the photos in the other order."""
        return replace(self, first=self.second, second=self.first)


class Measured:
    """Measurements by the SHA-256 of photos. Without a `directory`, none are stored."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory, self._is_saved = directory, True
        self._stored = self._read()
        self._used: dict[str, Numbers] = {}

    def colours(self, sha256: str) -> Colours | None:
        """Return the colours of a photo, None if they are not known."""
        numbers = self._get(sha256)
        if numbers is None or len(numbers) != 2 or numbers[0] not in FLAGS:
            return None
        return Colours(bool(numbers[0]), numbers[1])

    def add_colours(self, sha256: str, colours: Colours) -> None:
        """Keep the colours of a photo."""
        self._add(sha256, (float(colours.is_grey), colours.colour))

    def detail(self, sha256: str, part: Box) -> Detail | None:
        """Return the detail of a part of a photo, None if it is not known."""
        numbers = self._get(f"{sha256} detail {part}")
        return None if numbers is None or len(numbers) != DETAIL.rings else Detail(np.array(numbers))

    def add_detail(self, sha256: str, part: Box, detail: Detail) -> None:
        """Keep the detail of a part of a photo."""
        self._add(f"{sha256} detail {part}", tuple(detail.energy.tolist()))

    def has_grid(self, sha256: str, part: Box) -> bool | None:
        """Return whether a part of a photo was once in a JPEG, None if that is not known."""
        numbers = self._get(f"{sha256} grid {part}")
        return bool(numbers[0]) if numbers is not None and len(numbers) == 1 and numbers[0] in FLAGS else None

    def add_grid(self, sha256: str, part: Box, *, has_grid: bool) -> None:
        """Keep whether a part of a photo was once in a JPEG."""
        self._add(f"{sha256} grid {part}", (float(has_grid),))

    def seen(self, first: str, second: str, position: Alignment) -> Seen | None:
        """Return what two photos show, None if it is not known for this position of the second in the first."""
        numbers = self._get(f"{first} {second}")
        if numbers is None or numbers[:CORNERS] != _flat(position) or len(numbers) != CORNERS + 4:
            return None
        *shown, is_part, are_same = numbers[CORNERS:]
        if not all(each in range(len(AROUND)) for each in shown) or not {is_part, are_same} <= set(FLAGS):
            return None
        one, other = (AROUND[int(each)] for each in shown)
        return Seen(one, other, bool(is_part), bool(are_same))

    def add_seen(self, first: str, second: str, position: Alignment, seen: Seen) -> None:
        """Keep what two photos show, of which the second has this position in the first."""
        shown = (AROUND.index(seen.first), AROUND.index(seen.second), seen.is_part, seen.are_same)
        self._add(f"{first} {second}", (*_flat(position), *map(float, shown)))

    def save(self, *, are_all: bool) -> None:
        """Write what is new into the index, or log a warning if it cannot be written.

        If `are_all` were asked for that are of use, what was not is forgotten.
        """
        if self._is_saved or self._directory is None:
            return
        kept = self._used if are_all else self._stored | self._used
        try:
            write_measurements(self._directory, dict(sorted(kept.items())), MEASURED_BY)
            self._is_saved = True
        except IndexNotWritable as error:
            log.warning("%s What was seen of photos was not stored.", error)

    def _get(self, key: str) -> Numbers | None:
        numbers = self._used.get(key, self._stored.get(key))
        if numbers is not None:
            self._used[key] = numbers
        return numbers

    def _add(self, key: str, numbers: Numbers) -> None:
        self._used[key], self._is_saved = numbers, False

    def _read(self) -> dict[str, Numbers]:
        if self._directory is None:
            return {}
        try:
            return read_measurements(self._directory, MEASURED_BY)
        except IndexDamaged as error:
            log.warning("%s", error)
            self._is_saved = False
            return {}


def _flat(position: Alignment) -> Numbers:
    return tuple(coordinate for corner in position.corners for coordinate in corner)
