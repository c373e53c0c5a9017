"""Perform a plan, one photo after the other, recording each file in the journal before and after."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vggsearch.errors import ActionRefused, Stopped
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.removal import trash
from vggsearch.removal.companions import is_video
from vggsearch.removal.files import (
    FoundFile,
    aside_name,
    check_sha256,
    copy_name,
    copy_to,
    flush_folder,
    make_folders,
    refusing_os_errors,
    refusing_read_errors,
    rename_exclusively,
    sha256_of,
)
from vggsearch.removal.journal import Journal, JournalEntry
from vggsearch.removal.live_photos import is_live_photo
from vggsearch.removal.plan import PlannedRemoval, RemovalPlan
from vggsearch.removal.request import Refusal
from vggsearch.removal.safety import ExaminedRemoval, SafetyRules, only_copy_of_companion


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """What was removed, photos and companions in order, and what was left alone and why.

    `freed_bytes` is counted as in the plan.

    >>> done = index.remove(index.plan_removal(index.duplicates(), "delete"))
    >>> len(done.done), len(done.refusals), done.freed_bytes > 0
    (1, 0, True)
    """

    journal: Path
    done: tuple[JournalEntry, ...]
    refusals: tuple[Refusal, ...]
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class _CheckedFile:
    """A file to remove whose sha256 was computed, and the copy that is kept, if there has to be one."""

    found: FoundFile
    sha256: str
    keeper: FoundFile | None
    keeper_sha256: str | None


class LeftAside(ActionRefused):
    """A file that could not get its name back; undo restores it."""


def perform(
    plan: RemovalPlan, journal: Path, *, progress: OnProgress | None = None, stop: Stop | None = None
) -> RemovalReport:
    """Perform a plan. A photo that has changed since is left alone, and the report says why.

    `journal` is a new file. `stop` is called before each photo. Raises JournalError if the journal cannot be
    written: nothing is touched that it does not record; Stopped, with the report of what was done, if `stop` ended
    it early.
    """
    monitor = Monitor(progress, stop)
    rules = SafetyRules(plan.root, plan.action, plan.protect, plan.raw_pairs)
    with Journal.create(journal, plan.root, str(plan.action)) as log:
        performer = _Performer(plan, rules, log)
        try:
            for number, planned in enumerate(plan.removals, 1):
                monitor.check()
                performer.remove(planned)
                monitor.show("removing duplicates", number, len(plan.removals))
        except Stopped as stopped:
            raise Stopped(report=performer.report(journal)) from stopped
    return performer.report(journal)


class _Performer:
    """Performs one plan, and collects what was done."""

    def __init__(self, plan: RemovalPlan, rules: SafetyRules, journal: Journal) -> None:
        self.plan = plan
        self.rules = rules
        self.journal = journal
        self.done: list[JournalEntry] = []
        self.refusals: list[Refusal] = []
        self.begun = 0
        self.freed_bytes = 0

    def report(self, journal: Path) -> RemovalReport:
        return RemovalReport(journal, tuple(self.done), tuple(self.refusals), self.freed_bytes)

    def remove(self, planned: PlannedRemoval) -> None:
        """Remove a photo, then its companions."""
        with self._recording_refusals(planned.path) as refused:
            examined = self.rules.examine(planned.removal)
            files = self._read(examined)
            targets = self._targets([each.found for each in files])
            self._remove_file(files[0], targets[0])
        if refused:
            return
        for file, target in zip(files[1:], targets[1:], strict=True):
            with self._recording_refusals(file.found.relative):
                self._remove_file(file, target)

    @contextmanager
    def _recording_refusals(self, path: str) -> Iterator[list[Refusal]]:
        """Record a refusal, and continue."""
        refused: list[Refusal] = []
        try:
            with refusing_os_errors(path):
                yield refused
        except ActionRefused as error:
            refused.append(Refusal.of(path, error))
            self.refusals += refused

    def _read(self, examined: ExaminedRemoval) -> list[_CheckedFile]:
        """Check the bytes of a photo, its keeper and its companions before any of them is touched."""
        removal = examined.removal
        check_sha256(examined.keeper.path, removal.keeper, removal.keeper_sha256)
        check_sha256(examined.photo.path, removal.path, removal.sha256)
        photo = _CheckedFile(examined.photo, removal.sha256, examined.keeper, removal.keeper_sha256)
        companions = (self._companion(each, examined) for each in examined.companions)
        return [photo, *(each for each in companions if each is not None)]

    def _companion(self, companion: FoundFile, examined: ExaminedRemoval) -> _CheckedFile | None:
        """Check the bytes of a companion. Return None for a video that stays: it is neither copied nor its own."""
        with refusing_read_errors(companion.relative):
            digest, _ = sha256_of(companion.path)
        is_deleted, is_film = self.plan.action.kind == "delete", is_video(companion.path.name)
        if not is_deleted and not is_film:
            return _CheckedFile(companion, digest, None, None)
        for twin in self.rules.same_size_companions(examined.keeper, companion):
            with refusing_read_errors(twin.relative):
                if sha256_of(twin.path)[0] == digest:
                    return _CheckedFile(companion, digest, twin, digest)
        if is_film and not is_live_photo(examined.photo.path, companion.path):
            return None
        if is_deleted:
            raise only_copy_of_companion(companion, examined.keeper)
        return _CheckedFile(companion, digest, None, None)

    def _targets(self, files: list[FoundFile]) -> list[Path | None]:
        """Return where the files are moved, in the same folders; if a name is taken, all get the same number."""
        folder = self.plan.action.folder
        if folder is None:
            return [None] * len(files)
        stem, number = files[0].path.stem, 1
        while True:
            numbered = stem if number == 1 else f"{stem} ({number})"
            targets = [(folder / each.relative).with_name(numbered + each.path.name[len(stem) :]) for each in files]
            if not any(os.path.lexists(target) for target in targets):
                make_folders(targets[0].parent)
                return list(targets)
            number += 1

    def _remove_file(self, file: _CheckedFile, target: Path | None) -> None:
        entry = self._entry(file, target)
        self.journal.begin(entry)
        self.begun += 1
        try:
            with refusing_os_errors(entry.path):
                notes = _REMOVERS[entry.does](entry, file)
        except LeftAside:
            raise
        except ActionRefused as error:
            self.journal.end(entry, "kept", reason=str(error))
            raise
        self.done.append(entry)
        self.freed_bytes += entry.bytes if file.found.status.st_nlink == 1 else 0
        self.journal.end(entry, "done", **notes)

    def _entry(self, file: _CheckedFile, target: Path | None) -> JournalEntry:
        status = file.found.status
        entry = JournalEntry(
            self.begun + 1,
            self.plan.action.kind,
            file.found.relative,
            status.st_size,
            file.sha256,
            status.st_mtime_ns,
            status.st_mode,
            secrets.token_hex(8),
            None if file.keeper is None else file.keeper.relative,
            file.keeper_sha256,
            None if target is None else str(target),
        )
        if entry.does == "symlink" and file.keeper is not None:
            return replace(entry, target=os.path.relpath(file.keeper.path, file.found.path.parent))
        return entry


@contextmanager
def _set_aside(entry: JournalEntry, file: _CheckedFile) -> Iterator[Path]:
    """Rename a file to a hidden name and check it and its keeper again: only what was checked is removed.

    If that fails, or the body of the `with` does, the file gets its name back.
    """
    path, aside = file.found.path, aside_name(file.found.path, entry.token)
    path.rename(aside)
    try:
        check_sha256(aside, entry.path, file.sha256)
        _check_keeper(file)
        yield aside
    except BaseException as error:
        _put_back(entry, aside, path, error)
        raise
    with suppress(OSError):  # the removal is complete
        flush_folder(path.parent)


def _put_back(entry: JournalEntry, aside: Path, path: Path, error: BaseException) -> None:
    if not os.path.lexists(aside):
        return
    try:
        rename_exclusively(aside, path)
    except OSError as again:
        first = error.strerror if isinstance(error, OSError) else error
        raise LeftAside(
            f"{entry.path} is now called {aside.name} ({again.strerror}), after this: {first}. Undo restores it"
        ) from error


def _check_keeper(file: _CheckedFile) -> None:
    """Check the keeper by its own name: if it was the same file under another one, it is missing now."""
    if file.keeper is not None and file.keeper_sha256 is not None:
        check_sha256(file.keeper.path, file.keeper.relative, file.keeper_sha256)


def _delete(entry: JournalEntry, file: _CheckedFile) -> dict[str, str]:
    with _set_aside(entry, file) as aside:
        aside.unlink()
    return {}


def _hardlink(entry: JournalEntry, file: _CheckedFile) -> dict[str, str]:
    return _link(entry, file, lambda keeper, path: path.hardlink_to(keeper))


def _symlink(entry: JournalEntry, file: _CheckedFile) -> dict[str, str]:
    return _link(entry, file, lambda _, path: path.symlink_to(str(entry.target)))


def _link(entry: JournalEntry, file: _CheckedFile, make: Callable[[Path, Path], None]) -> dict[str, str]:
    path, keeper = file.found.path, file.keeper
    with _set_aside(entry, file) as aside:
        if keeper is None:
            raise ActionRefused(f"{entry.path} has no file to link to")
        make(keeper.path, path)
        if not (path.exists() and os.path.samestat(path.stat(), keeper.status)):
            path.unlink()
            raise ActionRefused(f"{entry.path}: the new link does not lead to {entry.keeper}")
        aside.unlink()
    return {}


def _move(entry: JournalEntry, file: _CheckedFile) -> dict[str, str]:
    target = Path(str(entry.target))
    with _set_aside(entry, file) as aside:
        try:
            rename_exclusively(aside, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = copy_name(target, entry.token)
            copy_to(copy, aside, file.sha256, entry.mtime_ns, entry.mode)
            rename_exclusively(copy, target)
            flush_folder(target.parent)
            aside.unlink()
    with suppress(OSError):  # the removal is complete
        flush_folder(target.parent)
    return {}


def _trash(entry: JournalEntry, file: _CheckedFile) -> dict[str, str]:
    """Put a file in the trash, which needs its own name, then check what arrived; take back a wrong file."""
    path = file.found.path
    there = trash.send(path)
    if there is None:
        return {"where": trash.where_to_look()}
    try:
        check_sha256(there.file, entry.path, file.sha256)
        _check_keeper(file)
    except ActionRefused as error:
        _take_back(entry, there, path, error)
        raise
    return {"where": str(there.file)}


def _take_back(entry: JournalEntry, there: trash.Trashed, path: Path, error: ActionRefused) -> None:
    try:
        rename_exclusively(there.file, path)
        there.note.unlink(missing_ok=True)
    except OSError as again:
        raise LeftAside(
            f"{entry.path} is in the trash as {there.file} ({again.strerror}), after this: {error}"
        ) from error


_REMOVERS: dict[str, Callable[[JournalEntry, _CheckedFile], dict[str, str]]] = {
    "delete": _delete,
    "hardlink": _hardlink,
    "symlink": _symlink,
    "move": _move,
    "trash": _trash,
}
