"""What may be found, and in how many indexes: filters, folders, thresholds, pictures added and subtracted."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeEngine, picture, save_photo
from vggsearch import EmbeddingOptions, ImageIndex, Skipped
from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.search import Searcher

COUNT = 130  # enough for a whitening


@pytest.fixture
def many(tmp_path: Path) -> Iterator[ImageIndex]:
    """Whitened photos: every tenth a PNG, every fourth upright, in 2019 and 2020, half of them in folders."""
    for seed in range(COUNT):
        year, size = ("2019", (40, 60)) if seed % 4 == 0 else ("2020", (80, 60))
        exif = Image.Exif()
        exif[0x0132] = f"{year}:06:01 12:00:00"
        save_photo(tmp_path / "many" / year / f"{seed}.{'png' if seed % 10 == 0 else 'jpg'}", seed, size, exif=exif)
    with ImageIndex.create(tmp_path / "indexes" / "many", engine=FakeEngine()) as made:
        made.update(tmp_path / "many", workers=1)
        assert made.info().whitening is not None
        yield made


def similarities(searcher: Searcher, vector: np.ndarray) -> dict[str, float]:
    """The obvious slow way: all similarities of a searched vector, by path."""
    values = np.minimum(searcher.index.unit_vectors(slice(0, len(searcher.paths))) @ vector, 1)
    return dict(zip(searcher.paths, values.tolist(), strict=True))


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (["*.png"], lambda seed: seed % 10 == 0),
        (["2019/**", "*.png"], lambda seed: seed % 20 == 0),
        (["orientation:portrait"], lambda seed: seed % 4 == 0),
        (["size:61..", "path:2020/*"], lambda seed: seed % 4 != 0),
        (["taken:2019-05..2019"], lambda seed: seed % 4 == 0),
        (["folder:2020"], lambda seed: seed % 4 != 0),
    ],
)
def test_a_filter_leaves_an_answer_whole(
    many: ImageIndex, filters: list[str], passes: Callable[[int], bool], verify: bool
) -> None:
    allowed = [seed for seed in range(COUNT) if passes(seed)]
    found = many.query(picture(500, (64, 48)), 20, verify=verify, filters=filters).matches
    assert len(found) == min(20, len(allowed))
    assert {int(Path(match.path).stem) for match in found} <= set(allowed)
    if not verify:
        searcher = many.searcher()
        values = similarities(searcher, searcher.index.searched(many.embed(picture(500, (64, 48)))[None])[0])
        expected = sorted(
            (value for path, value in values.items() if int(Path(path).stem) in allowed), reverse=True
        )
        assert [match.similarity for match in found] == pytest.approx(expected[:20], abs=1e-4)


def test_a_photo_that_a_filter_leaves_out_does_not_even_find_itself(index: ImageIndex, photos: Path) -> None:
    found = index.query(photos / "summer" / "0.jpg", filters=["winter/"]).matches
    assert {match.path for match in found} == {"winter/4.jpg", "winter/5.jpg"}
    Image.new("RGB", (64, 48)).save(photos / "black.png")
    index.update()
    assert len(index.query(photos / "black.png", filters=["*.png"]).matches) == 1
    assert index.query(photos / "black.png", filters=["*.jpg"]).matches == ()


def test_filters_that_match_nothing_say_so_in_one_line(
    index: ImageIndex, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [photos / "summer" / "0.jpg", photos / "summer" / "1.jpg"]
    results = list(index.query_many(asked, filters=["summer/", "winter/4*"]))
    assert [result.matches for result in results if not isinstance(result, Skipped)] == [(), ()]
    assert caplog.messages == [
        f"No photo of the 6 in {index.directory} passes: 'summer/' matches 4, 'winter/4*' matches 1."
    ]


def test_a_filter_sees_photos_that_were_added_since(index: ImageIndex, photos: Path) -> None:
    query = photos / "summer" / "0.jpg"
    assert index.query(query, filters=["*.png"]).matches == ()
    shutil.copy(save_photo(photos / "new.png", 50), photos / "other.png")
    index.update()
    assert {match.path for match in index.query(query, filters=["*.png"]).matches} == {"new.png", "other.png"}


@pytest.mark.parametrize("verify", [False, True])
def test_a_threshold_alone_finds_all_that_reach_it(many: ImageIndex, verify: bool) -> None:
    query = many.root / "2020" / "1.jpg"  # type: ignore[operator]
    searcher = many.searcher()
    values = similarities(searcher, searcher.index.searched(many.embed(query)[None])[0])
    floor = sorted(values.values())[COUNT // 2]
    expected = {path for path, value in values.items() if value >= floor + 1e-4}
    found = many.query(query, min_similarity=floor, verify=verify).matches
    assert len(expected) > 50
    assert expected <= {match.path for match in found}
    assert all(match.similarity >= floor for match in found)
    assert len(many.query(query, 7, floor, verify=verify).matches) == 7
    assert len(many.query(query, verify=verify).matches) == 10


def test_photos_beside_the_query_are_left_out(
    index: ImageIndex, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_photo(photos / "summer" / "deep" / "9.jpg", 9)
    index.update()
    for crop in (None, (0, 0, 100, 100)):
        found = index.query(photos / "summer" / "0.jpg", exclude_same_folder=True, crop=crop).matches
        assert {match.path for match in found} == {"summer/deep/9.jpg", "winter/4.jpg", "winter/5.jpg"}
    assert caplog.messages == []
    stranger = save_photo(tmp_path / "stranger.jpg", 0)
    assert len(index.query(stranger, exclude_same_folder=True).matches) == 7
    assert caplog.messages == [f"{stranger} is not in {index.root}: no folder is left out for it."]


def halves(tmp_path: Path, many: ImageIndex) -> tuple[ImageIndex, ImageIndex]:
    """The photos of an index in two: one whitened, and one of so few that it is not."""
    made = []
    for name, paths in (("big", many.paths()[:110]), ("small", many.paths()[110:])):
        for path in paths:
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(many.root / path, target)  # type: ignore[operator]
        made.append(ImageIndex.create(tmp_path / "indexes" / name, engine=FakeEngine()))
        made[-1].update(tmp_path / name, workers=1)
    return made[0], made[1]


@pytest.mark.parametrize("verify", [False, True])
def test_two_indexes_answer_as_one_with_the_whitening_of_the_larger(
    tmp_path: Path, many: ImageIndex, verify: bool
) -> None:
    big, small = halves(tmp_path, many)
    assert big.info().whitening is not None
    assert small.info().whitening is None
    query = tmp_path / "small" / small.paths()[0]
    found = small.query(query, COUNT, verify=verify, also_in=[big]).matches
    assert (found[0].path, found[0].similarity, found[0].index) == (small.paths()[0], 1.0, str(small.directory))
    assert {(match.index, match.path) for match in found} == {
        (str(each.directory), path) for each in (big, small) for path in each.paths()
    }
    assert list(found) == sorted(found, key=lambda match: -match.similarity)
    if not verify:
        ruler = big.searcher().index
        vector = ruler.searched(big.embed(query)[None])[0]
        for index in (big, small):
            truth = dict(zip(index.paths(), ruler.searched(index.embeddings()) @ vector, strict=True))
            told = {match.path: match.similarity for match in found if match.index == str(index.directory)}
            assert all(abs(told[path] - min(truth[path], 1)) < 2e-3 for path in truth)
    assert small.query(query, 5, verify=verify, also_in=[big]).matches == found[:5]
    assert {match.index for match in small.query(query, 1, verify=verify).matches} == {None}


def test_indexes_of_two_kinds_are_refused_with_both_named(tmp_path: Path, index: ImageIndex, photos: Path) -> None:
    with (
        ImageIndex.create(tmp_path / "other", EmbeddingOptions(layer="pool5"), engine=FakeEngine(512)) as other,
        pytest.raises(SpecMismatch, match=r"pool4\+pool5 .*other of vgg16 pool5 .*cannot be compared"),
    ):
        index.query(photos / "summer" / "0.jpg", also_in=[other])


def test_pictures_are_added_and_subtracted_as_they_are_searched(many: ImageIndex) -> None:
    paths = [many.root / path for path in ("2020/1.jpg", "2020/2.jpg", "2019/4.jpg")]  # type: ignore[operator]
    searcher = many.searcher()
    first, second, third = searcher.index.searched(np.stack([many.embed(path) for path in paths]))
    mean = (first + second) / np.linalg.norm(first + second)
    for minus, vector in (((), mean), ((paths[2],), mean - third)):
        values = similarities(searcher, vector / np.linalg.norm(vector))
        found = many.query(paths[:2], 5, minus=minus).matches
        best = sorted(values.values(), reverse=True)[:5]
        assert [match.similarity for match in found] == pytest.approx(best, abs=1e-4)
        assert {match.path for match in found[:2]} == {"2020/1.jpg", "2020/2.jpg"}
    assert many.query(paths[:2], minus=paths[2:]).query == f"{paths[0]} + {paths[1]} - {paths[2]}"
    with pytest.raises(OptionError, match="Nothing is left of the query"):
        many.query(paths[0], minus=[paths[0]])
    with pytest.raises(OptionError, match="one picture at a time"):
        many.query(paths[:2], part=True)


def test_a_bad_picture_among_several_is_named(index: ImageIndex, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    [skipped] = index.query_many([[photos / "summer" / "0.jpg", photos / "bad.jpg"]])
    assert isinstance(skipped, Skipped)
    assert skipped.reason == f"{photos / 'bad.jpg'}: the file is empty"
