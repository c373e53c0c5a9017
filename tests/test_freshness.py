"""What an update notices of files that changed although their size and modification time did not."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, save_photo
from tests.helpers.known_files import known, stamps_in
from vggsearch.errors import Stopped
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.update import UpdateReport
from vggsearch.indexing.update_plan import plan_update
from vggsearch.photos.walk import PhotoFile, Skipped, Stamp, walk
from vggsearch.progress import Progress
from vggsearch.store.contents import STAMPS
from vggsearch.store.stamps import table_of, write_stamps

REREAD = "reading photos again"


def keeping_time(path: Path, change: Callable[[], object]) -> None:
    """Change a file, and set its modification time back, as exiftool -P does."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def edited(index: ImageIndex, photos: Path) -> Path:
    """An indexed photo, edited in place: another picture of the same size, with the old modification time."""
    path = photos / "a.bmp"
    save_photo(path, seed=10)
    index.update()
    keeping_time(path, lambda: save_photo(path, seed=11))
    return path


def stages(index: ImageIndex, *, rehash: bool = False) -> tuple[UpdateReport, set[str]]:
    told: list[Progress] = []
    report = index.update(progress=told.append, rehash=rehash)
    return report, {each.stage for each in told}


def test_an_edit_that_keeps_size_and_time_is_noticed(index: ImageIndex, edited: Path, engine: FakeEngine) -> None:
    before = engine.pictures
    report = index.update()
    assert (report.indexed, report.unchanged, report.gone) == (1, 6, 0)
    assert engine.pictures == before + 1
    assert index.query(edited, 1).matches[0].path == "a.bmp"
    assert index.update().unchanged == 7


def test_a_photo_that_takes_the_place_of_another_of_its_size_and_time_is_noticed(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    for name in ("a", "b"):
        save_photo(photos / f"{name}.bmp", seed=ord(name))
        os.utime(photos / f"{name}.bmp", ns=(10**18, 10**18))
    index.update()
    embedded = engine.pictures
    (photos / "b.bmp").replace(photos / "a.bmp")
    report = index.update()
    assert (report.reused, report.gone, engine.pictures) == (1, 1, embedded)
    assert index.query(photos / "a.bmp", 1).matches[0].similarity == 1


def test_photos_with_new_permissions_are_read_once_and_stay_as_they_are(index: ImageIndex, photos: Path) -> None:
    index.update()
    fingerprint = index._store.manifest.fingerprint
    for path in photos.rglob("*.jpg"):
        path.chmod(0o640)
    report, told = stages(index)
    assert (report.unchanged, report.reused, report.indexed, told) == (6, 0, 0, {REREAD})
    assert index._store.manifest.fingerprint == fingerprint
    assert stages(index)[1] == set()


def test_rehash_finds_an_edit_on_a_disk_that_does_not_record_changes(index: ImageIndex, edited: Path) -> None:
    stamps = stamps_in(index.directory)
    write_stamps(index.directory, table_of(stamps | {"a.bmp": Stamp.of(edited.stat())}))
    assert index.update().indexed == 0
    assert index.update(rehash=True).indexed == 1
    report, told = stages(index, rehash=True)
    assert (report.unchanged, told) == (7, {REREAD})


def test_a_file_that_was_broken_and_is_mended_in_place_is_tried_again(index: ImageIndex, photos: Path) -> None:
    path = photos / "a.bmp"
    save_photo(path, seed=10)
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))  # as a download that reserves its space first
    assert [each.path for each in index.update().newly_skipped] == ["a.bmp"]
    assert index.update().newly_skipped == ()
    keeping_time(path, lambda: path.write_bytes(whole))
    assert index.update().indexed == 1
    assert index.skipped() == ()


def test_an_edited_photo_that_cannot_be_decoded_leaves_the_index(index: ImageIndex, edited: Path) -> None:
    keeping_time(edited, lambda: edited.write_bytes(bytes(edited.stat().st_size)))
    report = index.update()
    assert [each.path for each in report.newly_skipped] == ["a.bmp"]
    assert "a.bmp" not in index.paths()


