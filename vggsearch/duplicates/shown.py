"""Which groups and pairs of a report are shown and acted on: those of some photos, and members of some kinds."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.results import DUPLICATE_KINDS, Group, Groups, Pair, Pairs

Paths = frozenset[str]


def restricted(
    groups: Iterable[Group], pairs: Iterable[Pair], options: DuplicateOptions, passing: Paths | None
) -> tuple[Groups, Pairs]:
    """Return the groups and pairs that the options leave: `kinds`, `group_of`, and `filters`, by what passes them.

    `kinds` leaves only the members of these kinds, `group_of` only the groups of which one of these photos is the
    keeper or a duplicate, and `passing` only the groups with one of these photos; None leaves all.
    """
    some = [left for group in groups if (left := _of_kinds(group, options.kinds)) is not None]
    shown = Groups(group for group in some if _is_wanted(group, options.group_of, passing))
    of_kinds = (pair for pair in pairs if not options.kinds or pair.kind in options.kinds)
    if not options.group_of and passing is None:
        return shown, Pairs(of_kinds)
    paths = {path for group in shown for path in _paths(group)}
    return shown, Pairs(pair for pair in of_kinds if {pair.first.path, pair.second.path} <= paths)


def _of_kinds(group: Group, kinds: Collection[str]) -> Group | None:
    """Return a group with its members of some kinds, None if it has none of them."""
    members = tuple(member for member in group.members if not kinds or member.kind in kinds)
    return replace(group, members=members) if members else None


def _is_wanted(group: Group, group_of: Collection[str], passing: Paths | None) -> bool:
    duplicates = (member.photo.path for member in group.members if member.kind in DUPLICATE_KINDS)
    is_named = not group_of or not {group.keeper.path, *duplicates}.isdisjoint(group_of)
    return is_named and (passing is None or not passing.isdisjoint(_paths(group)))


def _paths(group: Group) -> Iterable[str]:
    return group.keeper.path, *(member.photo.path for member in group.members)
