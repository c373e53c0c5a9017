"""Duplicates of the indexes that are served: found once for each state and selection, and shown by page."""

import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any

from vggsearch.defaults import DUPLICATES, SERVE
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.results import Group, Photo
from vggsearch.image_index import latest_of
from vggsearch.progress import OnProgress, Stop
from vggsearch.render.calibration import chosen_line, notes
from vggsearch.render.duplicates import freed_bytes, group_values, member_edit
from vggsearch.serve.answers import Problem, bad_request
from vggsearch.serve.jobs import Job, Jobs, Values
from vggsearch.serve.library import IndexLibrary
from vggsearch.serve.parameters import Texts, flag, number, paging, whole
from vggsearch.store.contents import DECISIONS, JOURNALS

READ_ONLY = (
    "This server is read-only: it shows the duplicates that it found at its start, with the default options. Start "
    "it again if photos have changed, or with --allow-changes."
)
Key = tuple[object, ...]
ORDERS: dict[str, Callable[[Group], Any]] = {
    "number": lambda group: group.number,
    "review": lambda group: min(member.confidence for member in group.members),
    "bytes": lambda group: -freed_bytes(group),
    "size": lambda group: -len(group.members),
}


@dataclass(frozen=True, eq=False)
class Report:
    """Duplicates that were found in one state of an index, by an id; `key` says in which state, and how."""

    id: str
    key: Key
    position: int
    found: DuplicatesReport


class Reports:
    """The latest reports, and the jobs that make new ones: for clients only with `can_start`."""

    def __init__(self, library: IndexLibrary, jobs: Jobs, *, can_start: bool) -> None:
        self._library, self._jobs, self._can_start = library, jobs, can_start
        self._reports: OrderedDict[Key, Report] = OrderedDict()
        self._being_made: dict[Key, Job] = {}
        self._changing = Lock()

    def get(self, values: Texts, kinds: Sequence[str], filters: Sequence[str]) -> Report | Job:
        """Return the report on the present state, or the job that makes it. Raises Problem."""
        position = self._library.position(values.get("index"))
        chosen = selection(values, kinds, filters)
        key = self._key(position, chosen)
        with self._changing:
            if key in self._reports:
                self._reports.move_to_end(key)
                return self._reports[key]
            if key in self._being_made and not self._being_made[key].has_ended:
                return self._being_made[key]
            if not self._can_start:
                raise Problem(HTTPStatus.FORBIDDEN, READ_ONLY)
            return self._start(key, chosen)

    def prepare(self) -> None:
        """Have the duplicates of each index found, with the default options."""
        chosen = selection({}, (), ())
        with self._changing:
            for position in range(len(self._library.indexes)):
                self._start(self._key(position, chosen), chosen)

    def _start(self, key: Key, chosen: "Selection") -> Job:
        job = self._jobs.start(
            "duplicates",
            lambda progress, stop: self._make(key, chosen, progress, stop),
            lambda found: {"groups": len(found.groups)},
        )
        self._being_made = {key: job, **{k: j for k, j in self._being_made.items() if not j.has_ended}}
        return job

    def find(self, name: str) -> Report:
        """Return a report that still holds. Raises Problem once photos or decisions have changed."""
        with self._changing:
            report = next((each for each in self._reports.values() if each.id == name), None)
        if report is None or report.key != self._key(report.position, report.key[-1]):
            raise Problem(HTTPStatus.CONFLICT, "The duplicates have changed since. Look at them again.")
        return report

    def _key(self, position: int, chosen: object) -> Key:
        """Return what a report depends on: the photos, decisions and removals, and the selection."""
        index = self._library.indexes[position]
        state = latest_of(index).read(lambda state: state.store.manifest.fingerprint)
        return position, state, _versions(index.directory), chosen

    def _make(self, key: Key, chosen: "Selection", progress: OnProgress, stop: Stop) -> DuplicatesReport:
        position = key[0]
        assert isinstance(position, int)  # noqa: S101 - see _key
        found = self._library.indexes[position].duplicates(**dict(chosen), progress=progress, stop=stop)
        report = Report(secrets.token_hex(8), key, position, found)  # of the state before: it may have changed
        with self._changing:
            self._reports[report.key] = report
            while len(self._reports) > SERVE.reports_remembered:
                self._reports.popitem(last=False)
        return found

    def values(self, report: Report, values: Texts) -> Values:
        """Return a part of a report for JSON: its groups as the command line prints them, with ids."""
        order = values.get("order") or "number"
        if order not in ORDERS:
            raise bad_request(f"order={order!r} is not one of {', '.join(ORDERS)}.")
        groups = sorted(self._shown(report, values), key=ORDERS[order])
        offset, count = paging(values, 100)
        return {
            "report": report.id,
            "total": len(groups),
            "groups": [self._group(report, group) for group in groups[offset : offset + count]],
            "summary": _summary(groups),
            "chosen": chosen_line(report.found),
            "notes": notes(report.found),
        }

    def _shown(self, report: Report, values: Texts) -> list[Group]:
        photo = values.get("photo")
        return [
            group
            for group in report.found.groups
            if photo is None or any(self._id(report, each) == photo for each in photos_of(group))
        ]

    def _group(self, report: Report, group: Group) -> Values:
        printed = group_values(group)
        members = printed["members"]
        assert isinstance(members, list)  # noqa: S101 - as in the command line's JSON
        return printed | {
            "keeper": self._photo(report, group.keeper),
            "confidence": min(member.confidence for member in group.members),
            "frees_bytes": freed_bytes(group),
            "members": [
                {**values, **self._photo(report, member.photo), "edit": member_edit(member)}
                for values, member in zip(members, group.members, strict=True)
            ],
        }

    def _photo(self, report: Report, photo: Photo) -> Values:
        taken = photo.taken.isoformat(timespec="seconds") if photo.taken is not None else None
        facts = {"width": photo.width, "height": photo.height, "bytes": photo.bytes, "taken": taken}
        return {"id": self._id(report, photo), "path": photo.path, **facts}

    def _id(self, report: Report, photo: Photo) -> str:
        return self._library.id_of(report.position, photo.path)


