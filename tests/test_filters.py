"""Filters against the obvious slow way: path by path, date by date, in plain Python."""

import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.query.filters import FoldedPaths, parse_filter
from vggsearch.store.paths import Paths

PATHS = (
    "a.png",
    "IMG_1.JPG",
    "2019/b.jpg",
    "2019/may/c.png",
    "trips/rome/d.jpg",
    "trips/romeo/e.jpg",
    "x/trips/f.jpg",
)


class Photos:
    """What is known of some photos, row by row."""

    def __init__(self, paths: Sequence[str] = (), **columns: Sequence[object]) -> None:
        self._paths, self._columns = paths, columns

    @cached_property
    def folded_paths(self) -> FoldedPaths:
        return FoldedPaths(Paths([pa.chunked_array([self._paths], pa.string())]))

    def column(self, name: str) -> NDArray[Any]:
        kind = "datetime64[ms]" if name == "taken" else np.int32
        return np.array(self._columns[name], kind)


def kept(text: str, paths: Sequence[str] = PATHS) -> list[str]:
    mask = parse_filter(text).keeps(Photos(paths))
    assert mask.shape == (len(paths),)
    return [path for path, is_kept in zip(paths, mask, strict=True) if is_kept]


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


def matches(glob: str, path: str) -> bool:
    """Whether a glob matches a path, or a name if it has no slash, sign by sign; the obvious slow way."""
    if not glob:
        return not path
    if glob == "/**":
        return path.startswith("/")
    if glob.startswith("**/"):
        return matches(glob[3:], path) or any(
            sign == "/" and matches(glob[3:], path[at + 1 :]) for at, sign in enumerate(path)
        )
    if glob.startswith("**"):
        return any(matches(glob[2:], path[at:]) for at in range(len(path) + 1))
    if glob[0] == "*":
        ends = path.find("/") if "/" in path else len(path)
        return any(matches(glob[1:], path[at:]) for at in range(ends + 1))
    return (
        bool(path) and (glob[0] == path[0] or (glob[0] == "?" and path[0] != "/")) and matches(glob[1:], path[1:])
    )


LETTERS = st.text("aB.\u00e9+", min_size=1, max_size=3)
NAMES = st.lists(LETTERS, min_size=1, max_size=4).map("/".join)
GLOBS = st.lists(st.sampled_from(["a", "b", ".", "\u00e9", "+", "/", "?", "*", "**", "**/", "/**"]), max_size=6)


@given(st.lists(NAMES, max_size=8), GLOBS.map("".join))
def test_any_glob_keeps_the_paths_that_it_matches_sign_by_sign(paths: list[str], glob: str) -> None:
    if not glob.strip():
        return
    plain = glob.removeprefix("./")
    plain += "**" if plain.endswith("/") else ""
    compared = {path: path if "/" in plain else path.rpartition("/")[2] for path in paths}  # the file name alone
    assert kept(glob, paths) == [path for path in paths if matches(plain, compared[path].lower())]


@given(st.lists(NAMES, max_size=8), NAMES)
def test_any_folder_keeps_what_lies_below_it(paths: list[str], folder: str) -> None:
    inside = [path for path in paths if path.lower().startswith(f"{folder.lower()}/")]
    if folder.removeprefix("./") == folder != ".":
        assert kept(f"folder:{folder}", paths) == inside


def test_signs_of_regular_expressions_mean_themselves() -> None:
    for path in ("a+b(1).jpg", "x^$|.jpg", "back\\slash.jpg", "two\nlines.jpg"):
        assert kept(path, [path, "other.jpg"]) == [path]
    assert kept("a[[]1].jpg", ["a[1].jpg"])
    assert kept("a[^]1].jpg", ["a^1].jpg"])
    assert kept("open[.jpg", ["open[.jpg"])
    assert kept("path:a:b.jpg", ["a:b.jpg"])
    assert kept("[!b].jpg", ["a.jpg", "b.jpg", "c.jpg"]) == ["a.jpg", "c.jpg"]


