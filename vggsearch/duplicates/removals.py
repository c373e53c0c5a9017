"""From groups to what is to be done with them: which files go, as copies of which."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.paths import inside
from vggsearch.duplicates.results import Group
from vggsearch.errors import OptionError, option
from vggsearch.removal.plan import RemovalPlan, make_plan
from vggsearch.removal.request import Action, Removal
from vggsearch.store.contents import JOURNALS


def plan_removals(
    root: Path, report: DuplicatesReport, action: str, protect: Sequence[str], *, with_raw: bool
) -> RemovalPlan:
    """Return what an action, as on the command line, would do with what may be removed of all groups.

    `protect` are folders, as a person names them. Raises OptionError for an unknown action and for a report that is
    not to be acted on: one that was stopped early, since what is not whole may be wrong; one against another index,
    whose photos are not looked after here; and one of similarity alone, unless by a threshold that was asked for.
    """
    if not report.found.is_whole:
        raise OptionError("The search was stopped early; a partial result is not acted on. Search again first.")
    if report.is_against:
        raise OptionError("An action is for duplicates within one index, not for those found against another.")
    if not report.was_compared and report.found.threshold is None:
        raise OptionError(
            "The photos were not compared, so other shots of the same subject may be taken for copies. Pass ",
            option("confirm"),
            " or, if you are sure from which similarity on they are copies, ",
            option("threshold", 0.9),
            ".",
        )
    folders = [root / inside(root, folder) for folder in protect]
    return make_plan(root, removals_of(report.groups), Action.parse(action), folders, with_raw=with_raw)


def removals_of(groups: Sequence[Group]) -> list[Removal]:
    """Return the members that may be removed, group by group, each with what is kept in its place."""
    return [
        Removal(member.photo.path, member.photo.sha256, member.photo.bytes, group.keeper.path, group.keeper.sha256)
        for group in groups
        for member in group.removable
    ]


def new_journal(directory: Path) -> Path:
    """Return where the journal of what is done now goes: INDEX/journals/2026-11-24-204215.jsonl."""
    folder = directory / JOURNALS
    folder.mkdir(exist_ok=True)
    return folder / f"{datetime.now():%Y-%m-%d-%H%M%S}.jsonl"
