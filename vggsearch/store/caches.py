"""Files of an index that only save time. The manifest does not list them; each holds a checksum of its own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vggsearch.errors import IndexDamaged
from vggsearch.store.compared import check_compared
from vggsearch.store.contents import (
    CALIBRATION,
    COMPARED,
    KEYPOINT_CODES,
    KEYPOINT_MATCHES,
    ORIGINALS,
    PAIRS,
    STAMPS,
)
from vggsearch.store.edges import check_edges
from vggsearch.store.keypoint_codes import check_keypoint_codes
from vggsearch.store.keypoint_matches import check_keypoint_matches
from vggsearch.store.manifest import CHECKSUM, checksum
from vggsearch.store.measurements import check_measurements
from vggsearch.store.stamps import check_stamps
from vggsearch.system.reading import reading_from

MAKE_AGAIN = "Delete this file: the edited copies are then made and compared again."


def caches(directory: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Yield each such file that exists, and what raises IndexDamaged if a single bit of it has changed."""
    checks: dict[Path, Callable[[Path], object]] = {
        directory / STAMPS: check_stamps,
        directory / KEYPOINT_MATCHES: check_keypoint_matches,
        directory / KEYPOINT_CODES: check_keypoint_codes,
        directory / ORIGINALS: check_measurements,
        directory / CALIBRATION: read_calibration,
        directory / COMPARED: check_compared,
        **{directory / name: check_edges for name in PAIRS},
    }
    yield from ((path, check) for path, check in checks.items() if path.exists())


def read_calibration(path: Path) -> dict[str, Any]:
    """Return the content of calibration.json. Raises IndexDamaged and IndexNotReadable."""
    try:
        with reading_from(path, MAKE_AGAIN):
            values = json.loads(path.read_text("utf-8"))
        if values[CHECKSUM] != checksum(values):
            raise ValueError("wrong checksum")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", MAKE_AGAIN) from error
    return dict(values)
