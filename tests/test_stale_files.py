"""What dups makes of files that are gone, other ones or linked since the index was updated."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import FakeEngine, save_photo
from vggsearch import ImageIndex, undo
from vggsearch.duplicates.confirmation import MATCHED_BY
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.removal.files import aside_name
from vggsearch.render.calibration import notes
from vggsearch.store.keypoint_matches import read_keypoint_matches


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three copies of one photo, an edited one, and a few others."""
    folder = tmp_path / "photos"
    for seed in range(4):
        save_photo(folder / "others" / f"{seed}.jpg", seed=seed)
    first = save_photo(folder / "a.png", seed=9, size=(320, 240))
    (folder / "z").mkdir()
    for name in ("b.png", "z/c.png"):
        shutil.copy(first, folder / name)
    with Image.open(first) as picture:
        picture.convert("RGB").save(folder / "near.jpg", quality=80)
    return folder


@pytest.fixture
def index(tmp_path: Path, photos: Path) -> Iterator[ImageIndex]:
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as opened:
        opened.update(photos)
        yield opened


def groups(report: DuplicatesReport) -> list[list[str]]:
    """Return the paths of each group, the keeper first."""
    return [[group.keeper.path, *(each.photo.path for each in group.members)] for group in report.groups]


def paired(report: DuplicatesReport) -> set[str]:
    return {photo.path for pair in report.pairs for photo in (pair.first, pair.second)}


def test_nothing_is_stale_at_first(index: ImageIndex) -> None:
    report = index.duplicates(threshold=0.9)
    assert groups(report) == [["a.png", "b.png", "z/c.png", "near.jpg"]]
    assert (report.stale, report.are_all_stale) == ((), False)


def replaced(path: Path) -> None:
    save_photo(path, seed=77, size=(320, 240))


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "near.jpg")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def zeroed(path: Path) -> None:
    """Leave a placeholder, as a cloud client does: of the same size and time, but without the data."""
    status = path.stat()
    with path.open("wb") as file:
        file.truncate(status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [Path.unlink, replaced, linked, a_folder, zeroed])
def test_a_file_that_is_no_longer_the_photo_is_neither_kept_nor_listed(
    index: ImageIndex, photos: Path, change: Callable[[Path], None]
) -> None:
    change(photos / "a.png")
    report = index.duplicates(threshold=0.9)
    assert groups(report) == [["b.png", "z/c.png", "near.jpg"]]
    assert "a.png" not in paired(report)
    assert report.stale == ("a.png",)
    (line,) = [note for note in notes(report) if note.startswith("Left out")]
    assert line == (
        "Left out 1 photo, gone or changed since the last update: a.png. "
        f"Update the index: vggsearch index {photos}"
    )
    planned = index.plan_removal(report, "trash")
    assert [each.path for each in planned.removals] == ["z/c.png", "near.jpg"]
    assert index.update().photos == 7 + (change is replaced)
    assert index.duplicates(threshold=0.9).stale == ()


def test_one_copy_left_is_no_duplicate(index: ImageIndex, photos: Path) -> None:
    for name in ("a.png", "z/c.png", "near.jpg"):
        (photos / name).unlink()
    report = index.duplicates(threshold=0.9)
    assert (groups(report), list(report.pairs)) == ([], [])
    assert report.stale == ("a.png", "near.jpg", "z/c.png")


def test_an_edit_that_keeps_size_and_time_is_noticed_and_not_compared(index: ImageIndex, photos: Path) -> None:
    path = photos / "near.jpg"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = index.duplicates(threshold=0.9)
    assert groups(report) == [["a.png", "b.png", "z/c.png"]]
    assert report.stale == ("near.jpg",)


def test_what_was_compared_with_another_file_is_not_stored(index: ImageIndex, photos: Path) -> None:
    kept = (photos / "near.jpg").read_bytes()

    def compared() -> bool:
        index.duplicates(threshold=0.9)
        pairs = read_keypoint_matches(index.directory, MATCHED_BY)
        return any(hashlib.sha256(kept).hexdigest() in pair for pair in pairs)

    replaced(photos / "near.jpg")
    assert not compared()
    (photos / "near.jpg").write_bytes(kept)
    assert compared()


def test_touched_renumbered_and_read_only_files_are_still_the_photos(index: ImageIndex, photos: Path) -> None:
    os.utime(photos / "a.png")
    (photos / "b.png").chmod(0o400)
    shutil.copy2(photos / "z" / "c.png", photos / "copy.png")
    (photos / "copy.png").replace(photos / "z" / "c.png")
    report = index.duplicates(threshold=0.9)
    assert groups(report) == [["a.png", "b.png", "z/c.png", "near.jpg"]]
    assert report.stale == ()


def test_a_disk_that_is_not_mounted_costs_only_a_line(index: ImageIndex, photos: Path) -> None:
    photos.rename(photos.parent / "elsewhere")
    photos.mkdir()
    report = index.duplicates(threshold=0.9)
    assert groups(report) == []
    assert report.are_all_stale
    assert any("is the disk mounted?" in note for note in notes(report))
    photos.rmdir()
    (photos.parent / "elsewhere").rename(photos)
    assert index.duplicates(threshold=0.9).stale == ()


def test_hard_links_of_the_keeper_are_done(index: ImageIndex, photos: Path) -> None:
    report = index.duplicates(threshold=0.9)
    index.remove(index.plan_removal(report, "hardlink"))
    for _ in range(2):
        report = index.duplicates(threshold=0.9)
        assert groups(report) == [["a.png", "near.jpg"]]  # an edited copy is not linked
        assert report.stale == ()
        assert paired(report) == {"a.png", "near.jpg"}
        index.update()


def test_hard_links_of_a_copy_are_all_copies_of_the_keeper(index: ImageIndex, photos: Path) -> None:
    (photos / "z" / "c.png").unlink()
    (photos / "z" / "c.png").hardlink_to(photos / "b.png")
    index.update()
    report = index.duplicates(threshold=0.9)
    assert groups(report) == [["a.png", "b.png", "z/c.png", "near.jpg"]]


def test_the_photos_of_the_other_index_have_to_be_there_too(
    index: ImageIndex, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "a.png", other / "kept.png")
    with ImageIndex.create(tmp_path / "theirs", engine=FakeEngine()) as theirs:
        theirs.update(other)
        found = index.duplicates(threshold=0.9, against=theirs)
        assert {group[0] for group in groups(found)} == {str(other / "kept.png")}
        (other / "kept.png").unlink()
        assert groups(index.duplicates(threshold=0.9, against=theirs)) == []


def test_a_file_that_an_interrupted_removal_has_hidden_is_named_until_it_is_undone(
    index: ImageIndex, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = index.remove(index.plan_removal(index.duplicates(threshold=0.9), "delete"))
    lines = done.journal.read_bytes().splitlines(keepends=True)
    done.journal.write_bytes(b"".join(lines[:-1]))  # as if killed before the outcome of the last step
    last = done.done[-1]
    hidden = aside_name(photos / last.path, last.token)
    shutil.copy(photos / "a.png", hidden)
    for look in (index.update, index.duplicates):
        caplog.clear()
        look()
        [told] = [text for text in caplog.messages if "interrupted" in text]
        assert all(each in told for each in (last.path, hidden.name, f"vggsearch.undo({str(done.journal)!r})"))
    undo(done.journal)
    caplog.clear()
    index.update()
    assert not any("interrupted" in text for text in caplog.messages)
    assert not hidden.exists()
