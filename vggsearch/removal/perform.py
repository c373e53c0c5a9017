"""Do what a plan says, one photo after the other, each file noted in the journal before and after."""

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
from vggsearch.removal.files import (
    FoundFile,
    aside_name,
    check,
    copy_to,
    flush_folder,
    make_folders,
    part_name,
    reading,
    refusing,
    rename_new,
    sha256_of,
)
from vggsearch.removal.journal import Journal, JournalEntry
from vggsearch.removal.plan import Act, RemovalPlan
from vggsearch.removal.request import Refusal
from vggsearch.removal.safety import Examined, Rules, only_one_of_its_kind


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """What was done, photos and companions in order, and what was left alone and why.

    `frees` is in bytes, as in the plan.
    """

    journal: Path
    done: tuple[JournalEntry, ...]
    refusals: tuple[Refusal, ...]
    frees: int


@dataclass(frozen=True, slots=True)
class _File:
    """One file of an act that was read through, and its copy that stays, if it needs one."""

    found: FoundFile
    sha256: str
    keeper: FoundFile | None
    keeper_sha256: str | None


class LeftAside(ActionRefused):
    """A file that could not be given its name back; undo does."""


def perform(
    plan: RemovalPlan, journal: Path, *, progress: OnProgress | None = None, stop: Stop | None = None
) -> RemovalReport:
    """Do what is planned, and say what was done. A photo that is not as it was is left alone, with the reason.

    `journal` is a new file. `stop` is asked before each act. Raises JournalError where the journal cannot be
    written: what it holds was done, or is undone from it, and nothing else was touched; Stopped, with the report of
    what was done, where `stop` ended it early.
    """
    monitor = Monitor(progress, stop)
    rules = Rules(plan.root, plan.action, plan.protect, plan.with_raw)
    with Journal.create(journal, plan.root, str(plan.action)) as log:
        performer = _Performer(plan, rules, log)
        try:
            for number, act in enumerate(plan.acts, 1):
                monitor.check()
                performer.remove(act)
                monitor.show("removing duplicates", number, len(plan.acts))
        except Stopped as stopped:
            raise Stopped(report=performer.report(journal)) from stopped
    return performer.report(journal)


class _Performer:
    def __init__(self, plan: RemovalPlan, rules: Rules, journal: Journal) -> None:
        self.plan = plan
        self.rules = rules
        self.journal = journal
        self.done: list[JournalEntry] = []
        self.refusals: list[Refusal] = []
        self.begun = 0
        self.frees = 0

    def report(self, journal: Path) -> RemovalReport:
        return RemovalReport(journal, tuple(self.done), tuple(self.refusals), self.frees)

    def remove(self, act: Act) -> None:
        """Remove a photo, then what goes with it."""
        with self._noting(act.path) as noted:
            examined = self.rules.examine(act.removal)
            files = self._read(examined)
            targets = self._targets([each.found for each in files])
            self._do(files[0], targets[0])
        if noted:
            return
        for file, target in zip(files[1:], targets[1:], strict=True):
            with self._noting(file.found.inside):
                self._do(file, target)

    @contextmanager
    def _noting(self, path: str) -> Iterator[list[Refusal]]:
        """Take down what is refused, and go on."""
        noted: list[Refusal] = []
        try:
            with refusing(path):
                yield noted
        except ActionRefused as error:
            noted.append(Refusal(path, str(error)))
            self.refusals += noted

    def _read(self, examined: Examined) -> list[_File]:
        """Read through a photo, its keeper, and what goes with the photo, before any of them is touched."""
        removal = examined.removal
        check(examined.keeper.path, removal.keeper, removal.keeper_sha256)
        check(examined.photo.path, removal.path, removal.sha256)
        photo = _File(examined.photo, removal.sha256, examined.keeper, removal.keeper_sha256)
        return [photo, *(self._companion(each, examined.keeper) for each in examined.companions)]

    def _companion(self, companion: FoundFile, keeper: FoundFile) -> _File:
        with reading(companion.inside):
            digest, _ = sha256_of(companion.path)
        if self.plan.action.kind != "delete":
            return _File(companion, digest, None, None)
        for twin in self.rules.twins(keeper, companion):
            with reading(twin.inside):
                if sha256_of(twin.path)[0] == digest:
                    return _File(companion, digest, twin, digest)
        raise only_one_of_its_kind(companion, keeper)

    def _targets(self, files: list[FoundFile]) -> list[Path | None]:
        """Return where files are moved, folders kept; all get the same number where one of the names is taken."""
        folder = self.plan.action.folder
        if folder is None:
            return [None] * len(files)
        stem, number = files[0].path.stem, 1
        while True:
            numbered = stem if number == 1 else f"{stem} ({number})"
            targets = [(folder / each.inside).with_name(numbered + each.path.name[len(stem) :]) for each in files]
            if not any(os.path.lexists(target) for target in targets):
                make_folders(targets[0].parent)
                return list(targets)
            number += 1

    def _do(self, file: _File, target: Path | None) -> None:
        entry = self._entry(file, target)
        self.journal.begin(entry)
        self.begun += 1
        try:
            with refusing(entry.path):
                told = _DOERS[entry.does](entry, file)
        except LeftAside:
            raise
        except ActionRefused as error:
            self.journal.end(entry, "kept", reason=str(error))
            raise
        self.done.append(entry)
        self.frees += entry.bytes if file.found.status.st_nlink == 1 else 0
        self.journal.end(entry, "done", **told)

    def _entry(self, file: _File, target: Path | None) -> JournalEntry:
        status = file.found.status
        entry = JournalEntry(
            self.begun + 1,
            self.plan.action.kind,
            file.found.inside,
            status.st_size,
            file.sha256,
            status.st_mtime_ns,
            status.st_mode,
            secrets.token_hex(8),
            None if file.keeper is None else file.keeper.inside,
            file.keeper_sha256,
            None if target is None else str(target),
        )
        if entry.does == "symlink" and file.keeper is not None:
            return replace(entry, target=os.path.relpath(file.keeper.path, file.found.path.parent))
        return entry