Selection = tuple[tuple[str, Any], ...]  # the keywords of ImageIndex.duplicates, as a key


def selection(values: Texts, kinds: Sequence[str], filters: Sequence[str]) -> Selection:
    """Return how duplicates are to be found, from the options of `vggsearch dups`. Raises Problem."""
    chosen = {
        "min_precision": number(values, "min_precision", DUPLICATES.min_precision),
        "threshold": number(values, "threshold", None),
        "keep": values.get("keep") or DUPLICATES.keep,
        "min_size": whole(values, "min_size", 2, 2),
        "within_folder": flag(values, "within_folder", default=False),
        "across_folders": flag(values, "across_folders", default=False),
        "similar": flag(values, "similar", default=False),
        "siblings": flag(values, "siblings", default=False),
        "confirm": flag(values, "confirm", default=True),
        "kinds": tuple(kinds),
        "filters": tuple(filters),
    }
    return tuple(chosen.items())


def photos_of(group: Group) -> tuple[Photo, ...]:
    """Return the photos of a group, the keeper first."""
    return group.keeper, *(member.photo for member in group.members)


def _summary(groups: Sequence[Group]) -> Values:
    photos = sum(1 + len(group.members) for group in groups)
    return {
        "groups": len(groups),
        "photos": photos,
        "duplicates": photos - len(groups),
        "removable": sum(len(group.removable) for group in groups),
        "frees_bytes": sum(map(freed_bytes, groups)),
    }


def _versions(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, time and size of the files that record decisions, removals and undos."""
    files = (directory / DECISIONS, *sorted((directory / JOURNALS).glob("*.jsonl")))
    found = ((file.name, _status(file)) for file in files)
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found if status is not None)


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None
