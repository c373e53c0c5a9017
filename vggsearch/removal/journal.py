"""The journal: one JSON line before each step and one after it, each on the disk before anything else happens.

The first line names the photo folder. A line with "does" records what is about to be done to which file, and all
that is needed to undo it. A line with "outcome" records the result: done, kept (the file is as it was) or undone. A
step without an outcome was interrupted; undo finds out from the disk how far it got.

Nothing can replace a journal. So a damaged line affects no file but the one that it records.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from vggsearch.defaults import ACTIONS, ActionKind
from vggsearch.errors import ImageError, JournalError
from vggsearch.photos.opening import open_regular
from vggsearch.removal.files import flush_folder, open_to_read
from vggsearch.system.file_locks import is_locked, lock
from vggsearch.system.json_lines import decoded, encoded

JOURNAL_FORMAT = 1
LONGEST_STEP = 1 << 16  # bytes of a line: four paths and hashes
AFTER_THE_FIRST = 2  # the number of any line but the first
TOKEN = re.compile("[0-9A-Za-z]{1,64}")
Value = TypeVar("Value")
Outcome = Literal["done", "kept", "undone"]


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What is about to be done to one file.

    `path` and `keeper` are relative to the photo folder. `target` is where a moved file goes, absolute, or what a
    symbolic link contains. `sha256`, `bytes`, `mtime_ns` and `mode` are those of the file. A companion has no
    keeper unless the keeper has the same companion. `token` makes the names of temporary files unique.

    >>> done = index.remove(index.plan_removal(index.duplicates(), "hardlink"))
    >>> entry = done.done[0]
    >>> entry.path, entry.does, entry.can_be_undone
    ('copy of a.jpg', 'hardlink', True)
    """

    act: int
    does: ActionKind
    path: str
    bytes: int
    sha256: str
    mtime_ns: int
    mode: int
    token: str
    keeper: str | None = None
    keeper_sha256: str | None = None
    target: str | None = None

    @property
    def keeper_is_copy(self) -> bool:
        """Whether the keeper has exactly the bytes of the file."""
        return self.keeper is not None and self.keeper_sha256 == self.sha256

    @property
    def can_be_undone(self) -> bool:
        """Whether undo can restore these bytes."""
        return self.does != "delete" or self.keeper_is_copy


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """A line that cannot be read, or is missing, by its number from 1.

    `hides_file` says whether it may record a file, which undo then cannot restore; `path` is that file, if another
    line names it.
    """

    number: int
    problem: str
    hides_file: bool
    path: str | None = None


@dataclass(slots=True)
class Record:
    """A journal as it was read: its entries in order, the outcome of each that has one, and the damaged lines.

    `root` is None if the first line is damaged.
    """

    root: Path | None = None
    action: str = ""
    entries: list[JournalEntry] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    damaged: list[DamagedLine] = field(default_factory=list)

    @property
    def to_undo(self) -> list[JournalEntry]:
        """The steps that are done or were interrupted, last one first."""
        return [each for each in reversed(self.entries) if self.outcomes.get(each.act, "done") == "done"]


