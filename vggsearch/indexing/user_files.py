"""Check what only the user can supply: decisions about duplicates, and the journals that undo reads."""

from collections.abc import Iterator
from pathlib import Path

from vggsearch.errors import IndexDamaged, JournalError, Spelled, spelled
from vggsearch.indexing.findings import IMPORT, KEEP_JOURNAL, SET_ASIDE, Finding
from vggsearch.removal.journal import read_journal
from vggsearch.store.contents import DAMAGED_DECISIONS, DECISIONS, JOURNALS
from vggsearch.store.decisions import read_decisions, set_damaged_lines_aside


def check_user_files(directory: Path, repair: bool) -> Iterator[Finding]:
    """Yield the damage found. With `repair`, unreadable lines of decisions.jsonl are moved to a separate file.

    Lines are compared with their checksums, if they have one. Raises IndexNotReadable, IndexNotWritable.
    """
    yield from _check_decisions(directory, repair)
    for path in sorted((directory / JOURNALS).glob("*.jsonl")):
        yield from _check_journal(path)


def notes_on_user_files(directory: Path) -> Iterator[Spelled]:
    """Yield what the user should know, although nothing is damaged."""
    if (directory / DAMAGED_DECISIONS).exists():
        yield spelled(
            f"{DAMAGED_DECISIONS} holds lines that could not be read and do not apply. Correct them, then ",
            IMPORT,
            ", and delete that file",
        )


def _check_decisions(directory: Path, repair: bool) -> Iterator[Finding]:
    try:
        damaged = read_decisions(directory / DECISIONS).damaged
    except IndexDamaged as error:
        yield Finding(DECISIONS, error.problem, spelled("restore the file from a backup"))
        return
    for line in damaged:
        yield SET_ASIDE.finding(repair, DECISIONS, f"line {line.line} cannot be read ({line.problem})")
    if repair:
        set_damaged_lines_aside(directory)


def _check_journal(path: Path) -> Iterator[Finding]:
    name = f"{JOURNALS}/{path.name}"
    try:
        record = read_journal(path)
    except JournalError as error:
        yield Finding(name, error.problem, KEEP_JOURNAL)
        return
    for line in record.damaged:
        yield Finding(name, f"line {line.number} is damaged ({line.problem})", KEEP_JOURNAL)
