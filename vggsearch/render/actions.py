"""What is going to be done with duplicates, what was, and what was undone, to text."""

from collections.abc import Sequence

from vggsearch.removal.perform import RemovalReport
from vggsearch.removal.plan import RemovalPlan
from vggsearch.removal.request import Refusal
from vggsearch.removal.undo import UndoReport
from vggsearch.render.text import bytes_text, one_line

MOST = 20  # lines of a kind that a person is shown


def planned(plan: RemovalPlan) -> str:
    """Say what would be done, with each file, and what would not."""
    lines = [
        f"{plan.action}  {one_line(act.path)}  (kept: {one_line(act.removal.keeper)})"
        + (f"  with {', '.join(map(one_line, act.companions))}" if act.companions else "")
        for act in plan.acts
    ]
    total = f"{len(plan.acts):,} files to {plan.action}, which frees {bytes_text(plan.frees)}"
    if plan.irreversible:
        total += f"; {len(plan.irreversible):,} of them are edited copies, which nothing can bring back"
    return "\n".join([*lines, *_refusals(plan.refusals), total])


def done(report: RemovalReport) -> str:
    """Say what was done, and how to undo it."""
    line = f"{len(report.done):,} files done, {bytes_text(report.frees)} freed"
    return "\n".join([*_refusals(report.refusals), line, f"To undo it: vggsearch dups --undo {report.journal}"])


def undone(report: UndoReport) -> str:
    """Say what was restored."""
    line = f"{len(report.restored):,} files restored"
    if report.already:
        line += f", {len(report.already):,} there already"
    return "\n".join([*_refusals(report.refusals), line])


def _refusals(refusals: Sequence[Refusal]) -> list[str]:
    lines = [f"left alone: {one_line(refusal.reason)}" for refusal in refusals[:MOST]]
    if len(refusals) > MOST:
        lines.append(f"left alone: {len(refusals) - MOST:,} more")
    return lines
