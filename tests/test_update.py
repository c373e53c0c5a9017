import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fakes import FakeEngine, save_photo
from tests.helpers.known_files import known
from vggsearch.errors import PhotosError, Stopped
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.update import UpdateReport
from vggsearch.indexing.update_plan import plan_update
from vggsearch.matching.evidence import SAME
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.progress import Progress
from vggsearch.query.searcher import Match
from vggsearch.store.store import Store

paths, small = st.sampled_from(["a", "b", "c/d", "c/e", "f"]), st.integers(1, 2)
files = st.builds(PhotoFile, paths, small, small, st.none())


def by_path(found: list[PhotoFile]) -> dict[str, PhotoFile]:
    return {file.path: file for file in found}


@given(found=st.lists(files).map(by_path), before=st.lists(files).map(by_path))
def test_every_file_is_new_changed_unchanged_or_gone(
    found: dict[str, PhotoFile], before: dict[str, PhotoFile]
) -> None:
    plan = plan_update(found.values(), known(before.values()), {})
    assert set(plan.todo) == {file for path, file in found.items() if before.get(path) != file}
    assert set(plan.gone) == set(before) - set(found)
    assert plan.unchanged == sum(before.get(path) == file for path, file in found.items())


def test_photos_below_a_folder_that_cannot_be_read_stay() -> None:
    photos = [PhotoFile("nas/1.jpg", 1, 1), PhotoFile("nas2/1.jpg", 1, 1), PhotoFile("x.jpg", 1, 1)]
    plan = plan_update([Skipped("nas", "Permission denied", "unreadable")], known(photos), {})
    assert sorted(plan.gone) == ["nas2/1.jpg", "x.jpg"]
    assert plan.unchanged == 1


def test_a_file_that_failed_is_tried_again_only_when_it_changed_or_on_request() -> None:
    failed = {"a.jpg": Skipped("a.jpg", "cut short", "broken", 10, 20)}
    same, changed = PhotoFile("a.jpg", 10, 20), PhotoFile("a.jpg", 10, 21)
    assert plan_update([same], known(), failed).todo == ()
    assert plan_update([same], known(), failed).skipped == failed
    assert plan_update([changed], known(), failed).todo == (changed,)
    assert plan_update([same], known(), failed, retry_skipped=True).todo == (same,)


def test_a_photo_that_is_listed_as_skipped_too_leaves_the_index() -> None:
    failed = {"a.jpg": Skipped("a.jpg", "cut short", "broken", 10, 20)}
    photos, file = [PhotoFile("a.jpg", 5, 5), PhotoFile("b.jpg", 5, 5)], PhotoFile("a.jpg", 10, 20)
    plan = plan_update([file, photos[1]], known(photos), failed)
    assert (plan.todo, plan.gone, plan.skipped, plan.unchanged) == ((), ("a.jpg",), failed, 1)


def test_a_failing_disk_is_not_remembered_as_the_fault_of_the_file() -> None:
    failed = {"a.jpg": Skipped("a.jpg", "Input/output error", "unreadable", 10, 20)}
    same = PhotoFile("a.jpg", 10, 20)
    assert plan_update([same], known(), failed).todo == (same,)


def test_a_photo_that_became_a_link_is_gone() -> None:
    plan = plan_update([Skipped("a.jpg", "a link", "link")], known([PhotoFile("a.jpg", 1, 1)]), {})
    assert plan.gone == ("a.jpg",)


def test_a_photo_that_a_damaged_index_holds_twice_is_not_gone() -> None:
    photos = [PhotoFile("a.jpg", 1, 1), PhotoFile("b.jpg", 1, 1), PhotoFile("a.jpg", 1, 1)]
    assert plan_update([photos[1]], known(photos), {}).gone == ("a.jpg",)
    assert plan_update([photos[2], photos[1]], known(photos), {}).gone == ()


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
        assert not reopened._session._engines


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
    assert index.skipped() == ()