@contextmanager
def _aside(entry: JournalEntry, file: _File) -> Iterator[Path]:
    """Give a file a name that nobody else knows, and read it and its keeper again: what goes is what was read.

    If that, or what is done in the block, fails, the file gets its name back.
    """
    path, aside = file.found.path, aside_name(file.found.path, entry.token)
    path.rename(aside)
    try:
        check(aside, entry.path, file.sha256)
        _check_keeper(file)
        yield aside
    except BaseException as error:
        _put_back(entry, aside, path, error)
        raise
    with suppress(OSError):  # it is done
        flush_folder(path.parent)


def _put_back(entry: JournalEntry, aside: Path, path: Path, error: BaseException) -> None:
    if not os.path.lexists(aside):
        return
    try:
        rename_new(aside, path)
    except OSError as again:
        raise LeftAside(
            f"{entry.path} is now called {aside.name} ({again.strerror}), after {error}. Undo puts that right"
        ) from error


def _check_keeper(file: _File) -> None:
    """Read the keeper again by its own name: had it been the same file under another name, it would be gone now."""
    if file.keeper is not None and file.keeper_sha256 is not None:
        check(file.keeper.path, file.keeper.inside, file.keeper_sha256)


def _delete(entry: JournalEntry, file: _File) -> dict[str, str]:
    with _aside(entry, file) as aside:
        aside.unlink()
    return {}


def _hardlink(entry: JournalEntry, file: _File) -> dict[str, str]:
    return _link(entry, file, lambda keeper, path: path.hardlink_to(keeper))


def _symlink(entry: JournalEntry, file: _File) -> dict[str, str]:
    return _link(entry, file, lambda _, path: path.symlink_to(str(entry.target)))


def _link(entry: JournalEntry, file: _File, make: Callable[[Path, Path], None]) -> dict[str, str]:
    path, keeper = file.found.path, file.keeper
    with _aside(entry, file) as aside:
        if keeper is None:
            raise ActionRefused(f"{entry.path} has nothing to be linked to")
        make(keeper.path, path)
        if not (path.exists() and os.path.samestat(path.stat(), keeper.status)):
            path.unlink()
            raise ActionRefused(f"{entry.path}: the link does not lead to {entry.keeper}")
        aside.unlink()
    return {}


def _move(entry: JournalEntry, file: _File) -> dict[str, str]:
    target = Path(str(entry.target))
    with _aside(entry, file) as aside:
        try:
            rename_new(aside, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            part = part_name(target, entry.token)
            copy_to(part, aside, file.sha256, entry.mtime_ns, entry.mode)
            rename_new(part, target)
            flush_folder(target.parent)
            aside.unlink()
    with suppress(OSError):  # it is done
        flush_folder(target.parent)
    return {}


def _trash(entry: JournalEntry, file: _File) -> dict[str, str]:
    """Look at what arrived in the trash, which takes a file under its own name only; take back what should not."""
    path = file.found.path
    trash.send(path)
    there = trash.landed(path)
    if there is None:
        return {"where": trash.where_to_look()}
    try:
        check(there.file, entry.path, file.sha256)
        _check_keeper(file)
    except ActionRefused as error:
        _take_back(entry, there, path, error)
        raise
    return {"where": str(there.file)}


def _take_back(entry: JournalEntry, there: trash.Trashed, path: Path, error: ActionRefused) -> None:
    try:
        rename_new(there.file, path)
        there.note.unlink(missing_ok=True)
    except OSError as again:
        raise LeftAside(
            f"{entry.path} is in the trash as {there.file} ({again.strerror}), after {error}"
        ) from error


_DOERS: dict[str, Callable[[JournalEntry, _File], dict[str, str]]] = {
    "delete": _delete,
    "hardlink": _hardlink,
    "symlink": _symlink,
    "move": _move,
    "trash": _trash,
}
