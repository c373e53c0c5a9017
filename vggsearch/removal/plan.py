"""The plan of a removal: what would be removed, what would not and why. Nothing is changed."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vggsearch.errors import ActionRefused
from vggsearch.removal.request import Action, Refusal, Removal
from vggsearch.removal.safety import ExaminedRemoval, Listings, SafetyRules


@dataclass(frozen=True, slots=True)
class PlannedRemoval:
    """A removal that is allowed.

    `companions` are the paths of the files that go with the photo. `freed_bytes` is the space this frees on the
    volume of the photo folder, for the trash once it is emptied; 0 for a file with other hard links.

    >>> planned = index.plan_removal(index.duplicates(), "trash").removals[0]
    >>> planned.path, planned.companions, planned.freed_bytes == planned.removal.bytes
    ('copy of a.jpg', (), True)
    """

    removal: Removal
    companions: tuple[str, ...]
    freed_bytes: int

    @property
    def path(self) -> str:
        """The path of the photo."""
        return self.removal.path


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What `perform` would remove, in order, and what it would leave alone. No file was read or changed.

    `protect` are folders or files that are never touched; `raw_pairs` allows removing half of a RAW and JPEG pair.

    >>> plan = index.plan_removal(index.duplicates(), "delete")
    >>> str(plan.action), len(plan.removals), len(plan.irreversible)
    ('delete', 1, 0)
    """

    root: Path
    action: Action
    removals: tuple[PlannedRemoval, ...]
    refusals: tuple[Refusal, ...]
    protect: tuple[Path, ...] = ()
    raw_pairs: bool = False

    @property
    def freed_bytes(self) -> int:
        """The space that all removals free together."""
        return sum(each.freed_bytes for each in self.removals)

    @property
    def irreversible(self) -> tuple[PlannedRemoval, ...]:
        """The removals that cannot be undone: edited copies to be deleted, whose bytes are nowhere else."""
        return tuple(each for each in self.removals if self.action.kind == "delete" and not each.removal.is_exact)


def make_plan(
    root: Path, removals: Sequence[Removal], action: Action, protect: Sequence[Path] = (), raw_pairs: bool = False
) -> RemovalPlan:
    """Plan removals without opening a file; `perform` reads both files of each.

    `protect` are folders or files that are never touched. Half of a RAW and JPEG pair is left alone unless
    `raw_pairs`. Raises PhotosError or OptionError if a folder is missing or unsuitable.
    """
    rules = SafetyRules(root, action, protect, raw_pairs)
    listings: Listings = {}
    refusals: list[Refusal] = []
    examined = _examine(rules, removals, listings, refusals)
    planned = _check_keepers_stay(rules, examined, listings, refusals)
    order = {removal.path: number for number, removal in enumerate(removals)}
    refusals.sort(key=lambda refusal: order[refusal.path])
    protected = tuple(each.absolute() for each in protect)
    return RemovalPlan(rules.root, rules.action, tuple(planned), tuple(refusals), protected, raw_pairs)


def _examine(
    rules: SafetyRules, removals: Sequence[Removal], listings: Listings, refusals: list[Refusal]
) -> list[ExaminedRemoval]:
    """Examine each removal as if all others had happened before it."""
    counts = Counter(removal.path for removal in removals)
    examined = []
    for removal in removals:
        try:
            if counts[removal.path] > 1:
                raise ActionRefused(f"{removal.path} is listed twice: a file has one keeper")
            examined.append(rules.examine(removal, counts, listings))
        except ActionRefused as error:
            refusals.append(Refusal.of(removal.path, error))
    return examined


def _check_keepers_stay(
    rules: SafetyRules, examined: Sequence[ExaminedRemoval], listings: Listings, refusals: list[Refusal]
) -> list[PlannedRemoval]:
    """Refuse removals whose keeper is to be removed too; find the companions of the others, in order."""
    going = {_identity(each.photo.status) for each in examined}
    planned, gone = [], set[str]()
    for each in examined:
        removal = each.removal
        try:
            if _identity(each.keeper.status) in going:
                raise ActionRefused(f"{removal.keeper}, its keeper, is to be removed too")
            again = rules.examine(removal, gone, listings)
        except ActionRefused as error:
            refusals.append(Refusal.of(removal.path, error))
            continue
        gone.add(removal.path)
        files = (again.photo, *again.companions)
        freed_bytes = sum(found.status.st_size for found in files if found.status.st_nlink == 1)
        planned.append(PlannedRemoval(removal, tuple(found.relative for found in again.companions), freed_bytes))
    return planned


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