def test_an_update_that_is_asked_to_stop_keeps_what_it_did(tmp_path: Path, photos: Path) -> None:
    done: list[Progress] = []
    with ImageIndex.create(tmp_path / "x", engine=FakeEngine(batch_size=1)) as index:
        with pytest.raises(Stopped) as stopped:
            index.update(photos, progress=done.append, stop=lambda: bool(done) and done[-1].done >= 2)
        assert isinstance(stopped.value.report, UpdateReport)
        assert (stopped.value.report.indexed, len(index)) == (2, 2)
        assert len(index.query(photos / "summer" / "0.jpg").matches) == 2
        report = index.update(photos)
        assert (report.indexed, report.unchanged) == (4, 2)


def test_nothing_is_dropped_by_an_update_that_was_stopped(index: ImageIndex, photos: Path) -> None:
    (photos / "winter" / "4.jpg").unlink()
    save_photo(photos / "new.jpg", seed=80)
    told: list[Progress] = []
    with pytest.raises(Stopped) as stopped:
        index.update(progress=told.append, stop=lambda: bool(told))
    assert isinstance(stopped.value.report, UpdateReport)
    assert stopped.value.report.gone == 0
    assert "winter/4.jpg" in index.paths()


def test_progress_tells_done_total_and_the_engine(index: ImageIndex, photos: Path) -> None:
    told: list[Progress] = []
    save_photo(photos / "new.jpg", seed=80)
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    index.update(progress=told.append)
    told = [one for one in told if one.stage == "embedding photos"]
    assert [(one.done, one.total) for one in told] == [(0, 2), (1, 2), (2, 2)]
    assert told[-1].note == "fake, nothing, fp32, 1 skipped"
    assert told[0].note == "fake, nothing, fp32"