def test_an_accent_is_one_however_the_file_system_writes_it() -> None:
    apart = unicodedata.normalize("NFD", "caf\u00e9")
    assert apart != "caf\u00e9"
    assert kept("folder:caf\u00e9", [f"{apart}/a.jpg", "cafe/a.jpg"]) == [f"{apart}/a.jpg"]
    assert kept("caf?.jpg", ["a.jpg", f"{apart.upper()}.jpg"]) == [f"{apart.upper()}.jpg"]


def test_many_stars_do_not_take_for_ever() -> None:
    assert kept("**/" * 40 + "x.png", ["a/" * 40 + "y.png", "a/" * 40 + "x.png"]) == ["a/" * 40 + "x.png"]


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
    second = timedelta(seconds=1)
    photos = Photos(taken=[first - second, first, last, last + second, None])
    assert parse_filter(text).keeps(photos).tolist() == [False, True, True, False, False]


DAYS = st.dates().map(lambda day: day.isoformat())


@given(DAYS, DAYS, st.lists(st.none() | st.datetimes().map(lambda moment: moment.replace(microsecond=0))))
def test_any_time_keeps_the_dates_that_are_in_it_as_text(
    one: str, other: str, moments: list[datetime | None]
) -> None:
    first, last = sorted((one, other))
    for begin, end in ((first, last), (first[:7], last), (first[:4], last[:4]), (first, "")):
        expected = [
            moment is not None
            and begin <= moment.isoformat()[: len(begin)]
            and (not end or moment.isoformat()[: len(end)] <= end)
            for moment in moments
        ]
        assert parse_filter(f"taken:{begin}..{end}").keeps(Photos(taken=moments)).tolist() == expected


def test_an_open_end_has_no_end() -> None:
    moments = [datetime(1, 1, 1), datetime(2020, 1, 1), datetime(9999, 12, 31, 23)]
    for text, expected in (
        ("taken:..2019", [True, False, False]),
        ("taken:2019..", [False, True, True]),
        ("taken:9999", [False, False, True]),
        ("taken:9999-12-31", [False, False, True]),
    ):
        assert parse_filter(text).keeps(Photos(taken=moments)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size:1000..", [False, True, True]),
        ("size:..1000", [True, True, False]),
        ("size:1000", [False, True, False]),
        ("size:500..1000", [True, True, False]),
        ("size: 501 .. 999 ", [False, False, False]),
    ],
)
def test_a_size_is_that_of_the_longer_side(text: str, expected: list[bool]) -> None:
    photos = Photos(width=[500, 300, 1001], height=[20, 1000, 900])
    assert parse_filter(text).keeps(photos).tolist() == expected


def test_an_orientation_is_that_of_the_upright_photo() -> None:
    photos = Photos(width=[30, 40, 30], height=[40, 30, 30])
    for number, name in enumerate(("portrait", "landscape", "square")):
        assert parse_filter(f"orientation:{name}").keeps(photos).tolist() == [row == number for row in range(3)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("folder: ", "is empty"),
        ("folders:x", "Unknown filter folders: in 'folders:x'"),
        ("taken:..", "neither a start nor an end"),
        ("taken:2019-13", "2019-13 does not exist"),
        ("taken:2019-02-29", "2019-02-29 does not exist"),
        ("taken:0000", "0000 does not exist"),
        ("taken:last year", "'last year' is not a date"),
        ("taken:2020..2019", "2020 is after 2019"),
        ("size:big", "'big' is not a whole number of pixels"),
        ("size:-5..", "'-5' is not a whole number of pixels"),
        ("size:20..10", "20 is more than 10"),
        ("orientation:upside", "'upside' is not one of portrait, landscape, square"),
        ("[z-a].jpg", "[z-a] is not a valid character set"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_can_be_written(text: str, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_filter(text)
    assert told in str(caught.value)
    assert "taken:2019-05..2020" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["*.png", "folder:x", "**"])
def test_of_no_photos_none_is_kept(text: str) -> None:
    assert kept(text, []) == []
