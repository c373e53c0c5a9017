"""A calibration from few photos, for tests that are not about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from vggsearch.defaults import DUPLICATES


@contextmanager
def calibrated_with(photos: int) -> Iterator[None]:
    """Make edited copies of so many photos only: that takes most of the time of a search among few photos."""
    few = replace(DUPLICATES, copied_photos=photos)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("calibration_pairs", "find"):
            patch.setattr(f"vggsearch.duplicates.{name}.DUPLICATES", few)
        yield