def test_parts_are_committed_while_the_update_runs(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.indexing.update._Part.is_full", property(lambda part: len(part.photos) == 2))
    seen: list[int] = []

    def look(progress: Progress) -> None:
        if progress.stage != "embedding photos":
            return
        with ImageIndex.open(tmp_path / "x", engine=FakeEngine()) as reader:
            seen.append(len(reader))
            if seen[-1]:
                found = reader.query(photos / "summer" / "0.jpg", count=9).matches
                assert seen[-1] <= len(found) <= len(reader)  # a part may be committed in between

    with ImageIndex.create(tmp_path / "x", engine=FakeEngine(batch_size=1)) as index:
        index.update(photos, progress=look)
        assert index.info().parts == 3
    assert len(seen) == 7
    assert seen == sorted(seen)
    assert set(seen) <= {0, 2, 4}
    # A part is written while the next is embedded, and is there when that one is full.
    assert all(count <= most for count, most in zip(seen, [0, 0, 0, 2, 2, 4, 4], strict=True))
    assert seen[5] >= 2


def embedding_of(index: ImageIndex, path: str) -> NDArray[np.float16]:
    rows = np.concatenate(list(Store.open(index.directory).embeddings()))
    found: NDArray[np.float16] = rows[index.paths().index(path)]
    return found


def test_a_renamed_or_moved_photo_keeps_its_embedding_without_the_network(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    before = {path: embedding_of(index, path) for path in ("summer/0.jpg", "summer/1.jpg")}
    (photos / "summer" / "0.jpg").rename(photos / "summer" / "beach.jpg")
    (photos / "autumn").mkdir()
    (photos / "summer" / "1.jpg").rename(photos / "autumn" / "1.jpg")
    report = index.update()
    assert (report.indexed, report.reused, report.gone, report.photos) == (0, 2, 2, 6)
    assert engine.pictures == 6
    assert (embedding_of(index, "summer/beach.jpg") == before["summer/0.jpg"]).all()
    assert (embedding_of(index, "autumn/1.jpg") == before["summer/1.jpg"]).all()
    assert index.query(photos / "autumn" / "1.jpg", 1).matches == (Match("autumn/1.jpg", 1.0, confidence=SAME),)


def test_two_photos_that_swapped_names_are_not_mixed_up(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    first, second = photos / "summer" / "0.jpg", photos / "summer" / "1.jpg"
    before = embedding_of(index, "summer/0.jpg"), embedding_of(index, "summer/1.jpg")
    first.rename(photos / "x.jpg")
    second.rename(first)
    (photos / "x.jpg").rename(second)
    report = index.update()
    assert report.reused == report.photos - report.unchanged
    assert engine.pictures == 6
    assert (embedding_of(index, "summer/0.jpg") == before[1]).all()
    assert (embedding_of(index, "summer/1.jpg") == before[0]).all()


def test_a_copy_gets_a_row_of_its_own_with_the_same_embedding(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    shutil.copy(photos / "winter" / "4.jpg", photos / "copy.jpg")
    report = index.update()
    assert (report.indexed, report.reused, report.photos, engine.pictures) == (0, 1, 7, 6)
    assert (embedding_of(index, "copy.jpg") == embedding_of(index, "winter/4.jpg")).all()


@pytest.mark.parametrize("batch_size", [1, 2, 8, 64])
def test_copies_in_a_new_folder_go_through_the_network_once(tmp_path: Path, batch_size: int) -> None:
    for number in range(40):
        save_photo(tmp_path / "photos" / f"{number:02}.jpg", seed=number % 5)
    engine = FakeEngine(batch_size=batch_size)
    with ImageIndex.create(tmp_path / "x", engine=engine) as index:
        report = index.update(tmp_path / "photos")
        assert (report.indexed, report.reused, engine.pictures) == (5, 35, 5)
        for number in range(40):
            same = embedding_of(index, f"{number:02}.jpg") == embedding_of(index, f"{number % 5:02}.jpg")
            assert same.all()


def test_a_photo_that_was_only_touched_is_hashed_and_not_embedded(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    os.utime(photos / "summer" / "0.jpg", ns=(1, 1))
    report = index.update()
    assert (report.indexed, report.reused, report.gone, engine.pictures) == (0, 1, 0, 6)
    assert index.update().unchanged == 6


def test_a_file_of_the_same_size_is_not_taken_for_the_same_photo(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    old = photos / "summer" / "0.jpg"
    size = old.stat().st_size
    save_photo(old, seed=99, quality=20)
    old.write_bytes(old.read_bytes().ljust(size, b"\0"))
    assert old.stat().st_size == size
    report = index.update()
    assert (report.indexed, report.reused, engine.pictures) == (1, 0, 7)


def test_renaming_every_folder_is_not_taken_for_an_unmounted_disk(
    index: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    for name in ("summer", "winter"):
        (photos / name).rename(photos / f"{name} 2004")
    report = index.update()
    assert (report.indexed, report.reused, report.gone, report.photos, engine.pictures) == (0, 6, 6, 6, 6)


def test_a_stranger_of_the_same_size_does_not_empty_the_index(index: ImageIndex, photos: Path) -> None:
    size = (photos / "summer" / "0.jpg").stat().st_size
    shutil.rmtree(photos / "summer")
    shutil.rmtree(photos / "winter")
    (photos / "stray.bin").write_bytes(bytes(size))
    with pytest.raises(PhotosError, match="holds none of the 6 photos"):
        index.update()
    assert len(index) == 6
    assert index.update(allow_empty=True).photos == 0


def test_the_engine_that_made_an_embedding_is_remembered_when_it_is_reused(index: ImageIndex, photos: Path) -> None:
    class OtherEngine(FakeEngine):
        precision = "int8"

    (photos / "winter" / "4.jpg").rename(photos / "four.jpg")
    save_photo(photos / "new.jpg", seed=50)
    with ImageIndex.open(index.directory, engine=OtherEngine()) as again:
        assert (again.update().indexed, again.info().made_by) == (1, ("fake fp32", "fake int8"))
        rows = {
            path: part.precision
            for part in Store.open(again.directory).manifest.parts
            for path in Store.open(again.directory).column(part, "path")
        }
    assert (rows["four.jpg"], rows["new.jpg"]) == ("fp32", "int8")


def test_reused_embeddings_do_not_load_the_network(index: ImageIndex, photos: Path) -> None:
    (photos / "winter" / "4.jpg").rename(photos / "four.jpg")
    with ImageIndex.open(index.directory) as again:
        assert again.update().reused == 1
        assert not again._session._engines
