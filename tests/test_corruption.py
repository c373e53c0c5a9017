"""Every byte of an index: whatever is flipped or cut off is told by verify."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FakeEngine, picture, save_photo
from tests.make_golden_index import SMALL_SPEC
from vggsearch.duplicates.calibration import LabelledPairs
from vggsearch.duplicates.calibration_pairs import (
    CalibrationPairs,
    read_calibration_pairs,
    write_calibration_pairs,
)
from vggsearch.errors import IndexDamaged, VggsearchError
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.store.compared import check_compared, write_compared
from vggsearch.store.contents import CACHES, COMPARED, PAIRS
from vggsearch.store.edges import EdgeFacts, StoredEdges, check_edges, write_edges
from vggsearch.store.keypoint_codes import KEYPOINT, read_keypoint_codes, write_keypoint_codes
from vggsearch.store.keypoint_matches import KeypointMatch, read_keypoint_matches, write_keypoint_matches
from vggsearch.store.measurements import read_measurements, write_measurements
from vggsearch.store.stamps import read_stamps
from vggsearch.store.store import Store

POSITIONS = int(os.environ.get("FLIPS", "600"))  # over all files; docs/reliability.md has figures for more


@dataclass(frozen=True)
class Content:
    """All that an index answers."""

    rows: list[dict[str, object]]
    skipped: list[object]
    root: Path | None
    matches: tuple[object, ...]


def content(directory: Path) -> Content:
    with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        store = Store.open(index.directory)
        rows = [
            row
            for part in store.manifest.parts
            for row in store.read_part(part).take(store.live_rows(part)).to_pylist()
        ]
        return Content(rows, list(index.skipped()), index.root, index.query(picture(2), count=100).matches)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small index with three parts, dead rows, skipped files, a search side and files of dups."""
    folder = tmp_path_factory.mktemp("corruption")
    photos = folder / "photos"
    (photos).mkdir()
    for seed in range(3):
        (photos / f"broken{seed}.jpg").write_bytes(b"\xff\xd8\xff")
    Store.create(folder / "index", SMALL_SPEC)
    with ImageIndex.open(folder / "index", engine=FakeEngine(SMALL_SPEC.dim)) as index:
        for number in range(3):
            for seed in range(number * 4, number * 4 + 4):
                save_photo(photos / f"{seed}.jpg", seed, size=(64, 48))
            (photos / f"{number * 4 - 1}.jpg").unlink(missing_ok=True)
            index.update(photos)
    add_caches(folder / "index")
    return folder / "index"


def add_caches(directory: Path) -> None:
    """Write what dups writes, so that verify has something to read."""
    write_keypoint_matches(directory, {("a" * 64, "b" * 64): KeypointMatch(0.5, 9)}, "this")
    write_keypoint_codes(directory, {"a" * 64: np.ones(3, KEYPOINT), "b" * 64: np.ones(0, KEYPOINT)}, "that")
    write_measurements(directory, {"a" * 64: (0.0, 7.5), "a" * 64 + " " + "b" * 64: (0.25,) * 12}, "whose")
    pairs = LabelledPairs((0.5,), (3,))
    write_calibration_pairs(directory, CalibrationPairs(pairs, pairs), "these")
    write_compared(directory, "those", np.arange(10).astype(np.uint64))
    pair, similarity = np.array([0], np.int32), np.array([0.5], np.float32)
    for name in PAIRS:
        write_edges(directory, StoredEdges(EdgeFacts("those", 10, 5, 0.1), pair, pair + 1, similarity), name)


def files_of(directory: Path) -> list[Path]:
    """Return the files that verify reads: all but the lock, which is empty."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def is_told(directory: Path) -> bool:
    try:
        return not verify(directory).is_whole
    except VggsearchError:
        return True  # a newer format, for one


def saved_time(directory: Path) -> list[object]:
    """Return the values in the files that only save time, none where the file is damaged."""
    reads: list[Callable[[], object]] = [
        lambda: read_stamps(directory),
        lambda: read_keypoint_matches(directory, "this"),
        lambda: {key: codes.tobytes() for key, codes in read_keypoint_codes(directory, "that").items()},
        lambda: read_measurements(directory, "whose"),
        lambda: read_calibration_pairs(directory, "these"),
        lambda: check_compared(directory / COMPARED)[1].tolist(),
        *(partial(checksum_of, directory / name) for name in PAIRS),
    ]
    values: list[object] = []
    for read in reads:
        with suppress(IndexDamaged):
            values.append(read())
    return values


def checksum_of(path: Path) -> str:
    return check_edges(path).checksum


def is_as_before(path: Path, directory: Path, saved: list[object]) -> bool:
    """Return whether a file has a hash of its values, and still those: Parquet ignores some bytes."""
    return path.name in CACHES and saved_time(directory) == saved


def flips(size: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield positions spread evenly over a file, both ends among them, each with a mask to flip it by."""
    for number, position in enumerate(np.linspace(0, size - 1, min(count, size)).astype(int)):
        yield int(position), (1 << number % 8) if number % 3 else 0xFF


@pytest.mark.parametrize("positions", [100, pytest.param(POSITIONS, marks=pytest.mark.slow)])
def test_a_flipped_byte_anywhere_is_told(whole: Path, tmp_path: Path, positions: int) -> None:
    directory = tmp_path / "index"
    shutil.copytree(whole, directory)
    assert verify(directory).findings == ()
    files = files_of(directory)
    assert {path.suffix for path in files} == {".json", ".parquet", ".faiss", ".npy"}
    tried, saved = 0, saved_time(directory)
    for path in files:
        data = path.read_bytes()
        for position, mask in flips(len(data), positions // len(files) + 1):
            changed = bytearray(data)
            changed[position] ^= mask
            path.write_bytes(changed)
            assert is_told(directory) or is_as_before(path, directory, saved), (path.name, position, mask)
            tried += 1
        path.write_bytes(data)
    assert tried >= positions * 5 // 6


def test_a_file_cut_short_or_missing_is_told(whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "index"
    shutil.copytree(whole, directory)
    for path in files_of(directory):
        data = path.read_bytes()
        for length in {0, 1, len(data) // 3, len(data) // 2, len(data) - 9, len(data) - 2}:
            path.write_bytes(data[:length])
            assert is_told(directory), (path.name, length)
        path.unlink()
        assert is_told(directory) == (path.name not in CACHES), path.name
        path.write_bytes(data + b"\0")
        assert is_told(directory), path.name
        path.write_bytes(data)
    assert not is_told(directory)


def test_whatever_byte_is_flipped_repair_leaves_a_whole_index_that_an_update_completes(
    whole: Path, tmp_path: Path
) -> None:
    expected = content(whole)
    assert len(expected.rows) == 10
    shutil.copytree(whole.parent / "photos", tmp_path / "photos")
    for number, name in enumerate(str(path.relative_to(whole)) for path in files_of(whole)):
        directory = tmp_path / f"index{number}"
        shutil.copytree(whole, directory)
        data = bytearray((directory / name).read_bytes())
        data[len(data) // 2] ^= 0x10
        (directory / name).write_bytes(data)
        if is_as_before(directory / name, directory, saved_time(whole)):
            continue
        assert is_told(directory), name
        assert verify(directory, repair=True).is_repaired
        assert verify(directory).findings == (), name
        with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
            index.update(tmp_path / "photos", moved=True)
        after = content(directory)
        assert sorted(after.rows, key=by_path) == sorted(expected.rows, key=by_path), name
        assert (after.skipped, after.matches) == (expected.skipped, expected.matches), name


def by_path(row: dict[str, object]) -> str:
    return str(row["path"])