class Journal:
    """A journal that is being written, by this process alone."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    @contextmanager
    def create(cls, path: Path, root: Path, action: str) -> Iterator["Journal"]:
        """Start a new journal. Raises JournalError if the file exists or cannot be written."""
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb", buffering=0)
        with file:
            lock(file)
            journal = cls(path, file)
            try:
                journal._append({"journal": JOURNAL_FORMAT, "root": str(root), "action": action, "started": _now()})
            except JournalError:
                with suppress(OSError):  # the disk may be gone
                    path.unlink()  # made above; an unfinished first line would be reported as damage
                raise
            with _writing(path):
                flush_folder(path.parent)
            yield journal

    @classmethod
    @contextmanager
    def extend(cls, path: Path) -> Iterator["Journal"]:
        """Continue a journal. A last line that was never finished is removed: nothing was done after it.

        Raises JournalError if it cannot be written, or is in use.
        """
        with _writing(path):
            file = path.open("ab", buffering=0)
        with file:
            if not lock(file):
                raise JournalError(
                    path, "is in use by another process", "Wait until its removal or undo has ended, or stop it."
                )
            with _writing(path):
                lines, unfinished = _lines(path)
                if unfinished:
                    os.truncate(path, path.stat().st_size - len(unfinished))
                elif lines and not _ends_with_newline(path):
                    write_all(file, b"\n")
            yield cls(path, file)

    def begin(self, entry: JournalEntry) -> None:
        """Record what is about to be done. It may be done only once this has returned."""
        known = {name: value for name, value in asdict(entry).items() if value is not None}
        self._append(known if entry.can_be_undone else known | {"undo": "not possible: no copy has these bytes"})

    def end(self, entry: JournalEntry, outcome: Outcome, **notes: str) -> None:
        """Record the outcome; `notes` are for the reader of the journal."""
        self._append({"act": entry.act, "outcome": outcome, "path": entry.path, "at": _now(), **notes})

    def _append(self, line: Mapping[str, object]) -> None:
        with _writing(self.path):
            write_all(self._file, encoded(line) + b"\n")
            os.fsync(self._file.fileno())


def write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes, however few the disk takes at once."""
    while content:
        content = content[file.write(content) :]


def read_journal(path: Path) -> Record:
    """Read a journal, as far as its lines can be read. An unfinished last line is left out.

    Raises JournalError if the file is missing, cannot be read at all, or is not a journal.
    """
    try:
        lines, _ = _lines(path)
    except (OSError, ImageError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise JournalError(path, f"cannot be read ({reason})", "Is it the journal of a removal?") from error
    if not lines:
        raise JournalError(path, "has no complete line", "It was interrupted before anything was done.")
    record = Record()
    reader = _Reader(path, record)
    for number, line in enumerate(lines, start=1):
        reader.read(number, line)
    if record.root is None and not record.entries:
        problem = record.damaged[0].problem if record.damaged else "it names no file"
        raise JournalError(path, f"is not a journal of vggsearch ({problem})", "Name a file in INDEX/journals.")
    restorable = {entry.path for entry in record.entries}
    record.damaged = [
        replace(line, hides_file=line.hides_file and line.path not in restorable) for line in record.damaged
    ]
    return record


def next_to_undo(path: Path) -> JournalEntry | None:
    """Return the step that an undo would begin with, None if there is none, or if the journal is in use.

    If a removal or an undo was interrupted, it was in this step. Raises OSError and JournalError.
    """
    with open_to_read(path) as file:
        if is_locked(file):
            return None
        file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_STEP))
        lines = [line for line in file.read(LONGEST_STEP).split(b"\n") if _is_json(line)]
    record = Record()
    reader = _Reader(path, record)
    for line in lines[-2:]:  # a step and its outcome
        reader.read(AFTER_THE_FIRST, line)
    steps = record.to_undo or read_journal(path).to_undo
    return steps[0] if steps else None


