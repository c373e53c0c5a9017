import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeEngine, save_photo
from vggsearch import EmbeddingOptions, ImageIndex, QueryResult, Skipped
from vggsearch.errors import ImageError, IndexExists, OptionError, PhotosError, SpecMismatch
from vggsearch.matching.evidence import SAME
from vggsearch.query.searcher import Match
from vggsearch.store.store import Store
from vggsearch.store.writer import writing


def test_a_photo_finds_itself_then_its_half_size_copy_then_others(index: ImageIndex, photos: Path) -> None:
    with Image.open(photos / "summer" / "2.jpg") as image:
        image.resize((image.width // 2, image.height // 2)).save(photos / "half.png")
    index.update()
    found = index.query(photos / "summer" / "2.jpg", count=3)
    assert found.query == str(photos / "summer" / "2.jpg")
    assert [match.path for match in found.matches[:2]] == ["summer/2.jpg", "half.png"]
    assert found.matches[0].similarity == 1.0
    assert found.matches[1].similarity > 0.999 > found.matches[2].similarity


def test_an_exact_copy_is_as_similar_and_comes_second_whichever_is_asked(index: ImageIndex, photos: Path) -> None:
    shutil.copy(photos / "summer" / "2.jpg", photos / "a-copy.jpg")
    index.update()
    for asked, other in (("summer/2.jpg", "a-copy.jpg"), ("a-copy.jpg", "summer/2.jpg")):
        found = index.query(photos / asked, count=2).matches
        assert [(match.path, match.similarity) for match in found] == [(asked, 1.0), (other, 1.0)]


def test_path_bytes_pil_image_and_array_are_one_query(index: ImageIndex, photos: Path) -> None:
    path = photos / "winter" / "5.jpg"
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
        results = [index.query(query, count=4) for query in (path, str(path), path.read_bytes(), image, pixels)]
    assert all(result.matches == results[0].matches for result in results)
    assert [result.query for result in results[2:]] == ["-", "-", "-"]


def test_a_turned_pil_image_finds_the_upright_photo(index: ImageIndex, photos: Path) -> None:
    with Image.open(photos / "winter" / "5.jpg") as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6
        memory = io.BytesIO()
        turned.save(memory, "PNG", exif=exif)
    with Image.open(memory) as reopened:
        best = index.query(reopened, count=1).matches[0]
    assert best.path == "winter/5.jpg"
    assert best.similarity > 0.999


@pytest.mark.parametrize(
    "array",
    [np.zeros((5, 5, 2), np.uint8), np.zeros((5, 5, 3), np.int64), np.full((5, 5, 3), 255.0)],
    ids=["two channels", "int64", "float to 255"],
)
def test_an_array_of_another_kind_is_refused_with_its_shape(index: ImageIndex, array: np.ndarray) -> None:
    with pytest.raises(OptionError, match=rf"{array.dtype} \(5, 5"):
        index.query(array)


def test_count_and_least_similarity_bound_the_matches(index: ImageIndex, photos: Path) -> None:
    query = photos / "summer" / "0.jpg"
    assert len(index.query(query, count=2).matches) == 2
    assert len(index.query(query, count=100).matches) == 6
    close = index.query(query, count=100, min_similarity=0.999).matches
    assert [match.path for match in close] == ["summer/0.jpg"]
    with pytest.raises(OptionError, match="at least 1, not 0"):
        index.query(query, count=0)


def test_of_many_queries_a_bad_one_costs_only_itself(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    asked = [
        photos / "summer" / "0.jpg",
        tmp_path / "bad.jpg",
        tmp_path / "absent.jpg",
        photos / "summer" / "1.jpg",
    ]
    good, bad, absent, also_good = index.query_many(asked, count=1)
    assert isinstance(good, QueryResult)
    assert isinstance(also_good, QueryResult)
    assert (good.matches[0].path, also_good.matches[0].path) == ("summer/0.jpg", "summer/1.jpg")
    assert isinstance(bad, Skipped)
    assert isinstance(absent, Skipped)
    assert absent.reason == "No such file or directory"
    for ask in (index.query, index.embed):
        with pytest.raises(ImageError, match=r"bad\.jpg: has the suffix \.jpg but") as raised:
            ask(tmp_path / "bad.jpg")
        assert raised.value.reason == bad.reason
        with pytest.raises(ImageError, match=r"^not a picture$"):
            ask(b"no picture")


def test_an_index_answers_the_same_after_reopening(index: ImageIndex, photos: Path) -> None:
    before = index.query(photos / "summer" / "3.jpg")
    with ImageIndex.open(index.directory, engine=FakeEngine()) as reopened:
        assert reopened.query(photos / "summer" / "3.jpg") == before
        assert reopened.root is not None
        assert reopened.root.resolve() == photos.resolve()
        assert len(reopened) == 6


def test_the_embedding_that_is_stored_is_the_one_that_a_query_makes(index: ImageIndex, photos: Path) -> None:
    stored = next(iter(Store.open(index.directory).embeddings()))
    for row, path in enumerate(index.paths()):
        np.testing.assert_allclose(index.embed(photos / path), stored[row].astype(np.float32), atol=2e-3)


def test_a_search_side_that_is_missing_or_old_is_not_needed(index: ImageIndex, photos: Path) -> None:
    expected = index.query(photos / "summer" / "0.jpg")
    assert index.info().is_search_fresh
    with writing(Store.open(index.directory)) as writer:
        writer.commit([], removed=["winter/4.jpg"])
    assert not index.info().is_search_fresh
    found = index.query(photos / "summer" / "0.jpg")
    similarities = {match.path: match.similarity for match in expected.matches if match.path != "winter/4.jpg"}
    assert {match.path: match.similarity for match in found.matches} == pytest.approx(similarities, abs=1e-3)


def test_a_damaged_search_side_is_told_and_not_needed_and_an_update_mends_it(
    index: ImageIndex, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = index.query(photos / "summer" / "0.jpg")
    vectors = next((index.directory / "search").rglob("vectors.npy"))
    index.close()
    vectors.write_bytes(b"")
    with ImageIndex.open(index.directory, engine=FakeEngine()) as reopened:
        assert reopened.query(photos / "summer" / "0.jpg") == expected
        assert "has 0 bytes, but the manifest says 12,416" in caplog.text
        reopened.update(photos)
    caplog.clear()
    with ImageIndex.open(index.directory, engine=FakeEngine()) as mended:
        assert mended.query(photos / "summer" / "0.jpg") == expected
    assert caplog.text == ""


def test_index_and_photos_move_together(tmp_path: Path, index: ImageIndex, photos: Path) -> None:
    index.close()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "indexes").rename(tmp_path / "elsewhere" / "indexes")
    photos.rename(tmp_path / "elsewhere" / "photos")
    engine = FakeEngine()
    with ImageIndex.open(tmp_path / "elsewhere" / "indexes" / "photos", engine=engine) as moved:
        report = moved.update()
        assert (report.indexed, report.unchanged, report.gone, engine.pictures) == (0, 6, 0, 0)


def test_photos_that_moved_alone_are_found_with_moved(tmp_path: Path, index: ImageIndex, photos: Path) -> None:
    photos.rename(tmp_path / "new place")
    with pytest.raises(PhotosError, match=r"index of .*photos, not of .*new place.* drop its 6 photos"):
        index.update(tmp_path / "new place")
    report = index.update(tmp_path / "new place", moved=True)
    assert (report.indexed, report.unchanged) == (0, 6)
    assert index.root == tmp_path / "new place"


def test_another_folder_does_not_empty_the_index(tmp_path: Path, index: ImageIndex) -> None:
    save_photo(tmp_path / "other" / "x.jpg", seed=50)
    with pytest.raises(PhotosError, match=r"Use another index or, .* pass moved=True"):
        index.update(tmp_path / "other")
    assert len(index) == 6


def test_a_folder_that_is_suddenly_empty_does_not_empty_the_index(index: ImageIndex, photos: Path) -> None:
    shutil.rmtree(photos)
    with pytest.raises(PhotosError, match="Is its disk mounted"):
        index.update()
    photos.mkdir()
    with pytest.raises(PhotosError, match=r"holds none of the 6 photos .* allow_empty=True"):
        index.update()
    save_photo(photos / "left in the mount point.jpg", seed=60)
    with pytest.raises(PhotosError, match="holds none of the 6 photos"):
        index.update()
    assert len(index) == 6
    assert index.update(allow_empty=True).gone == 6
    (photos / "left in the mount point.jpg").unlink()
    assert index.update(allow_empty=True).gone == 1
    assert len(index) == 0


def test_the_index_may_lie_in_the_photo_folder(photos: Path) -> None:
    with ImageIndex.create(photos / "indexes" / "photos", engine=FakeEngine()) as index:
        assert index.update(photos).indexed == 6
        again = index.update(photos)
    assert (again.unchanged, again.skipped) == (6, ())


def test_another_kind_of_embedding_is_refused_with_both_named(index: ImageIndex) -> None:
    with pytest.raises(
        SpecMismatch, match=r"contains embeddings with layer pool4\+pool5, which cannot be compared with layer fc7"
    ):
        ImageIndex.open(index.directory, EmbeddingOptions(layer="fc7"))
    with pytest.raises(
        SpecMismatch, match=r"size 192, resize squash, which cannot be compared with size 160, resize pad"
    ):
        ImageIndex.open(index.directory, EmbeddingOptions(size=160, resize="pad"))
    with ImageIndex.open(index.directory, EmbeddingOptions(layer="pool4+pool5", size=192)) as same:
        assert len(same) == 6


def test_creating_over_an_index_is_refused_and_for_photos_opens_it(index: ImageIndex, photos: Path) -> None:
    with pytest.raises(IndexExists):
        ImageIndex.create(index.directory)
    with ImageIndex.for_photos(photos, index.directory, engine=FakeEngine()) as opened:
        assert len(opened) == 6


def test_info_tells_what_is_there(index: ImageIndex, photos: Path) -> None:
    (photos / "notes.txt").write_text("not a picture at all")
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    index.update()
    info = index.info()
    assert info.search is not None
    assert (info.photos, info.parts, info.search.recipe, info.made_by) == (6, 1, "flat", ("fake fp32",))
    assert info.skipped == {"not a picture": 1, "broken": 1}
    assert info.bytes == sum(path.stat().st_size for path in index.directory.rglob("*") if path.is_file())
    assert info.spec == index.spec


@pytest.mark.slow
@pytest.mark.network
def test_the_real_network_finds_edited_copies_of_real_photos(sample_photos: Path, tmp_path: Path) -> None:
    with ImageIndex.create(tmp_path / "x") as index:
        report = index.update(sample_photos)
        assert (len(report.skipped), report.photos) == (0, len(list(sample_photos.rglob("*.jpg"))))
        for original in (sample_photos / "originals").iterdir():
            matches = index.query(original, count=4).matches
            stem = original.stem
            assert matches[0].path == f"originals/{stem}.jpg"
            assert matches[0].similarity == 1.0
            assert {Path(match.path).stem.split("_")[0] for match in matches} == {stem}


def test_black_frames_do_not_match_one_another_nor_anything_else(
    index: ImageIndex, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(photos / f"black{number}.png")
    index.update()
    assert (index.info().photos, index.info().blank) == (9, 3)
    assert index.query(photos / "black1.png").matches == (Match("black1.png", 1.0, confidence=SAME),)
    assert "black1.png is blank: there is nothing in it to compare." in caplog.text
    assert index.query(Image.new("RGB", (64, 48))).matches == ()
    found = index.query(photos / "summer" / "0.jpg", count=100).matches
    assert len(found) == 6
    assert not any(match.path.startswith("black") for match in found)


def test_a_blank_photo_is_known_again_after_a_rename_and_a_merge(index: ImageIndex, photos: Path) -> None:
    Image.new("RGB", (64, 48)).save(photos / "black.png")
    index.update()
    (photos / "black.png").rename(photos / "dark.png")
    index.update(compact=True)
    assert (index.info().parts, index.info().blank) == (1, 1)


def test_the_network_is_loaded_for_the_number_of_photos_and_once_for_each_backend(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int | None] = []
    few, many = FakeEngine(), FakeEngine()

    def load(*given: Any) -> FakeEngine:
        loaded.append(given[-1])
        return few if given[-1] is not None and given[-1] <= 2 else many

    monkeypatch.setattr("vggsearch.query.session.load_engine", load)
    monkeypatch.setattr(
        "vggsearch.query.session.choose_engine", lambda _, count: "few" if count in (1, 2) else "many"
    )
    with ImageIndex.create(tmp_path / "made") as index:
        index.update(photos)
        assert (few.pictures, many.pictures) == (0, 6)
        first, *_, last = sorted(photos.rglob("*.jpg"))
        index.query(first, rerank=False)
        list(index.query_many([first, last], rerank=False))
        index.embed(first)
        assert (few.pictures, many.pictures) == (4, 6)
        list(index.query_many(iter([first]), rerank=False))
        index.embed_many([first])
        assert (few.pictures, many.pictures) == (4, 8)
        save_photo(photos / "new.jpg", 50)
        index.update()
        assert (few.pictures, many.pictures) == (5, 8)
    assert loaded == [6, 1]
