"""Turn groups into a plan of removals: which files to remove, as copies of which."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.options import path_in_folder
from vggsearch.duplicates.results import Group
from vggsearch.errors import OptionError, option
from vggsearch.removal.plan import RemovalPlan, make_plan
from vggsearch.removal.request import Action, Removal
from vggsearch.store.contents import DECISIONS, JOURNALS
from vggsearch.store.decisions import read_decisions


def plan_removals(
    root: Path, report: DuplicatesReport, action: str, protect: Sequence[str], *, raw_pairs: bool
) -> RemovalPlan:
    """Plan an action for the members of all groups that may be removed. Nothing is changed yet.

    `action` is spelled as on the command line, `protect` are folders as the user names them. Raises OptionError for
    an unknown action, and for a report that must not be acted on: one that was stopped early, as it may be wrong;
    one against another index, whose photos are not managed here; and one based on similarity alone, unless the user
    chose the threshold. Raises DecisionsDamaged while a decision cannot be read, since it may keep a photo.
    """
    for error in read_decisions(report.directory / DECISIONS).damaged:
        raise error
    if not report.classified.is_complete:
        raise OptionError(
            "The search was stopped early, and a partial result may be wrong. Run it again to complete it."
        )
    if report.is_against:
        raise OptionError("Removal works on the duplicates within one index, not on those found against another.")
    if not report.was_compared and report.classified.threshold is None:
        raise OptionError(
            "The photos were not compared, so other shots of the same subject may be reported as copies. Pass ",
            option("confirm"),
            " or, if you know above which similarity photos are copies, a threshold such as ",
            option("threshold", 0.9),
            ".",
        )
    folders = [root / path_in_folder(root, folder) for folder in protect]
    return make_plan(root, removals_of(report.groups), Action.parse(action), folders, raw_pairs=raw_pairs)


def removals_of(groups: Sequence[Group]) -> list[Removal]:
    """Return a removal for each removable member, group by group, with the photo that is kept instead."""
    return [
        Removal(member.photo.path, member.photo.sha256, member.photo.bytes, group.keeper.path, group.keeper.sha256)
        for group in groups
        for member in group.removable
    ]


def new_journal(directory: Path) -> Path:
    """Return the path of a new journal, named after the current time: INDEX/journals/2026-11-24-204215.jsonl."""
    folder = directory / JOURNALS
    folder.mkdir(exist_ok=True)
    return folder / f"{datetime.now():%Y-%m-%d-%H%M%S}.jsonl"
