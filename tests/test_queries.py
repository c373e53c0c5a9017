"""What may be found, and in how many indexes: filters, folders, thresholds, pictures added and subtracted."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import FakeEngine, picture, save_photo
from vggsearch import EmbeddingOptions, ImageIndex, QueryResult, Skipped
from vggsearch.defaults import SEARCH
from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.image_index import searcher_of

COUNT = 130  # enough for a whitening
BIG = 110  # of them in the larger of two indexes, which is whitened too

Rule = tuple[list[str], Callable[[int], bool]]
RULES: list[Rule] = [
    (["*.png"], lambda seed: seed % 10 == 0),
    (["2019/**", "*.png"], lambda seed: seed % 20 == 0),
    (["orientation:portrait"], lambda seed: seed % 4 == 0),
    (["size:61..", "path:2020/*"], lambda seed: seed % 4 != 0),
    (["taken:2019-05..2019"], lambda seed: seed % 4 == 0),
    (["folder:2020"], lambda seed: seed % 4 != 0),
    (["77.*"], lambda seed: seed == 77),
]


def name_of(seed: int) -> str:
    return f"{'2019' if seed % 4 == 0 else '2020'}/{seed}.{'png' if seed % 10 == 0 else 'jpg'}"


def seed_of(path: str) -> int:
    return int(Path(path).stem)


def make_index(folder: Path, seeds: range) -> ImageIndex:
    """An index of photos: every tenth a PNG, every fourth upright, in 2019 and 2020."""
    for seed in seeds:
        exif = Image.Exif()
        exif[0x0132] = f"{name_of(seed)[:4]}:06:01 12:00:00"
        size = (40, 60) if seed % 4 == 0 else (80, 60)
        save_photo(folder / "photos" / name_of(seed), seed, size, exif=exif)
    made = ImageIndex.create(folder / "index", engine=FakeEngine())
    made.update(folder / "photos", workers=1, local_features=True)
    return made


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    """Whitened photos, with local features."""
    with make_index(tmp_path_factory.mktemp("many"), range(COUNT)) as made:
        facts = made.info().search
        assert facts is not None
        assert facts.whitening is not None
        yield made


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ImageIndex, ImageIndex]]:
    """The same photos in two indexes: one whitened, and one of so few that it is not."""
    folder = tmp_path_factory.mktemp("two")
    with make_index(folder / "big", range(BIG)) as big, make_index(folder / "small", range(BIG, COUNT)) as small:
        assert [searcher_of(each).index.whitening is None for each in (big, small)] == [False, True]
        yield big, small


def photo_of(index: ImageIndex, seed: int) -> Path:
    assert index.root is not None
    return index.root / name_of(seed)


def truth(ruler: ImageIndex, index: ImageIndex, vector: NDArray[np.float32]) -> dict[str, float]:
    """The obvious slow way: the similarity of a searched vector with every photo, by path."""
    vectors = searcher_of(ruler).index.to_vectors(index.embeddings())
    return dict(zip(index.paths(), np.minimum(vectors @ vector, 1).tolist(), strict=True))


def searched(index: ImageIndex, image: Image.Image | Path) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = searcher_of(index).index.to_vectors(index.embed(image)[None])[0]
    return vector


@pytest.mark.parametrize(("filters", "passes"), RULES)
def test_behind_a_filter_are_the_best_of_those_that_pass_and_never_too_few(
    many: ImageIndex, filters: list[str], passes: Callable[[int], bool]
) -> None:
    stranger = picture(500, (64, 48))
    values = truth(many, many, searched(many, stranger))
    allowed = sorted((value for path, value in values.items() if passes(seed_of(path))), reverse=True)
    found = many.query(stranger, 20, rerank=False, filters=filters).matches
    assert len(found) == min(20, len(allowed))
    assert all(passes(seed_of(match.path)) for match in found)
    assert [match.similarity for match in found] == pytest.approx(allowed[:20], abs=2e-3)


@pytest.mark.parametrize(("filters", "passes"), RULES)
@pytest.mark.parametrize("part", [False, True])
def test_geometry_and_parts_look_only_at_photos_that_pass(
    many: ImageIndex, part: bool, filters: list[str], passes: Callable[[int], bool]
) -> None:
    turned = Image.open(photo_of(many, 60)).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = many.query(turned, 20, containing=part, filters=filters).matches
    assert len(found) == min(20, sum(map(passes, range(COUNT))))
    assert all(passes(seed_of(match.path)) for match in found)
    if passes(60):
        assert found[0].path == name_of(60)
        assert found[0].alignment is not None


@pytest.mark.parametrize("wish", [{"count": 5}, {"min_similarity": 0.3}, {"count": 3, "filters": "2020/**"}])
def test_queries_asked_together_find_what_each_finds_alone(
    two: tuple[ImageIndex, ImageIndex], tmp_path: Path, wish: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    big, small = two
    monkeypatch.setattr("vggsearch.query.run.SEARCH", replace(SEARCH, at_once=6))
    (tmp_path / "bad.jpg").write_text("no picture")
    Image.new("RGB", (64, 48)).save(tmp_path / "black.png")
    good: list[Any] = [photo_of(big, 3), photo_of(big, 8), picture(500, (64, 48)), photo_of(small, BIG)]
    asked: list[Any] = [*good, tmp_path / "bad.jpg", tmp_path / "black.png", [good[0], good[1]], *good[:2]]
    found = list(big.query_many(iter(asked), rerank=False, also_in=[small], **wish))
    assert isinstance(found[4], Skipped)
    assert Path(found[4].path).name == "bad.jpg"
    for query, answer in zip(asked[:4] + asked[5:], found[:4] + found[5:], strict=True):
        assert isinstance(answer, QueryResult)
        alone = big.query(query, rerank=False, also_in=[small], **wish)
        assert answer.query == alone.query
        together = {(match.index, match.path): match.similarity for match in answer.matches}
        # Products of many rows at once may differ in the last bit, which may round a similarity the other way.
        assert together == pytest.approx({(m.index, m.path): m.similarity for m in alone.matches}, abs=2e-4)
    assert any(isinstance(answer, QueryResult) and answer.matches for answer in found)


def test_queries_asked_together_go_through_the_network_together(photos: Path, index: ImageIndex) -> None:
    engine = index.engine
    assert isinstance(engine, FakeEngine)
    asked = sorted(photos.rglob("*.jpg"))
    calls, pictures = engine.calls, engine.pictures
    answers = list(index.query_many(asked, 1, rerank=False))
    assert [answer.matches[0].path for answer in answers if isinstance(answer, QueryResult)] == [
        path.relative_to(photos).as_posix() for path in asked
    ]
    assert (engine.calls - calls, engine.pictures - pictures) == (1, len(asked))


def test_queries_that_are_answered_ahead_get_the_answers_they_get_alone(photos: Path, index: ImageIndex) -> None:
    (photos.parent / "bad.jpg").write_text("no picture")
    names = ["0.jpg", "1.jpg", "bad.jpg", "2.jpg", "3.jpg", "1.jpg"]
    asked = [photos.parent / name if name == "bad.jpg" else photos / "summer" / name for name in names]
    answers = list(index.query_many(iter(asked), 3))
    assert isinstance(answers[2], Skipped)
    alone = [index.query(image, 3) for image in asked if image.name != "bad.jpg"]
    assert [answer for answer in answers if isinstance(answer, QueryResult)] == alone
    assert alone[0].matches[0].confidence is not None


def test_no_more_queries_are_read_ahead_than_are_answered_together(photos: Path, index: ImageIndex) -> None:
    read: list[int] = []

    def endless() -> Iterator[Path]:
        for number in itertools.count():
            read.append(number)
            yield photos / "summer" / f"{number % 4}.jpg"

    answers = iter(index.query_many(endless(), 1))
    for number in range(3):
        answer = next(answers)
        assert isinstance(answer, QueryResult)
        assert answer.matches[0].path == f"summer/{number % 4}.jpg"
        assert len(read) <= number + 1 + SEARCH.ahead


def test_a_photo_that_a_filter_leaves_out_does_not_even_find_itself(index: ImageIndex, photos: Path) -> None:
    found = index.query(photos / "summer" / "0.jpg", filters="winter/").matches
    assert {match.path for match in found} == {"winter/4.jpg", "winter/5.jpg"}
    Image.new("RGB", (64, 48)).save(photos / "black.png")
    index.update()
    assert len(index.query(photos / "black.png", filters=["*.png"]).matches) == 1
    assert index.query(photos / "black.png", filters=["*.jpg"]).matches == ()
    assert index.query(photos / "summer" / "0.jpg", filters=["*.png"]).matches == ()


def test_filters_that_nothing_passes_say_so_in_one_line(
    index: ImageIndex, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [photos / "summer" / "0.jpg", photos / "summer" / "1.jpg"]
    results = list(index.query_many(asked, filters=["summer/", "winter/4*"]))
    assert [result.matches for result in results if isinstance(result, QueryResult)] == [(), ()]
    assert caplog.messages == [
        f"No photo of the 6 in {index.directory} passes: 'summer/' matches 4, 'winter/4*' matches 1."
    ]


def test_a_filter_sees_photos_that_came_and_went_since(index: ImageIndex, photos: Path) -> None:
    query = photos / "summer" / "0.jpg"
    assert index.query(query, filters=["*.png"]).matches == ()
    shutil.copy(save_photo(photos / "new.png", 50), photos / "other.png")
    (photos / "summer" / "0.jpg").rename(photos / "0.png")
    index.update()
    found = index.query(photos / "0.png", filters=["*.png", "size:320"]).matches
    assert {match.path for match in found} == {"new.png", "other.png", "0.png"}


@pytest.mark.parametrize("verify", [False, True])
def test_a_threshold_alone_finds_all_that_reach_it(many: ImageIndex, verify: bool) -> None:
    query = photo_of(many, 1)
    values = truth(many, many, searched(many, query))
    floor = sorted(values.values())[COUNT // 2]
    expected = {path for path, value in values.items() if value >= floor + 2e-3}
    found = many.query(query, min_similarity=floor, rerank=verify).matches
    assert len(expected) > 50
    assert expected <= {match.path for match in found}
    assert all(match.similarity >= floor for match in found)
    assert len(many.query(query, 7, min_similarity=floor, rerank=verify).matches) == 7
    assert len(many.query(query, rerank=verify).matches) == 10


def test_of_parts_a_threshold_alone_finds_all_that_reach_it(many: ImageIndex) -> None:
    query = Image.open(photo_of(many, 1)).crop((0, 0, 40, 30))
    every = many.query(query, COUNT, containing=True, rerank=False).matches
    assert len(every) == COUNT
    floor = every[COUNT * 2 // 3].similarity
    expected = tuple(match for match in every if match.similarity >= floor)
    assert many.query(query, min_similarity=floor, containing=True, rerank=False).matches == expected
    assert len(many.query(query, min_similarity=-1, containing=True, filters="*.png").matches) == COUNT // 10


def test_photos_beside_the_query_are_left_out(
    index: ImageIndex, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_photo(photos / "summer" / "deep" / "9.jpg", 9)
    index.update()
    for crop in (None, (0, 0, 100, 100)):
        found = index.query(photos / "summer" / "0.jpg", exclude_same_folder=True, crop=crop).matches
        assert {match.path for match in found} == {"summer/deep/9.jpg", "winter/4.jpg", "winter/5.jpg"}
    both = [photos / "summer" / "0.jpg", photos / "winter" / "4.jpg"]
    assert [match.path for match in index.query(both, exclude_same_folder=True).matches] == ["summer/deep/9.jpg"]
    found = index.query(photos / "summer" / "0.jpg", exclude_same_folder=True, filters="winter/").matches
    assert {match.path for match in found} == {"winter/4.jpg", "winter/5.jpg"}
    assert caplog.messages == []
    stranger = save_photo(tmp_path / "stranger.jpg", 0)
    assert len(index.query(stranger, exclude_same_folder=True).matches) == 7
    assert caplog.messages == [f"{stranger} is not in {index.root}: no folder is excluded for it."]


def test_two_indexes_answer_as_one_that_has_the_whitening_of_the_larger(
    two: tuple[ImageIndex, ImageIndex],
) -> None:
    big, small = two
    query = photo_of(small, 111)
    found = small.query(query, COUNT, rerank=False, also_in=[big]).matches
    assert (found[0].path, found[0].similarity, found[0].index) == (name_of(111), 1.0, str(small.directory))
    vector = searched(big, query)
    expected = {
        (str(each.directory), path): value for each in two for path, value in truth(big, each, vector).items()
    }
    assert len(found) == len(expected) == COUNT
    assert [match.similarity for match in found] == pytest.approx(sorted(expected.values(), reverse=True), abs=2e-3)
    assert all(abs(match.similarity - expected[str(match.index), match.path]) < 2e-3 for match in found)
    assert small.query(query, 5, rerank=False, also_in=[big]).matches == found[:5]
    assert {match.index for match in small.query(query, 1).matches} == {None}


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("seed", [7, 113])
def test_a_turned_photo_is_found_in_whichever_of_two_indexes_it_is(
    two: tuple[ImageIndex, ImageIndex], seed: int, part: bool
) -> None:
    big, small = two
    home = big if seed < BIG else small
    turned = Image.open(photo_of(home, seed)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    first, *others = big.query(turned, 20, containing=part, also_in=[small]).matches
    assert (first.path, first.index) == (name_of(seed), str(home.directory))
    assert first.alignment is not None
    assert first.alignment.mirrored
    assert {match.index for match in others} == {str(big.directory), str(small.directory)}
    only = big.query(turned, 20, containing=part, also_in=[small], filters=["2019/**"]).matches
    assert {match.path[:5] for match in only} == {"2019/"}
    assert len(only) == 20


def test_an_index_without_photos_at_hand_is_asked_and_only_the_other_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = []
    for name, seeds in (("here", range(3)), ("away", range(3, 6))):
        for seed in seeds:
            save_photo(tmp_path / name / f"{seed}.png", seed)
        made.append(ImageIndex.create(tmp_path / "indexes" / name, engine=FakeEngine()))
        made[-1].update(tmp_path / name, local_features=False)
    (tmp_path / "away").rename(tmp_path / "unmounted")
    here, away = made
    for seed, home in ((1, here), (4, away)):
        turned = picture(seed).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found = {(match.index, match.path): match for match in here.query(turned, 6, also_in=[away]).matches}
        assert len(found) == 6
        assert {match.index for match in found.values() if match.alignment is not None} <= {str(here.directory)}
        assert (found[str(home.directory), f"{seed}.png"].alignment is not None) == (home is here)
    assert caplog.messages == [f"The photos are not in {away.root}, so results are not re-ranked."]


def test_indexes_that_cannot_be_asked_as_one_are_refused(tmp_path: Path, index: ImageIndex, photos: Path) -> None:
    query = photos / "summer" / "0.jpg"
    index.update(local_features=False)
    other = ImageIndex.create(tmp_path / "other", EmbeddingOptions(layer="pool5"), engine=FakeEngine(512))
    with pytest.raises(SpecMismatch, match=r"pool4\+pool5 .*other of vgg16 pool5 .*cannot be compared"):
        index.query(query, also_in=[other])
    with (
        pytest.raises(OptionError, match="named twice"),
        ImageIndex.open(index.directory / ".." / "photos") as again,
    ):
        index.query(query, also_in=[again])
    empty = ImageIndex.create(tmp_path / "empty", engine=FakeEngine())
    with pytest.raises(OptionError, match=r"photos has no local features.* index.update\(local_features=True\)"):
        index.query(query, containing=True, also_in=[empty])
    assert len(empty.query(query, also_in=[index]).matches) == 6


def test_pictures_are_added_and_subtracted_as_they_are_searched(many: ImageIndex) -> None:
    paths = [photo_of(many, seed) for seed in (1, 2, 4)]
    first, second, third = (searched(many, path) for path in paths)
    mean = (first + second) / np.linalg.norm(first + second)
    for minus, vector in (((), mean), ((paths[2],), mean - third)):
        values = truth(many, many, vector / np.linalg.norm(vector))
        found = many.query(paths[:2], 5, minus=minus).matches
        best = sorted(values.values(), reverse=True)[:5]
        assert [match.similarity for match in found] == pytest.approx(best, abs=2e-3)
        assert {match.path for match in found[:2]} == {name_of(1), name_of(2)}
        assert len(many.query(paths[:2], min_similarity=-1, minus=minus, filters="*.png").matches) == COUNT // 10
    assert many.query(paths[:2], minus=paths[2:]).query == f"{paths[0]} + {paths[1]} - {paths[2]}"
    assert many.query([paths[0]]) == many.query(paths[0])


def test_pictures_together_are_one_query_of_two_indexes(two: tuple[ImageIndex, ImageIndex]) -> None:
    big, small = two
    both = [photo_of(big, 3), photo_of(small, 115)]
    found = big.query(both, 2, also_in=[small]).matches
    assert {(match.index, match.path) for match in found} == {
        (str(big.directory), name_of(3)),
        (str(small.directory), name_of(115)),
    }


def test_what_says_nothing_or_cannot_be_combined_is_refused(many: ImageIndex) -> None:
    paths = [photo_of(many, seed) for seed in (1, 2)]
    with pytest.raises(OptionError, match="Nothing is left of the query"):
        many.query(paths[0], minus=paths[0])
    with pytest.raises(OptionError, match="takes a single picture"):
        many.query(paths, containing=True)
    with pytest.raises(OptionError, match="takes a single picture"):
        many.query(paths[0], containing=True, minus=paths[1])
    with pytest.raises(OptionError, match="needs at least one"):
        many.query([])
    blank = Image.new("RGB", (64, 48))
    assert many.query([blank, blank]).matches == ()
    assert many.query([paths[0], blank], 3).matches == many.query([paths[0], paths[0]], 3).matches


def test_a_bad_picture_among_several_is_named(index: ImageIndex, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    [skipped] = index.query_many([[photos / "summer" / "0.jpg", photos / "bad.jpg"]])
    assert isinstance(skipped, Skipped)
    assert skipped.reason == f"{photos / 'bad.jpg'}: the file is empty"


def test_photos_at_random_are_different_ones_that_pass_and_the_same_for_a_seed(
    two: tuple[ImageIndex, ImageIndex],
) -> None:
    big, small = two
    picked = big.random(20, seed=3)
    assert len({pick.path for pick in picked}) == 20
    assert picked == big.random(20, seed=3)
    assert picked != big.random(20, seed=4)
    assert len({big.random(20) for _ in range(5)}) > 1
    everything = big.random(1000, seed=1, also_in=[small])
    assert {(pick.index, pick.path) for pick in everything} == {
        (str(each.directory), path) for each in two for path in each.paths()
    }
    assert len(everything) == COUNT
    pngs = big.random(1000, filters="*.png", also_in=[small])
    assert {seed_of(pick.path) for pick in pngs} == set(range(0, COUNT, 10))
    assert big.random(5, filters="nothing/**") == ()
    with pytest.raises(OptionError, match="at least 1, not 0"):
        big.random(0)


def test_photos_at_random_need_neither_a_network_nor_a_search_side(index: ImageIndex) -> None:
    shutil.rmtree(index.directory / "search")
    with ImageIndex.open(index.directory) as opened:
        assert {pick.path for pick in opened.random(10)} == set(index.paths())
