"""The plan of a removal, what was removed, and what was restored, to text."""

from collections.abc import Sequence
from pathlib import Path

from vggsearch.defaults import ActionKind
from vggsearch.errors import shell_word
from vggsearch.photos.walk import one_line
from vggsearch.removal.perform import RemovalReport
from vggsearch.removal.plan import PlannedRemoval, RemovalPlan
from vggsearch.removal.request import Action, Refusal
from vggsearch.removal.undo import UndoReport
from vggsearch.render.text import quantity
from vggsearch.system.units import decimal

MOST_REFUSALS = 20  # that are listed one by one
DONE: dict[ActionKind, str] = {
    "trash": "moved to the trash",
    "move": "moved to {}",
    "hardlink": "replaced with hard links",
    "symlink": "replaced with symbolic links",
    "delete": "deleted",
}


def removal_plan(plan: RemovalPlan) -> str:
    """List what would be removed, what would not and why, and how much space that frees."""
    lines = [_planned(act, plan.action) for act in plan.removals]
    return "\n".join([*lines, *_refusals(plan.refusals, "not removed"), plan_total(plan)])


def _planned(act: PlannedRemoval, action: Action) -> str:
    companions = f", with {', '.join(map(one_line, act.companions))}" if act.companions else ""
    return f"{action.kind}  {one_line(act.path)}  (keep {one_line(act.removal.keeper)}{companions})"


def plan_total(plan: RemovalPlan) -> str:
    """Say how many photos a plan would remove, where they would go, and how much space that frees."""
    if not plan.removals:
        return "Nothing to remove."
    done = DONE[plan.action.kind].format(one_line(str(plan.action.folder)))
    total = f"{quantity(len(plan.removals), 'photo')} would be {done}, freeing {decimal(plan.freed_bytes)}"
    if plan.action.kind == "trash":
        total += " once the trash is emptied"
    if plan.irreversible:
        copies = quantity(len(plan.irreversible), "edited copy", "edited copies")
        total += f"; {copies} among them cannot be restored afterwards"
    return f"{total}."


def removal_report(report: RemovalReport, root: Path | None = None) -> str:
    """Say what was removed, and how to undo it; `root` is the photo folder if it is not that of the index."""
    line = f"{quantity(len(report.done), 'file')} removed, {decimal(report.freed_bytes)} freed"
    refusals = _refusals(report.refusals, "not removed")
    where = f" --root {shell_word(root)}" if root is not None else ""
    return "\n".join([*refusals, line, f"Undo: vggsearch dups undo {shell_word(report.journal)}{where}"])


def undo_report(report: UndoReport) -> str:
    """Say what was restored."""
    line = f"{quantity(len(report.restored), 'file')} restored"
    if report.already_there:
        line += f", {len(report.already_there):,} already in place"
    return "\n".join([*_refusals(report.refusals, "not restored"), line])


def _refusals(refusals: Sequence[Refusal], outcome: str) -> list[str]:
    lines = [f"{outcome}: {one_line(refusal.shell_reason)}" for refusal in refusals[:MOST_REFUSALS]]
    if len(refusals) > MOST_REFUSALS:
        lines.append(f"{outcome}: {len(refusals) - MOST_REFUSALS:,} more")
    return lines
