from datetime import datetime

import pytest

from vggsearch.errors import OptionError
from vggsearch.filters import parse_filter

PATHS = (
    "a.png",
    "IMG_1.JPG",
    "2019/b.jpg",
    "2019/may/c.png",
    "trips/rome/d.jpg",
    "trips/romeo/e.jpg",
    "x/trips/f.jpg",
)


def kept(text: str) -> list[str]:
    wanted = parse_filter(text)
    assert wanted.columns == ("path",)
    return [path for path in PATHS if wanted.keeps(path)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*.png", ["a.png", "2019/may/c.png"]),
        ("*.jpg", ["IMG_1.JPG", "2019/b.jpg", "trips/rome/d.jpg", "trips/romeo/e.jpg", "x/trips/f.jpg"]),
        ("2019/**", ["2019/b.jpg", "2019/may/c.png"]),
        ("2019/", ["2019/b.jpg", "2019/may/c.png"]),
        ("2019/*", ["2019/b.jpg"]),
        ("./2019/?.jpg", ["2019/b.jpg"]),
        ("**/trips/**", ["trips/rome/d.jpg", "trips/romeo/e.jpg", "x/trips/f.jpg"]),
        ("2019/**/*.png", ["2019/may/c.png"]),
        ("2019/**/b.*", ["2019/b.jpg"]),
        ("trips/r*e/*", ["trips/rome/d.jpg"]),
        ("[ab].*", ["a.png", "2019/b.jpg"]),
        ("[!a-d].jpg", ["trips/romeo/e.jpg", "x/trips/f.jpg"]),
        ("2019[!x]b.jpg", []),
        ("path:a.png", ["a.png"]),
        ("folder:trips/rome", ["trips/rome/d.jpg"]),
        ("folder:./Trips/", ["trips/rome/d.jpg", "trips/romeo/e.jpg"]),
        ("folder:.", list(PATHS)),
    ],
)
def test_globs_and_folders_keep_the_paths_that_they_say(text: str, expected: list[str]) -> None:
    assert kept(text) == expected


def test_signs_of_regular_expressions_mean_themselves() -> None:
    for path in ("a+b(1).jpg", "x^$|.jpg", "back\\slash.jpg", "two\nlines.jpg"):
        assert parse_filter(path).keeps(path)
        assert not parse_filter(path).keeps("other.jpg")
    assert parse_filter("a[[]1].jpg").keeps("a[1].jpg")
    assert parse_filter("a[^]1].jpg").keeps("a^1].jpg")
    assert parse_filter("open[.jpg").keeps("open[.jpg")
    assert parse_filter("path:a:b.jpg").keeps("a:b.jpg")


def test_an_accent_is_one_however_the_file_system_writes_it() -> None:
    assert parse_filter("folder:caf\u00e9").keeps("cafe\u0301/a.jpg")
    assert parse_filter("caf?.jpg").keeps("CAFE\u0301.jpg")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("taken:2019", datetime(2019, 1, 1), datetime(2019, 12, 31, 23, 59, 59)),
        ("taken:2019-02", datetime(2019, 2, 1), datetime(2019, 2, 28, 23, 59, 59)),
        ("taken:2020-2-29", datetime(2020, 2, 29), datetime(2020, 2, 29, 23, 59, 59)),
        ("taken:2019-05..2020", datetime(2019, 5, 1), datetime(2020, 12, 31, 23, 59, 59)),
        ("taken:2018-12-31..2019-12", datetime(2018, 12, 31), datetime(2019, 12, 31, 23, 59, 59)),
    ],
)
def test_both_ends_of_a_time_are_in_it(text: str, first: datetime, last: datetime) -> None:
    wanted = parse_filter(text)
    assert wanted.columns == ("taken",)
    second = last - last.replace(second=58)
    found = [wanted.keeps(moment) for moment in (first - second, first, last, last + second, None)]
    assert found == [False, True, True, False, False]


def test_an_open_end_has_no_end() -> None:
    assert parse_filter("taken:..2019").keeps(datetime(1, 1, 1))
    assert not parse_filter("taken:..2019").keeps(datetime(2020, 1, 1))
    assert parse_filter("taken:2019..").keeps(datetime(9998, 1, 1))
    assert parse_filter("taken:9999").keeps(datetime(9999, 12, 31))
    assert parse_filter("taken:9999-12-31").keeps(datetime(9999, 12, 31, 23))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("size:1000..", [False, True, True]),
        ("size:..1000", [True, True, False]),
        ("size:1000", [False, True, False]),
        ("size:500..1000", [True, True, False]),
        ("size: 501 .. 999 ", [False, False, False]),
    ],
)
def test_a_size_is_that_of_the_longer_side(text: str, kept: list[bool]) -> None:
    wanted = parse_filter(text)
    assert wanted.columns == ("width", "height")
    assert [wanted.keeps(*size) for size in ((500, 20), (300, 1000), (1001, 900))] == kept


def test_an_orientation_is_that_of_the_upright_photo() -> None:
    sizes = ((30, 40), (40, 30), (30, 30))
    for number, name in enumerate(("portrait", "landscape", "square")):
        wanted = parse_filter(f"orientation:{name}")
        assert [wanted.keeps(*size) for size in sizes] == [place == number for place in range(3)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "says nothing"),
        ("folder: ", "says nothing"),
        ("folders:x", "There is no filter folders:, in 'folders:x'"),
        ("taken:..", "neither a first nor a last"),
        ("taken:2019-13", "there is no 2019-13"),
        ("taken:2019-02-29", "there is no 2019-02-29"),
        ("taken:0000", "there is no 0000"),
        ("taken:last year", "'last year' is no date"),
        ("taken:2020..2019", "2020 is after 2019"),
        ("size:big", "'big' is no whole number of pixels"),
        ("size:-5..", "'-5' is no whole number of pixels"),
        ("size:20..10", "20 is more than 10"),
        ("orientation:upside", "'upside' is not portrait, landscape or square"),
        ("[z-a].jpg", "[z-a] is no set of letters"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_can_be_written(text: str, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_filter(text)
    assert told in str(caught.value)
    assert "taken:2019-05..2020" in str(caught.value)
    assert "\n" not in str(caught.value)