def test_suspects_that_were_not_read_before_a_stop_are_read_by_the_next_update(
    index: ImageIndex, edited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.indexing.hashing.AT_ONCE", 1)
    for path in edited.parent.rglob("*.jpg"):
        path.chmod(0o640)
    told: list[Progress] = []
    with pytest.raises(Stopped) as stopped:
        index.update(progress=told.append, stop=lambda: sum(each.stage == REREAD for each in told) == 2)
    assert isinstance(stopped.value.report, UpdateReport)
    assert (stopped.value.report.indexed, stopped.value.report.unchanged) == (0, 1)  # a.bmp was read, and is other
    told.clear()
    report = index.update(progress=told.append)
    assert (report.indexed, report.unchanged) == (1, 6)
    assert [each.total for each in told if each.stage == REREAD] == [6] * 6


def test_lost_stamps_cost_no_photo_and_damaged_ones_say_what_to_do(
    index: ImageIndex, edited: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = index.directory / STAMPS
    whole = stamps.read_bytes()
    for damaged in (whole[:-9], whole[: len(whole) // 2], b"", whole.replace(b"a.bmp", b"b.bmp")):
        stamps.write_bytes(damaged)
        assert stamps_in(index.directory) == {}
        assert "stamps.parquet is damaged" in caplog.text
        assert "rehash=True" in caplog.text
        caplog.clear()
    stamps.unlink()
    with caplog.at_level(logging.WARNING):
        assert index.update().unchanged == 7
    assert caplog.text == ""
    assert set(stamps_in(index.directory)) == set(index.paths())


def test_inodes_count_unless_the_file_system_numbers_files_anew() -> None:
    files = [PhotoFile(f"{number}.jpg", 1, 1, Stamp(5, number)) for number in range(10)]
    recorded = {file.path: file.stamp for file in files if file.stamp is not None}
    one = recorded | {"3.jpg": Stamp(5, 99)}
    assert [file.path for file in plan_update(files, known(files, one), {}).suspects] == ["3.jpg"]
    anew = {path: stamp._replace(inode=stamp.inode + 100) for path, stamp in recorded.items()}
    assert plan_update(files, known(files, anew), {}).suspects == ()
    edited = anew | {"3.jpg": Stamp(4, 103)}
    assert [file.path for file in plan_update(files, known(files, edited), {}).suspects] == ["3.jpg"]


def test_a_photo_without_a_recorded_stamp_is_a_suspect_unless_none_is_recorded() -> None:
    files = [PhotoFile(f"{number}.jpg", 1, 1, Stamp(5, number)) for number in range(3)]
    assert plan_update(files, known(files), {}).suspects == ()
    plan = plan_update(files, known(files, {"0.jpg": Stamp(5, 0), "1.jpg": Stamp(5, 1)}), {})
    assert ([file.path for file in plan.suspects], plan.unchanged) == (["2.jpg"], 2)


def test_the_stamps_below_a_folder_that_cannot_be_read_stay(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.update()
    before = stamps_in(index.directory)

    def walk_without_summer(root: Path, exclude: Path | None, _: object) -> list[PhotoFile | Skipped]:
        found = [file for file in walk(root, exclude) if not file.path.startswith("summer/")]
        return [*found, Skipped("summer", "Input/output error", "unreadable")]

    monkeypatch.setattr("vggsearch.indexing.update.walk_photos", walk_without_summer)
    assert index.update().unchanged == 6
    assert {path: before[path] for path in index.paths()} == {
        path: stamps_in(index.directory)[path] for path in index.paths()
    }


def test_an_object_is_unchanged_while_its_etag_is_and_without_one_while_its_time_is() -> None:
    old = [PhotoFile(f"{number}.jpg", 10, 1) for number in range(5)]
    stamps = {file.path: Stamp.of_etag(f"etag {file.path}") for file in old[:4]}
    found = [
        PhotoFile("0.jpg", 10, 99, stamps["0.jpg"]),  # uploaded again
        PhotoFile("1.jpg", 10, 1, Stamp.of_etag("another")),  # changed within the same second
        PhotoFile("2.jpg", 11, 1, stamps["2.jpg"]),
        PhotoFile("3.jpg", 10, 99),
        PhotoFile("4.jpg", 10, 1, Stamp.of_etag("new to the index")),
    ]
    plan = plan_update(found, known(old, stamps), {}, are_versions=True)
    assert [file.path for file in plan.todo] == ["1.jpg", "2.jpg", "3.jpg"]
    assert (plan.unchanged, plan.suspects) == (2, ())
    assert plan.stamps.keys() == {"1.jpg", "4.jpg"}
    without = [file._replace(stamp=None) for file in old]
    plan = plan_update(without, known(old, stamps), {}, are_versions=True)
    assert (plan.todo, plan.suspects, plan.unchanged) == ((), (), 5)
