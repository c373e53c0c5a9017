"""From groups to what is to be done with them: which files go, as copies of which."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from vggsearch.actions.removal import Removal
from vggsearch.duplicates.groups import Group

JOURNALS = "journals"


def removals_of(groups: Sequence[Group]) -> list[Removal]:
    """Return the members that may be removed, group by group, each with what is kept in its place."""
    return [
        Removal(member.photo.path, member.photo.sha256, member.photo.bytes, group.keeper.path, group.keeper.sha256)
        for group in groups
        for member in group.removable
    ]


def new_journal(directory: Path) -> Path:
    """Return where the journal of what is done now goes: INDEX/journals/2026-11-24-204215.jsonl."""
    folder = directory / JOURNALS
    folder.mkdir(exist_ok=True)
    return folder / f"{datetime.now():%Y-%m-%d-%H%M%S}.jsonl"
