"""A report that is restricted to some groups, and to members of some kinds."""

import pytest

from tests.helpers.duplicates import group, member, pair, photo
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.shown import restricted
from vggsearch.errors import OptionError

GROUPS = [
    group(1, photo("a.jpg"), member("b.jpg", "exact", 1.0, 1.0), member("c.jpg", "near", 0.9, 0.95)),
    group(2, photo("d.jpg"), member("e.jpg", "near", 0.9, 0.95), member("a.jpg", "similar", 0.8, 0.6)),
]
EXACT = pair("b.jpg", "a.jpg", 1.0, "exact")
PAIRS = [EXACT, pair("c.jpg", "a.jpg", 0.9, "near"), pair("e.jpg", "d.jpg", 0.9, "near")]
Left = tuple[dict[int, list[str]], list[str]]


def left(passing: frozenset[str] | None = None, **options: tuple[str, ...]) -> Left:
    """Return the members that are left by the number of their group, and the first photos of the pairs left."""
    groups, pairs = restricted(GROUPS, PAIRS, DuplicateOptions(**options), passing)  # type: ignore[arg-type]
    members = {each.number: [one.photo.path for one in each.members] for each in groups}
    return members, [each.first.path for each in pairs]


def test_nothing_is_left_out_without_a_restriction() -> None:
    assert left() == ({1: ["b.jpg", "c.jpg"], 2: ["e.jpg", "a.jpg"]}, ["b.jpg", "c.jpg", "e.jpg"])


def test_only_members_of_some_kinds_are_left() -> None:
    assert left(kinds=("exact",)) == ({1: ["b.jpg"]}, ["b.jpg"])


def test_a_group_is_that_of_its_keeper_and_its_duplicates_and_not_of_what_is_similar() -> None:
    for path in ("a.jpg", "b.jpg", "c.jpg"):
        assert left(group_of=(path,)) == ({1: ["b.jpg", "c.jpg"]}, ["b.jpg", "c.jpg"])
    assert left(group_of=("e.jpg", "b.jpg"))[0].keys() == {1, 2}


def test_groups_with_a_photo_that_passes_the_filters_are_left_whole() -> None:
    assert left(frozenset({"e.jpg"})) == ({2: ["e.jpg", "a.jpg"]}, ["e.jpg"])
    assert left(frozenset()) == ({}, [])
    assert left(frozenset({"c.jpg"}), kinds=("exact",)) == ({}, [])


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(OptionError, match="no kind 'close' of duplicates"):
        DuplicateOptions(kinds=("close",))