class _Reader:
    """Reads one line after the other into a record."""

    def __init__(self, path: Path, record: Record) -> None:
        self.path = path
        self.record = record
        self.paths: dict[int, str] = {}  # by act
        self.pending: int | None = None  # the act whose outcome is the next line

    def read(self, number: int, line: bytes) -> None:
        pending, self.pending = self.pending, None
        try:
            values = decoded(line)
            if number == 1:
                self._start(values)
            elif "outcome" in values:
                self._end(number, values)
            else:
                self._begin(values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            # The line after an act is its outcome, and all lines after an undo are outcomes. Undo can do without.
            is_outcome = pending is not None or "undone" in self.record.outcomes.values()
            hides_file = number > 1 and not is_outcome
            self.record.damaged.append(DamagedLine(number, str(error) or type(error).__name__, hides_file))

    def _start(self, values: dict[str, Any]) -> None:
        found = values["journal"]
        if isinstance(found, int) and found > JOURNAL_FORMAT:
            raise JournalError(
                self.path,
                f"has format {found}; this version reads {JOURNAL_FORMAT}",
                f'Update vggsearch. If this version wrote it, correct "journal" in line 1 to {JOURNAL_FORMAT}.',
            )
        if found != JOURNAL_FORMAT:
            raise ValueError(f"format {found}")
        self.record.root = Path(_name(values["root"]))
        self.record.action = _typed(values["action"], str)

    def _begin(self, values: dict[str, Any]) -> None:
        entry = JournalEntry(
            **{each.name: values[each.name] for each in fields(JournalEntry) if each.name in values}
        )
        for name in ("act", "bytes", "mtime_ns", "mode"):
            _number(getattr(entry, name))
        for name in ("path", "sha256", "token"):
            _name(getattr(entry, name))
        for name in ("keeper", "keeper_sha256", "target"):
            if getattr(entry, name) is not None:
                _name(getattr(entry, name))
        if entry.does == "move" and not Path(_name(entry.target)).is_absolute():
            raise ValueError(f"moved to {entry.target!r}")
        if entry.does not in ACTIONS or entry.act in self.paths or not TOKEN.fullmatch(entry.token):
            raise ValueError(f"act {entry.act}, {entry.does!r}")
        self.record.entries.append(entry)
        self.paths[entry.act] = entry.path
        self.pending = entry.act

    def _end(self, number: int, values: dict[str, Any]) -> None:
        outcome, act, path = values["outcome"], _number(values["act"]), _name(values["path"])
        if outcome not in get_args(Outcome) or act < 1:
            raise ValueError(f"outcome {outcome!r} of act {act}")
        if act not in self.paths:
            self._note_hidden(number, act, path, outcome)
        elif self.paths[act] != path:
            raise ValueError(f"act {act} is of {self.paths[act]}, not of {path}")
        else:
            self.record.outcomes[act] = outcome

    def _note_hidden(self, number: int, act: int, path: str, outcome: Outcome) -> None:
        """Note which file a line hides that cannot be read, or is missing: its outcome still names it."""
        damaged, hides_file = self.record.damaged, outcome == "done"
        known = [place for place, line in enumerate(damaged) if line.path == path]
        if known:  # an earlier outcome of it named it
            damaged[known[-1]] = replace(damaged[known[-1]], hides_file=hides_file)
        elif damaged and damaged[-1].number == number - 1 and damaged[-1].hides_file:
            damaged[-1] = replace(damaged[-1], hides_file=hides_file, path=path)
        else:
            damaged.append(DamagedLine(number, f"no line records act {act}", hides_file, path))


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return the finished lines of a file, and what follows. A last line that lacks but its newline counts."""
    with open_regular(path) as file:
        *lines, rest = file.read().split(b"\n")
    if _is_json(rest):
        return [*lines, rest], b""
    return lines, rest


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8", "surrogateescape")), dict)
    except (ValueError, RecursionError):
        return False


def _ends_with_newline(path: Path) -> bool:
    return path.read_bytes().endswith(b"\n")


def _typed(value: object, kind: type[Value]) -> Value:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _number(value: object) -> int:
    """Return an integer that the system can take. Raises TypeError or ValueError."""
    number = _typed(value, int)
    if not -(2**63) <= number < 2**63:
        raise ValueError("a number out of range")
    return number


def _name(value: object) -> str:
    """Return a text that can be a path. Raises TypeError or ValueError."""
    name = _typed(value, str)
    if b"\0" in os.fsencode(name) or not Path(name).name:
        raise ValueError(f"{name!r} is no name")
    return name


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            path, f"cannot be written ({error.strerror})", "Nothing more was done. What it records can be undone."
        ) from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
