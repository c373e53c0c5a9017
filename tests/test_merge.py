"""Slices of a photo folder, indexed one by one and merged, are the index of the folder."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine, picture, save_photo
from tests.make_golden_index import SMALL_SPEC
from vggsearch import merge
from vggsearch.cli import cli
from vggsearch.errors import (
    IndexDamaged,
    IndexExists,
    IndexNotWritable,
    OptionError,
    PhotosError,
    SpecMismatch,
    VggsearchError,
)
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.photos.slices import Slice
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.decisions import decisions_of
from vggsearch.store.store import Store

COUNT = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(10):
        save_photo(tmp_path / "photos" / ("a" if seed % 2 else "b") / f"{seed}.jpg", seed, size=(64, 48))
    (tmp_path / "photos" / "b" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def indexed(folder: Path, name: str, part: str | None = None, **options: Any) -> Path:
    directory = folder.parent / name
    if not directory.exists():
        Store.create(directory, SMALL_SPEC)
    with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        index.update(folder, slice=part, **options)
    return directory


@pytest.fixture
def slices(folder: Path) -> list[Path]:
    return [indexed(folder, f"slice{number}", f"{number}/{COUNT}") for number in range(1, COUNT + 1)]


def content(directory: Path) -> tuple[Any, ...]:
    """Everything that an index says, and in which order."""
    with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        rows = index.to_arrow().to_pylist()
        matches = index.query(picture(2), count=5).matches
        groups = [[member.photo.path for member in group.members] for group in index.duplicates().groups]
        return rows, index.embeddings().tobytes(), sorted(index.skipped()), matches, groups, index.root


def files_of(*directories: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for each in directories for path in each.rglob("*") if path.is_file()}


def test_merged_slices_equal_one_run_row_for_row(folder: Path, slices: list[Path], tmp_path: Path) -> None:
    before = files_of(*slices)
    report = merge(slices, tmp_path / "merged")
    assert (report.indexes, report.photos, report.skipped) == (COUNT, 10, 1)
    assert content(tmp_path / "merged") == content(indexed(folder, "whole"))
    assert verify(tmp_path / "merged").findings == ()
    with ImageIndex.open(tmp_path / "merged", engine=FakeEngine(SMALL_SPEC.dim)) as index:
        again = index.update()
    assert (again.indexed, again.unchanged, again.gone) == (0, 10, 0)
    assert files_of(*slices) == before


def test_the_merged_index_shares_the_files_of_the_slices_and_outlives_them(
    folder: Path, slices: list[Path], tmp_path: Path
) -> None:
    merge(slices, tmp_path / "merged")
    parts = sorted((tmp_path / "merged" / "embeddings").iterdir())
    assert [part.stat().st_nlink for part in parts] == [2] * COUNT
    expected = content(tmp_path / "merged")
    (folder / "b" / "0.jpg").unlink()
    indexed(folder, "slice1", compact=True)  # rewrites its parts, and removes the old ones
    save_photo(folder / "b" / "0.jpg", 0, size=(64, 48))
    assert content(tmp_path / "merged") == expected
    assert verify(tmp_path / "merged").findings == ()


def test_files_are_copied_to_another_disk(
    slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    merge(slices, tmp_path / "merged")
    assert verify(tmp_path / "merged").findings == ()
    assert {part.stat().st_nlink for part in (tmp_path / "merged" / "embeddings").iterdir()} == {1}
    [part] = (slices[1] / "embeddings").iterdir()
    columns = pq.read_metadata(part).row_group(0).to_dict()["columns"]
    [embeddings] = [each for each in columns if each["path_in_schema"].startswith("embedding.")]
    data = bytearray(part.read_bytes())
    data[embeddings["data_page_offset"] + embeddings["total_compressed_size"] - 9] ^= 1
    part.write_bytes(data)
    with pytest.raises(IndexDamaged, match="sha256"):
        merge(slices, tmp_path / "another")


def test_rows_that_are_gone_local_features_and_decisions_are_merged_as_they_are(
    folder: Path, tmp_path: Path
) -> None:
    for gone in ((), ("b/8.jpg", "a/1.jpg")):
        for path in gone:
            (folder / path).unlink()
        for name, part in (("one", "1/2"), ("two", "2/2")):
            with ImageIndex.for_photos(folder, tmp_path / name, engine=FakeEngine()) as index:
                index.update(slice=part, folder=folder, local_features=True)
    with ImageIndex.open(tmp_path / "one", engine=FakeEngine()) as index:
        index.decide("different", [index.paths()[0], index.paths()[1]])
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    with ImageIndex.open(tmp_path / "merged", engine=FakeEngine()) as index:
        assert sorted(index.paths()) == sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")
        )
        assert index.query(picture(2), containing=True).matches
        assert len(decisions_of(index.directory).made) == 1
    assert verify(tmp_path / "merged").findings == ()


@pytest.mark.parametrize("files", [0, 1, 7, 64, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_slices_hold_every_file_once_in_order_and_are_equally_large(files: int, count: int) -> None:
    unreadable = Skipped("z", "Permission denied", "unreadable")
    found: list[PhotoFile | Skipped] = [*(PhotoFile(f"{number:03}", 1, 1) for number in range(files)), unreadable]
    parts = [list(Slice(number, count).of(found)) for number in range(1, count + 1)]
    assert [file for part in parts for file in part if isinstance(file, PhotoFile)] == found[:-1]
    assert all(part[-1] is unreadable for part in parts)
    assert len({len(part) for part in parts}) <= 2


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "3/", "/3", "-1/3", "a/b", "1/2/3", "", "²/3"])
def test_what_is_no_slice_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(OptionError, match="slice"):
        indexed(folder, "index", text)
    assert len(Store.open(folder.parent / "index")) == 0


def test_an_index_is_not_updated_with_another_slice(folder: Path, slices: list[Path]) -> None:
    before = files_of(slices[0])
    with pytest.raises(PhotosError, match=r"None of the 3 photos .* slice 2/3"):
        indexed(folder, "slice1", f"2/{COUNT}")
    assert files_of(slices[0]) == before


def test_what_does_not_fit_together_is_refused_and_nothing_is_made(
    folder: Path, slices: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other photos"
    save_photo(other / "x.jpg", 1)
    elsewhere = tmp_path / "elsewhere"
    Store.create(elsewhere, SMALL_SPEC)
    with ImageIndex.open(elsewhere, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        index.update(other)
    Store.create(tmp_path / "empty", SMALL_SPEC)
    with ImageIndex.create(tmp_path / "large", engine=FakeEngine()) as index:
        index.update(folder)
    refused: list[tuple[list[Path], type[VggsearchError], str]] = [
        ([], OptionError, "nothing to merge"),
        ([slices[0], slices[1], slices[0]], PhotosError, "3 photos are in several"),
        ([slices[0], elsewhere], PhotosError, "is the index of"),
        ([slices[0], tmp_path / "empty"], PhotosError, "holds no photos"),
        ([slices[0], tmp_path / "large"], SpecMismatch, "cannot be compared"),
        ([slices[0], tmp_path / "nothing"], VggsearchError, "is not an index"),
    ]
    for sources, error, message in refused:
        with pytest.raises(error, match=message):
            merge(sources, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
    for taken in (slices[2], elsewhere):
        with pytest.raises(IndexExists):
            merge(slices[:2], taken)


class Failing:
    """Lets one call of several functions fail."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **options)

        return call


