from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeEngine, save_photo
from vggsearch.image_index import ImageIndex
from vggsearch.photos import PhotoFile, Skipped
from vggsearch.update import Progress, plan_update

files = st.builds(PhotoFile, st.sampled_from(["a", "b", "c/d", "c/e", "f"]), st.integers(1, 2), st.integers(1, 2))


def by_path(found: list[PhotoFile]) -> dict[str, PhotoFile]:
    return {file.path: file for file in found}


@given(found=st.lists(files).map(by_path), known=st.lists(files).map(by_path))
def test_every_file_is_new_changed_unchanged_or_gone(
    found: dict[str, PhotoFile], known: dict[str, PhotoFile]
) -> None:
    plan = plan_update(found.values(), known, {})
    assert set(plan.todo) == {file for path, file in found.items() if known.get(path) != file}
    assert set(plan.gone) == set(known) - set(found)
    assert plan.unchanged == sum(known.get(path) == file for path, file in found.items())


def test_photos_below_a_folder_that_cannot_be_read_stay() -> None:
    known = by_path([PhotoFile("nas/1.jpg", 1, 1), PhotoFile("nas2/1.jpg", 1, 1), PhotoFile("x.jpg", 1, 1)])
    plan = plan_update([Skipped("nas", "Permission denied", "unreadable")], known, {})
    assert sorted(plan.gone) == ["nas2/1.jpg", "x.jpg"]
    assert plan.unchanged == 1


def test_a_file_that_failed_is_tried_again_only_when_it_changed_or_on_request() -> None:
    failed = {"a.jpg": Skipped("a.jpg", "cut short", "broken", 10, 20)}
    same, changed = PhotoFile("a.jpg", 10, 20), PhotoFile("a.jpg", 10, 21)
    assert plan_update([same], {}, failed).todo == ()
    assert plan_update([same], {}, failed).skipped == failed
    assert plan_update([changed], {}, failed).todo == (changed,)
    assert plan_update([same], {}, failed, retry_skipped=True).todo == (same,)


def test_a_failing_disk_is_not_remembered_as_the_fault_of_the_file() -> None:
    failed = {"a.jpg": Skipped("a.jpg", "Input/output error", "unreadable", 10, 20)}
    same = PhotoFile("a.jpg", 10, 20)
    assert plan_update([same], {}, failed).todo == (same,)


def test_a_photo_that_became_a_link_is_gone() -> None:
    known = by_path([PhotoFile("a.jpg", 1, 1)])
    assert plan_update([Skipped("a.jpg", "a link", "link")], known, {}).gone == ("a.jpg",)


def test_only_what_is_new_or_changed_goes_through_the_network(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    assert engine.pictures == 6
    again = index.update(photos)
    assert (again.indexed, again.unchanged, again.gone, engine.pictures) == (0, 6, 0, 6)
    save_photo(photos / "new.png", seed=70)
    save_photo(photos / "summer" / "0.jpg", seed=71)
    (photos / "summer" / "1.jpg").unlink()
    report = index.update()
    assert (report.indexed, report.unchanged, report.gone, report.photos) == (2, 4, 1, 6)
    assert engine.pictures == 8
    assert "summer/1.jpg" not in index.paths()


def test_the_network_is_not_loaded_when_there_is_nothing_to_do(
    tmp_path: Path, index: ImageIndex, photos: Path
) -> None:
    with ImageIndex.open(index.directory) as reopened:
        reopened.update(photos)
        assert reopened._engine is None


def test_a_photo_that_breaks_leaves_the_index_and_says_why(index: ImageIndex, photos: Path) -> None:
    broken = photos / "summer" / "0.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    report = index.update()
    assert [skipped.path for skipped in report.newly_skipped] == ["summer/0.jpg"]
    assert "summer/0.jpg" not in index.paths()
    assert index.update().newly_skipped == ()
    assert [skipped.kind for skipped in index.skipped()] == ["broken"]
    save_photo(broken, seed=0)
    assert index.update().indexed == 1
    assert index.skipped() == []


def test_an_update_that_is_asked_to_stop_keeps_what_it_did(tmp_path: Path, photos: Path) -> None:
    done: list[Progress] = []
    with ImageIndex.create(tmp_path / "x", engine=FakeEngine(batch_size=1)) as index:
        report = index.update(photos, progress=done.append, stop=lambda: done[-1].done >= 2)
        assert (report.stopped, report.indexed, len(index)) == (True, 2, 2)
        assert len(index.query(photos / "summer" / "0.jpg").matches) == 2
        report = index.update(photos)
        assert (report.stopped, report.indexed, report.unchanged) == (False, 4, 2)


def test_nothing_is_dropped_by_an_update_that_was_stopped(index: ImageIndex, photos: Path) -> None:
    (photos / "winter" / "4.jpg").unlink()
    save_photo(photos / "new.jpg", seed=80)
    report = index.update(stop=lambda: True)
    assert report.gone == 0
    assert "winter/4.jpg" in index.paths()


def test_progress_tells_done_total_and_the_engine(index: ImageIndex, photos: Path) -> None:
    told: list[Progress] = []
    save_photo(photos / "new.jpg", seed=80)
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    index.update(progress=told.append)
    assert [(one.done, one.total) for one in told] == [(0, 2), (1, 2), (2, 2)]
    assert told[-1].skipped == 1
    assert told[0].engine == "fake, nothing, fp32"


def test_parts_are_committed_while_the_update_runs(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.update._Part.is_full", property(lambda part: len(part.photos) == 2))
    seen: list[int] = []

    def look(progress: Progress) -> None:
        with ImageIndex.open(tmp_path / "x", engine=FakeEngine()) as reader:
            seen.append(len(reader))
            if len(reader):
                assert len(reader.query(photos / "summer" / "0.jpg", count=9).matches) == len(reader)

    with ImageIndex.create(tmp_path / "x", engine=FakeEngine(batch_size=1)) as index:
        index.update(photos, progress=look)
        assert index.info().parts == 3
    assert seen == [0, 0, 0, 2, 2, 4, 4]
