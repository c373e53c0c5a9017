"""Undo a removal from its journal, last step first. No existing file is ever overwritten.

A removal may have been interrupted anywhere, and so may an undo. So each file is searched for on the disk, whatever
the journal says about it: under its hidden name, where it was moved, in the trash, and finally in its keeper, which
has the same bytes.
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
    copy_name,
    copy_to,
    find_file,
    flush_folder,
    has_bytes,
    make_folders,
    old_link_name,
    refusing_os_errors,
    rename_exclusively,
    resolve_inside,
)
from vggsearch.removal.journal import DamagedLine, Journal, JournalEntry, Record, read_journal
from vggsearch.removal.request import Refusal
from vggsearch.removal.trash import Trash, where_to_look


@dataclass(frozen=True, slots=True)
class UndoReport:
    """The paths that undo restored, those that were in place already, and those it could not restore and why.

    >>> done = index.remove(index.plan_removal(index.duplicates(), "delete"))
    >>> undone = undo(done.journal)
    >>> undone.restored, undone.already_there
    (('copy of a.jpg',), ())
    """

    restored: tuple[str, ...]
    already_there: tuple[str, ...]
    refusals: tuple[Refusal, ...]


def undo(
    journal: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> UndoReport:
    """Restore the files that a journal records, and add the result to the journal.

    Nothing that exists is overwritten. The call may be interrupted and repeated. A damaged line affects only the
    file that it records, and is reported. `root` is the photo folder, if it has moved; `stop` is called before each
    file. Raises JournalError if the journal cannot be read or written, or is in use; PhotosError if the photo
    folder is missing; Stopped, with the report of what was restored, if `stop` ended it early.

    Which folder a journal may name is checked by vggsearch.duplicates.removals.undo.
    """
    monitor, path = Monitor(progress, stop), Path(journal)
    record = read_journal(path)
    undoing = _Undo(path, record, _folder(path, record.root if root is None else Path(root)))
    with Journal.extend(path) as log:
        try:
            for number, entry in enumerate(record.to_undo, 1):
                monitor.check()
                undoing.restore(entry, log)
                monitor.show("restoring", number, len(record.to_undo), "files")
        except Stopped as stopped:
            raise Stopped(report=undoing.report()) from stopped
    return undoing.report()


class _Undo:
    """Undoes one journal, and collects what was done."""

    def __init__(self, journal: Path, record: Record, root: Path) -> None:
        self.record = record
        self.root = root
        self.trash = Trash()
        self.restored: list[str] = []
        self.already_there: list[str] = []
        self.refusals = [_hidden(journal, line) for line in record.damaged if line.hides_file]

    def report(self) -> UndoReport:
        return UndoReport(tuple(self.restored), tuple(self.already_there), tuple(self.refusals))

    def restore(self, entry: JournalEntry, log: Journal) -> None:
        """Restore one file, or record why not."""
        try:
            with refusing_os_errors(entry.path):
                is_restored = _Restorer(self.record, self.root, entry, self.trash).run()
            (self.restored if is_restored else self.already_there).append(entry.path)
            log.end(entry, "undone")
        except ActionRefused as error:
            self.refusals.append(Refusal.of(entry.path, error))


def _hidden(journal: Path, line: DamagedLine) -> Refusal:
    """Return the refusal of a file whose line cannot be read."""
    where = f"line {line.number} of {journal} is damaged ({line.problem})"
    if line.path is None:
        return Refusal.of(journal.name, ActionRefused(f"{where}: if it records a file, that file is not restored"))
    return Refusal.of(line.path, ActionRefused(f"{line.path} cannot be restored: {where}"))


def _folder(journal: Path, folder: Path | None) -> Path:
    if folder is None:
        raise JournalError(
            journal,
            "does not name the photo folder (line 1 is damaged)",
            "Pass it: ",
            option("root", "PHOTOS"),
        )
    if not folder.is_dir():
        raise PhotosError(
            f"{folder}, where the photos were, is missing. Is its disk mounted? If they moved, pass ",
            option("root", "DIR"),
            ".",
        )
    return Path(os.path.realpath(folder))


class _Restorer:
    """Restores one file, and its folder if that is gone."""

    def __init__(self, record: Record, root: Path, entry: JournalEntry, trash: Trash) -> None:
        self.root = root
        self.entry = entry
        self.trash = trash
        self.original = _original_path(root if record.root is None else record.root, entry.path)
        self.path = _in_its_folder(root, entry.path)
        self.aside = aside_name(self.path, entry.token)
        self.copy = copy_name(self.path, entry.token)
        self.old_link = old_link_name(self.path, entry.token)

    def run(self) -> bool:
        """Restore the file; return False if it is already there. Raises ActionRefused if it cannot be restored."""
        if not os.path.lexists(self.path):
            self._bring_back()
        elif self._is_our_link(self.path):
            self._replace_link()
        elif has_bytes(self.path, self.entry.sha256):
            self._clean_up()
            return False
        else:
            raise ActionRefused(f"{self.entry.path} is a different file now, and is left alone{self._aside_hint()}")
        self._clean_up()
        flush_folder(self.path.parent)
        return True

    def _bring_back(self) -> None:
        """Give the file its name back, or get its bytes from where they are now."""
        if os.path.lexists(self.aside):
            rename_exclusively(self.aside, self.path)  # whatever its bytes, this is the file that was here
            return
        for source, note in self._other_places():
            if has_bytes(source, self.entry.sha256):
                self._move_back(source)
                if note is not None:
                    note.unlink(missing_ok=True)
                return
        self._copy_keeper()
        rename_exclusively(self.copy, self.path)

    def _replace_link(self) -> None:
        """Replace our link with the file. The link is checked again under a hidden name first."""
        ready = self.aside
        if not has_bytes(ready, self.entry.sha256):
            self._copy_keeper()
            ready = self.copy
        self.path.rename(self.old_link)
        if not self._is_our_link(self.old_link):
            rename_exclusively(self.old_link, self.path)
            raise ActionRefused(f"{self.entry.path} changed while it was being checked")
        rename_exclusively(ready, self.path)

    def _other_places(self) -> Iterator[tuple[Path, Path | None]]:
        if self.entry.does == "move" and self.entry.target is not None:
            yield Path(self.entry.target), None
        if self.entry.does == "trash":
            yield from ((each.file, each.note) for each in self.trash.find(self.original))

    def _move_back(self, source: Path) -> None:
        try:
            rename_exclusively(source, self.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(source)
            rename_exclusively(self.copy, self.path)
            flush_folder(self.path.parent)
            self._remove_copied(source)

    def _remove_copied(self, source: Path) -> None:
        """Delete what was copied back from another volume, if it still has the same bytes."""
        aside = aside_name(source, self.entry.token)
        source.rename(aside)
        if has_bytes(aside, self.entry.sha256) and has_bytes(self.path, self.entry.sha256):
            aside.unlink()
        else:
            rename_exclusively(aside, source)

    def _copy_keeper(self) -> None:
        entry = self.entry
        if not entry.keeper_is_copy or entry.keeper is None:
            raise ActionRefused(f"{entry.path} cannot be restored: {self._reason()}")
        keeper = find_file(self.root, entry.keeper)
        if not has_bytes(keeper.path, entry.sha256):
            raise ActionRefused(f"{entry.path} cannot be restored: {entry.keeper}, its copy, has changed since")
        self._copy(keeper.path)

    def _copy(self, source: Path) -> None:
        copy_to(self.copy, source, self.entry.sha256, self.entry.mtime_ns, self.entry.mode)

    def _reason(self) -> str:
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
            return os.path.samestat(path.lstat(), find_file(self.root, entry.keeper).status)
        except (OSError, ActionRefused):
            return False

    def _clean_up(self) -> None:
        """Delete what an interrupted removal or undo left behind: an unfinished copy, a replaced link."""
        self.copy.unlink(missing_ok=True)
        if self.entry.does == "move" and self.entry.target is not None:
            self._clean_target(Path(self.entry.target))
        if self._is_our_link(self.old_link):
            self.old_link.unlink()
        if has_bytes(self.aside, self.entry.sha256) and has_bytes(self.path, self.entry.sha256):
            self.aside.unlink()  # one more copy

    def _clean_target(self, target: Path) -> None:
        """Clean up an interrupted move between volumes, which leaves the file or a part of it at both ends."""
        copy, aside = copy_name(target, self.entry.token), aside_name(target, self.entry.token)
        copy.unlink(missing_ok=True)
        if os.path.lexists(aside) and not os.path.lexists(target):
            rename_exclusively(aside, target)
        if has_bytes(target, self.entry.sha256):
            self._remove_copied(target)

    def _aside_hint(self) -> str:
        return f"; the removed file is beside it, as {self.aside.name}" if os.path.lexists(self.aside) else ""


def _in_its_folder(root: Path, relative: str) -> Path:
    """Return where a file was, creating its folder. Raises ActionRefused if that is outside `root`."""
    folder = root / PurePosixPath(relative).parent
    missing = next((each for each in (folder, *folder.parents) if each.exists()), root)
    if not Path(os.path.realpath(missing)).is_relative_to(root) or ".." in PurePosixPath(relative).parts:
        raise ActionRefused(f"{relative} leads out of the photo folder")
    make_folders(folder)
    return resolve_inside(root, relative)


def _original_path(root: Path, relative: str) -> Path:
    path = root / relative
    return Path(os.path.realpath(path.parent)) / path.name