@pytest.mark.slow
def test_a_merge_that_fails_at_any_step_leaves_nothing_half(slices: list[Path], tmp_path: Path) -> None:
    expected = content(merge(slices, tmp_path / "right").directory)
    for fails_at in range(1, 100):
        failing, directory = Failing(fails_at), tmp_path / f"merged{fails_at}"
        with pytest.MonkeyPatch.context() as patched:
            for name in ("fsync", "replace", "link"):
                patched.setattr(os, name, failing.wrap(getattr(os, name)))
            with suppress(IndexNotWritable):
                merge(slices, directory)
        photos = len(Store.open(directory)) if (directory / "manifest.json").exists() else 0
        assert photos in (0, 10)
        if photos == 0:
            merge(slices, directory)
        with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
            index.update()
        assert content(directory) == expected
        assert verify(directory).findings == ()
        if failing.left > 0:
            break
    assert fails_at > 15


def test_the_command_merges_and_says_so(slices: list[Path], tmp_path: Path) -> None:
    arguments = ["merge", *map(str, slices), "--index", str(tmp_path / "merged")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0
    assert "3 indexes merged: 10 photos in" in result.stdout
    assert "is already an index, with 10 photos" in CliRunner().invoke(cli, arguments).stderr
    alone = CliRunner().invoke(cli, ["index", str(tmp_path / "photos"), "--slice", "1/2"])
    assert alone.exit_code == 2
    assert "--slice needs an index of its own" in alone.stderr
