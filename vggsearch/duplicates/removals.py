"""Turn groups into a plan of removals: which files to remove, as copies of which."""

import os
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.options import Folders, folders_in
from vggsearch.duplicates.results import Group
from vggsearch.errors import IndexDamaged, IndexFormatError, IndexNotReadable, JournalError, OptionError, option
from vggsearch.progress import OnProgress, Stop
from vggsearch.removal.journal import read_journal
from vggsearch.removal.plan import RemovalPlan, make_plan
from vggsearch.removal.request import Action, Removal
from vggsearch.removal.undo import UndoReport
from vggsearch.removal.undo import undo as restore
from vggsearch.store.contents import DECISIONS, JOURNALS, MANIFEST
from vggsearch.store.decisions import read_decisions
from vggsearch.store.manifest import read_manifest
from vggsearch.system.places import from_home


def plan_removals(
    root: Path, report: DuplicatesReport, action: str, protect: Folders, *, raw_pairs: bool
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
    folders = [root / folder for folder in folders_in(root, protect)]
    return make_plan(root, removals_of(report.groups), Action.parse(action), folders, raw_pairs=raw_pairs)


def removals_of(groups: Sequence[Group]) -> list[Removal]:
    """Return a removal for each removable member, group by group, with the photo that is kept instead."""
    return [
        Removal(member.photo.path, member.photo.sha256, member.photo.bytes, group.keeper.path, group.keeper.sha256)
        for group in groups
        for member in group.removable
    ]


def undo(
    journal: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> UndoReport:
    """Restore the files that a journal records, and add the result to the journal.

    Files are restored in the photo folder that the journal names, if its index belongs to that folder; `root` is
    the photo folder if it has moved, or if the journal is not in the folder of its index. Nothing that exists is
    overwritten. The call may be interrupted and repeated. A damaged line affects only the file that it records, and
    is reported. `stop` is called before each file. Raises JournalError if the journal cannot be read or written, or
    names another folder than its index; PhotosError if the photo folder is missing; Stopped, with the report of
    what was restored, if `stop` ended it early.

    >>> done = index.remove(index.plan_removal(index.duplicates(), "symlink"))
    >>> undo(done.journal).restored
    ('copy of a.jpg',)
    """
    file, folder = from_home(journal), from_home(root) if root is not None else None
    if folder is None:
        _check_folder(file)
    return restore(file, folder, progress=progress, stop=stop)


def _check_folder(journal: Path) -> None:
    """Raise JournalError unless the journal names the photo folder of the index in which it is."""
    named, known = read_journal(journal).root, _folder_of_index(journal)
    if named is not None and (known is None or os.path.realpath(named) != os.path.realpath(known)):
        belongs = f"its index belongs to {known}" if known is not None else "that of its index is not known"
        raise JournalError(
            journal,
            f"names the photo folder {named}, but {belongs}",
            "State the folder in which to restore photos: ",
            option("root", "PHOTOS"),
        )


def _folder_of_index(journal: Path) -> Path | None:
    """Return the photo folder of the index in which a journal is; None if that is unknown."""
    folder = Path(os.path.realpath(journal.parent))
    if folder.name != JOURNALS or not (folder.parent / MANIFEST).exists():
        return None
    try:
        root = read_manifest(folder.parent, lost=[]).root  # whatever else was lost
    except (IndexDamaged, IndexFormatError, IndexNotReadable):
        return None
    return Path(os.path.normpath(folder.parent / root)) if root is not None else None


def new_journal(directory: Path) -> Path:
    """Return the path of a new journal, named after the current time: INDEX/journals/2026-11-24-204215.jsonl.

    A second one of the same second is called 2026-11-24-204215-2.jsonl.
    """
    folder = directory / JOURNALS
    folder.mkdir(exist_ok=True)
    name = f"{datetime.now():%Y-%m-%d-%H%M%S}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(path for each in names if not os.path.lexists(path := folder / f"{each}.jsonl"))
