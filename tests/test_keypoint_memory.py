"""Keypoints that are kept for later comparisons."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.textures import scene
from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates import keypoint_memory
from vggsearch.duplicates.keypoint_memory import KeypointMemory
from vggsearch.matching.keypoints import Keypoints, detect_keypoints

PHOTOS = {row: detect_keypoints(scene(row, (160 + row, 120))) for row in range(4)}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep two photos in memory and one in the file."""
    monkeypatch.setattr(keypoint_memory, "DUPLICATES", replace(DUPLICATES, remembered=2, spilled=1))


def filled(directory: Path) -> KeypointMemory:
    memory = KeypointMemory(directory)
    for row, keypoints in PHOTOS.items():
        memory[row] = keypoints
    memory.forget()
    return memory


def are_equal(one: Keypoints, other: Keypoints | None) -> bool:
    assert other is not None
    arrays = (
        (one.points, other.points),
        (one.shapes, other.shapes),
        (one.descriptors, other.descriptors),
        (one.picture, other.picture),
    )
    is_equal = all(first.dtype == second.dtype and np.array_equal(first, second) for first, second in arrays)
    return is_equal and (one.width, one.height) == (other.width, other.height)


def test_keypoints_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    memory = filled(tmp_path)
    assert [row in memory for row in PHOTOS] == [True, False, True, True]  # the file has room for the first alone
    assert all(are_equal(PHOTOS[row], memory[row]) for row in (0, 2, 3))


def test_the_latest_used_stay_in_memory(tmp_path: Path) -> None:
    memory = KeypointMemory(tmp_path)
    memory[0], memory[1] = PHOTOS[0], None
    assert memory[0] is PHOTOS[0]
    memory[2] = PHOTOS[2]
    memory.forget()
    assert 1 not in memory
    assert memory[0] is PHOTOS[0]


def test_keypoints_are_forgotten_where_nothing_can_be_written(tmp_path: Path) -> None:
    memory = filled(tmp_path / "missing")
    assert [row in memory for row in PHOTOS] == [False, False, True, True]


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    memory = filled(tmp_path)
    assert 0 in memory
    del memory
    assert not list(tmp_path.iterdir())
