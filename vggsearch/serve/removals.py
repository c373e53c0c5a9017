"""Removals on behalf of clients: plan, perform once it was read, list the journals, undo."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from vggsearch.defaults import SERVE
from vggsearch.duplicates.removals import undo
from vggsearch.duplicates.results import Groups
from vggsearch.errors import JournalError
from vggsearch.removal.journal import read_journal
from vggsearch.removal.perform import RemovalReport
from vggsearch.removal.plan import RemovalPlan
from vggsearch.removal.request import Refusal
from vggsearch.removal.undo import UndoReport
from vggsearch.render.removal import plan_total
from vggsearch.serve.answers import bad_request, not_found
from vggsearch.serve.jobs import Job, Jobs, Values
from vggsearch.serve.library import IndexLibrary
from vggsearch.serve.reports import Report, Reports
from vggsearch.store.contents import JOURNALS

REVERSIBLE = ("trash", "hardlink", "symlink")
MOVE = "move"


@dataclass(frozen=True, eq=False)
class _Planned:
    report: Report
    plan: RemovalPlan


class Removals:
    """Plans that clients have read, or not yet. `move_to` is the only folder for the action move, None for none."""

    def __init__(self, library: IndexLibrary, reports: Reports, jobs: Jobs, move_to: Path | None) -> None:
        self._library, self._reports, self._jobs, self._move_to = library, reports, jobs, move_to
        self._plans: OrderedDict[str, _Planned] = OrderedDict()
        self._changing = Lock()

    @property
    def actions(self) -> list[str]:
        """What may be done with duplicates: nothing that cannot be undone."""
        return [*REVERSIBLE, *([MOVE] if self._move_to is not None else [])]

    def plan(self, report: str, action: str, numbers: Sequence[int] | None) -> Values:
        """Plan an action on the groups of a report with these numbers, None for all. Raises Problem."""
        known = self._reports.find(report)
        chosen = [group for group in known.found.groups if numbers is None or group.number in numbers]
        if numbers is not None and len(chosen) != len(set(numbers)):
            raise not_found("There is no group with one of these numbers.")
        index = self._library.indexes[known.position]
        plan = index.plan_removal(replace(known.found, groups=Groups(chosen)), self._spelled(action))
        with self._changing:
            name = secrets.token_hex(8)
            self._plans[name] = _Planned(known, plan)
            while len(self._plans) > SERVE.plans_remembered:
                self._plans.popitem(last=False)
        return self._described(name, known, plan)

    def _spelled(self, action: str) -> str:
        """Return an action as the command line spells it. Raises Problem."""
        if action not in self.actions:
            raise bad_request(f"action is one of {', '.join(self.actions)}.")
        return f"{MOVE}:{self._move_to}" if action == MOVE else action

    def _described(self, name: str, report: Report, plan: RemovalPlan) -> Values:
        def named(path: str) -> Values:
            return {"id": self._library.id_of(report.position, path), "path": path}

        return {
            "removal": name,
            "action": plan.action.kind,
            "removals": [
                {
                    **named(planned.path),
                    "keep": named(planned.removal.keeper),
                    "bytes": planned.removal.bytes,
                    "frees_bytes": planned.freed_bytes,
                    "companions": list(planned.companions),
                    "exact": planned.removal.is_exact,
                }
                for planned in plan.removals
            ],
            "refused": _refused(plan.refusals),
            "frees_bytes": plan.freed_bytes,
            "line": plan_total(plan),
        }

    def apply(self, name: str) -> Job:
        """Perform a plan, once. Raises Problem if it is not known, or if what it rests on has changed."""
        with self._changing:
            planned = self._plans.pop(name, None)
        if planned is None:
            raise not_found("There is no such plan, or it was carried out already. Make a new one.")
        self._reports.find(planned.report.id)
        index = self._library.indexes[planned.report.position]
        return self._jobs.start(
            "removal",
            lambda progress, stop: index.remove(planned.plan, progress=progress, stop=stop),
            lambda report: self._removed(planned.report.position, report),
        )

    def _removed(self, position: int, report: RemovalReport) -> Values:
        return {
            "index": self._library.names[position],
            "journal": report.journal.name,
            "removed": [entry.path for entry in report.done],
            "refused": _refused(report.refusals),
            "freed_bytes": report.freed_bytes,
        }

    def journals(self) -> list[Values]:
        """Return the journals of all indexes, the latest first."""
        found = [
            _journal(name, file)
            for name, index in zip(self._library.names, self._library.indexes, strict=True)
            for file in (index.directory / JOURNALS).glob("*.jsonl")
        ]
        return sorted(found, key=lambda journal: str(journal["journal"]), reverse=True)

    def undo(self, name: str, index: str | None) -> Job:
        """Undo the removal of a journal. Raises Problem if there is none of this name."""
        directory = self._library.indexes[self._library.position(index)].directory
        known = {file.name: file for file in (directory / JOURNALS).glob("*.jsonl")}
        if name not in known:
            raise not_found("There is no journal of this name.")
        return self._jobs.start(
            "undo", lambda progress, stop: undo(known[name], progress=progress, stop=stop), _restored
        )


def _refused(refusals: Sequence[Refusal]) -> list[Values]:
    return [{"path": refusal.path, "reason": refusal.shell_reason} for refusal in refusals]


def _restored(report: UndoReport) -> Values:
    return {
        "restored": list(report.restored),
        "already_there": list(report.already_there),
        "refused": _refused(report.refusals),
    }


def _journal(index: str, file: Path) -> Values:
    values: Values = {"index": index, "journal": file.name}
    try:
        record = read_journal(file)
    except JournalError as error:
        return values | {"error": error.for_shell()}
    done = [entry for entry in record.entries if record.outcomes.get(entry.act) != "kept"]
    undone = [entry for entry in done if record.outcomes.get(entry.act) == "undone"]
    counts = {"removed": len(done), "undone": len(undone), "damaged": len(record.damaged)}
    return values | {"action": record.action.partition(":")[0], **counts, "bytes": sum(each.bytes for each in done)}
