"""Undo what a journal says was done, last act first. Nothing that is there is ever overwritten.

An act may have been interrupted anywhere, and so may an undo. So each file is looked for on the disk, whatever the
journal says became of it: under the name it had while it was aside, where it was moved, in the trash, and last in
its keeper, which has the same bytes.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vggsearch.errors import ActionRefused, JournalError, PhotosError, Stopped, option
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.removal.files import (
    aside_name,
    copy_to,
    flush_folder,
    has_bytes,
    link_name,
    look,
    make_folders,
    part_name,
    place,
    refusing,
    rename_new,
)
from vggsearch.removal.journal import DamagedLine, Journal, JournalEntry, Record, read_journal
from vggsearch.removal.request import Refusal
from vggsearch.removal.trash import Trash, where_to_look


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What undo did: paths that were restored, that were there already, and that could not be and why."""

    restored: tuple[str, ...]
    already: tuple[str, ...]
    refusals: tuple[Refusal, ...]


def undo(
    journal: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> UndoReport:
    """Restore what a journal's acts removed, and note it in the journal. It may be interrupted and run again.

    `root` is the photo folder where that was moved since. `stop` is asked before each file. Raises JournalError
    where the journal cannot be read or written, PhotosError where the photo folder is not there; Stopped, with the
    report of what was restored, where `stop` ended it early.
    """
    monitor, path, bin_ = Monitor(progress, stop), Path(journal), Trash()
    record = read_journal(path)
    folder = _folder(path, record.root if root is None else Path(root))
    entries = [each for each in reversed(record.entries) if record.outcomes.get(each.act) not in ("kept", "undone")]
    restored, already = list[str](), list[str]()
    refusals = [_hidden(path, line) for line in record.damaged if line.hides_file]
    with Journal.extend(path) as log:
        for number, entry in enumerate(entries, 1):
            try:
                monitor.check()
            except Stopped as stopped:
                raise Stopped(report=UndoReport(tuple(restored), tuple(already), tuple(refusals))) from stopped
            try:
                with refusing(entry.path):
                    (restored if _Restoring(record, folder, entry, bin_).run() else already).append(entry.path)
                log.end(entry, "undone")
            except ActionRefused as error:
                refusals.append(Refusal(entry.path, str(error)))
            monitor.show("restoring", number, len(entries), "files")
    return UndoReport(tuple(restored), tuple(already), tuple(refusals))


def _hidden(journal: Path, line: DamagedLine) -> Refusal:
    """Say which file cannot be restored since its line cannot be read."""
    where = f"line {line.number} of {journal} is damaged ({line.problem})"
    if line.path is None:
        return Refusal(journal.name, f"{where}: if it records a file, that one cannot be restored")
    return Refusal(line.path, f"{line.path} cannot be restored: {where}")


def _folder(journal: Path, folder: Path | None) -> Path:
    if folder is None:
        raise JournalError(
            journal,
            "does not say where the photos were (line 1 is damaged)",
            "Name the photo folder: ",
            option("root", "PHOTOS"),
            ".",
        )
    if not folder.is_dir():
        raise PhotosError(
            f"{folder}, where the photos were, is not there. Is its disk mounted? If they moved, pass ",
            option("root", "DIR"),
            ".",
        )
    return Path(os.path.realpath(folder))


class _Restoring:
    """One file on its way back. The folder it was in is made again if it is gone."""

    def __init__(self, record: Record, root: Path, entry: JournalEntry, bin_: Trash) -> None:
        self.root = root
        self.entry = entry
        self.bin = bin_
        self.was = _as_it_was_called(root if record.root is None else record.root, entry.path)
        self.path = _place_again(root, entry.path)
        self.aside = aside_name(self.path, entry.token)
        self.part = part_name(self.path, entry.token)
        self.away = link_name(self.path, entry.token)

    def run(self) -> bool:
        """Restore the file; False where it is there already. Raises ActionRefused where it cannot be restored."""
        if not os.path.lexists(self.path):
            self._fill()
        elif self._is_our_link(self.path):
            self._replace_link()
        elif has_bytes(self.path, self.entry.sha256):
            self._tidy()
            return False
        else:
            raise ActionRefused(f"{self.entry.path} is not as it was before, and is left alone{self._also_aside()}")
        self._tidy()
        flush_folder(self.path.parent)
        return True

    def _fill(self) -> None:
        """Give the file its name back, or bring its bytes from elsewhere."""
        if os.path.lexists(self.aside):
            rename_new(self.aside, self.path)  # whatever it holds, it was here
            return
        for source, note in self._elsewhere():
            if has_bytes(source, self.entry.sha256):
                self._bring(source)
                if note is not None:
                    note.unlink(missing_ok=True)
                return
        self._copy_keeper()
        rename_new(self.part, self.path)

    def _replace_link(self) -> None:
        """Put the file where a link of ours is, which is looked at again under a name that nobody else knows."""
        ready = self.aside
        if not has_bytes(ready, self.entry.sha256):
            self._copy_keeper()
            ready = self.part
        self.path.rename(self.away)
        if not self._is_our_link(self.away):
            rename_new(self.away, self.path)
            raise ActionRefused(f"{self.entry.path} changed while it was looked at")
        rename_new(ready, self.path)

    def _elsewhere(self) -> Iterator[tuple[Path, Path | None]]:
        if self.entry.does == "move" and self.entry.target is not None:
            yield Path(self.entry.target), None
        if self.entry.does == "trash":
            yield from ((each.file, each.note) for each in self.bin.find(self.was))

    def _bring(self, source: Path) -> None:
        try:
            rename_new(source, self.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(source)
            rename_new(self.part, self.path)
            flush_folder(self.path.parent)
            self._remove_copied(source)

    def _remove_copied(self, source: Path) -> None:
        """Take away what was copied back from another volume, if it is still just that."""
        aside = aside_name(source, self.entry.token)
        source.rename(aside)
        if has_bytes(aside, self.entry.sha256) and has_bytes(self.path, self.entry.sha256):
            aside.unlink()
        else:
            rename_new(aside, source)

    def _copy_keeper(self) -> None:
        entry = self.entry
        if not entry.keeper_is_copy or entry.keeper is None:
            raise ActionRefused(f"{entry.path} cannot be restored: {self._why_not()}")
        keeper = look(self.root, entry.keeper)
        if not has_bytes(keeper.path, entry.sha256):
            raise ActionRefused(f"{entry.path} cannot be restored: {entry.keeper}, its copy, has changed since")
        self._copy(keeper.path)

    def _copy(self, source: Path) -> None:
        copy_to(self.part, source, self.entry.sha256, self.entry.mtime_ns, self.entry.mode)

    def _why_not(self) -> str:
        if self.entry.does == "trash":
            return f"it was not found in the trash. {where_to_look()}"
        if self.entry.does == "move":
            return f"{self.entry.target} is gone or has changed since it was moved there"
        return "it was deleted, and no copy has its bytes"

    def _is_our_link(self, path: Path) -> bool:
        entry = self.entry
        if entry.does == "symlink":
            return path.is_symlink() and str(path.readlink()) == entry.target
        if entry.does != "hardlink" or entry.keeper is None:
            return False
        try:
            return os.path.samestat(path.lstat(), look(self.root, entry.keeper).status)
        except (OSError, ActionRefused):
            return False

    def _tidy(self) -> None:
        """Take away what an interrupted act or undo left of its own: part of a copy, a link that was replaced."""
        self.part.unlink(missing_ok=True)
        if self.entry.does == "move" and self.entry.target is not None:
            self._tidy_target(Path(self.entry.target))
        if self._is_our_link(self.away):
            self.away.unlink()
        if has_bytes(self.aside, self.entry.sha256) and has_bytes(self.path, self.entry.sha256):
            self.aside.unlink()  # one more copy

    def _tidy_target(self, target: Path) -> None:
        """Where a move between volumes was interrupted, the file is at both ends, or was about to go at one."""
        part, aside = part_name(target, self.entry.token), aside_name(target, self.entry.token)
        part.unlink(missing_ok=True)
        if os.path.lexists(aside) and not os.path.lexists(target):
            rename_new(aside, target)
        if has_bytes(target, self.entry.sha256):
            self._remove_copied(target)

    def _also_aside(self) -> str:
        return f"; what it was is called {self.aside.name}, beside it" if os.path.lexists(self.aside) else ""


def _place_again(root: Path, inside: str) -> Path:
    """Return where a file was, its folder made again. Raises ActionRefused where that leads out of `root`."""
    folder = root / PurePosixPath(inside).parent
    missing = next((each for each in (folder, *folder.parents) if each.exists()), root)
    if not Path(os.path.realpath(missing)).is_relative_to(root) or ".." in PurePosixPath(inside).parts:
        raise ActionRefused(f"{inside} leads out of the photo folder")
    make_folders(folder)
    return place(root, inside)


def _as_it_was_called(root: Path, inside: str) -> Path:
    path = root / inside
    return Path(os.path.realpath(path.parent)) / path.name
