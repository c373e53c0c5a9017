"""Keypoints that are detected in threads, ahead of when they are needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.keypoint_detection import KeypointDetector
from vggsearch.errors import ImageError
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.photos.resize import small_grey

CHANGED, BROKEN = 3, 4


class Photos:
    """Five photos, of which one has changed and one cannot be read; counts how often each is decoded."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def is_current(self, row: int) -> bool:
        return row != CHANGED

    def source(self, row: int) -> int:
        return row

    def path(self, row: int) -> str:
        return f"{row}.jpg"

    def grey(self, row: int, longer: int) -> NDArray[np.uint8]:
        self.decoded.append(row)
        if row == BROKEN:
            raise ImageError("cut off", "unreadable")
        photo = getattr(data, "chelsea")()  # noqa: B009 - scikit-image has no types
        return small_grey(Image.fromarray(np.roll(photo, 40 * row, axis=1)), longer)


def detector(tmp_path: Path, photos: Photos) -> KeypointDetector:
    return KeypointDetector(tmp_path, cast(Collection, photos), cast(Decoders, photos))


def test_each_photo_is_decoded_once_however_it_is_expected(tmp_path: Path) -> None:
    photos = Photos()
    detecting = detector(tmp_path, photos)
    detecting.expect([2, 1])
    detecting.expect([1, 0])
    first = detecting.keypoints([0, 1])
    again = detecting.keypoints([1, 2, 0])
    assert sorted(photos.decoded) == [0, 1, 2]
    assert again[0] is first[1]
    assert again[2] is first[0]
    assert all(each is not None and len(each.points) for each in again)


def test_a_photo_that_changed_or_cannot_be_read_has_no_keypoints(tmp_path: Path) -> None:
    photos = Photos()
    found = detector(tmp_path, photos).keypoints([BROKEN, CHANGED, 0])
    assert [each is None for each in found] == [True, True, False]
    assert CHANGED not in photos.decoded


def test_what_was_expected_and_not_needed_is_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.duplicates.keypoint_memory.DUPLICATES", SimpleNamespace(remembered=1, spilled=9))
    photos = Photos()
    detecting = detector(tmp_path, photos)
    detecting.expect([0, 1])
    detecting._expected[1].result()
    detecting.keypoints([2])
    assert len(detecting._known._latest) == 1
    assert not detecting._expected.keys() - {0}
    assert detecting.keypoints([1])[0] is not None
    assert photos.decoded.count(1) == 1
