"""The plan: what would be done, what would not and why, before anything is."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vggsearch.errors import ActionRefused
from vggsearch.removal.request import Action, Refusal, Removal
from vggsearch.removal.safety import Examined, Listings, Rules


@dataclass(frozen=True, slots=True)
class Act:
    """A removal that may be done.

    `companions` are the paths of the files that go with the photo. `frees` is how many bytes that takes off the
    photo folder's volume, in trash only once it is emptied; 0 for a file that has other names on its volume.
    """

    removal: Removal
    companions: tuple[str, ...]
    frees: int

    @property
    def path(self) -> str:
        """The photo's path."""
        return self.removal.path


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What `perform` would do, in order, and what it would leave alone. Nothing has been read or changed yet.

    `protect` are folders, or files, that are never touched; `with_raw` allows acting on RAW and JPEG pairs.
    """

    root: Path
    action: Action
    acts: tuple[Act, ...]
    refusals: tuple[Refusal, ...]
    protect: tuple[Path, ...] = ()
    with_raw: bool = False

    @property
    def frees(self) -> int:
        """Bytes that all of it frees."""
        return sum(act.frees for act in self.acts)

    @property
    def irreversible(self) -> tuple[Act, ...]:
        """The acts that no undo can take back: near copies that are deleted, whose bytes nobody else has."""
        return tuple(act for act in self.acts if self.action.kind == "delete" and not act.removal.is_exact)


def make_plan(
    root: Path, removals: Sequence[Removal], action: Action, protect: Sequence[Path] = (), with_raw: bool = False
) -> RemovalPlan:
    """Say what would be done to each removal. No file is opened; performing reads both files of each.

    `protect` are folders, or files, that are never touched. A photo that makes a RAW and JPEG pair is left alone
    unless `with_raw`. Raises PhotosError or OptionError where a folder is missing or cannot be meant.
    """
    rules = Rules(root, action, protect, with_raw)
    listings: Listings = {}
    refusals: list[Refusal] = []
    examined = _possible(rules, removals, listings, refusals)
    acts = _with_their_keepers(rules, examined, listings, refusals)
    order = {removal.path: number for number, removal in enumerate(removals)}
    refusals.sort(key=lambda refusal: order[refusal.path])
    protected = tuple(each.absolute() for each in protect)
    return RemovalPlan(rules.root, rules.action, tuple(acts), tuple(refusals), protected, with_raw)


def _possible(
    rules: Rules, removals: Sequence[Removal], listings: Listings, refusals: list[Refusal]
) -> list[Examined]:
    """Examine each removal, as if all the others went before it."""
    counts = Counter(removal.path for removal in removals)
    possible = []
    for removal in removals:
        try:
            if counts[removal.path] > 1:
                raise ActionRefused(f"{removal.path} is to be removed more than once: one file, one keeper")
            possible.append(rules.examine(removal, counts, listings))
        except ActionRefused as error:
            refusals.append(Refusal(removal.path, str(error)))
    return possible


def _with_their_keepers(
    rules: Rules, examined: Sequence[Examined], listings: Listings, refusals: list[Refusal]
) -> list[Act]:
    """Refuse a photo whose keeper is to go, too, and say what goes with each of the others, in their order."""
    going = {_identity(each.photo.status) for each in examined}
    acts, gone = [], set[str]()
    for each in examined:
        removal = each.removal
        try:
            if _identity(each.keeper.status) in going:
                raise ActionRefused(f"{removal.keeper}, which is to be kept for it, is to be removed, too")
            again = rules.examine(removal, gone, listings)
        except ActionRefused as error:
            refusals.append(Refusal(removal.path, str(error)))
            continue
        gone.add(removal.path)
        files = (again.photo, *again.companions)
        frees = sum(found.status.st_size for found in files if found.status.st_nlink == 1)
        acts.append(Act(removal, tuple(found.inside for found in again.companions), frees))
    return acts


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
