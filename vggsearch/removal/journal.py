"""The journal: one JSON line before each act and one after it, each on the disk before anything else happens.

The first line says of which photo folder it is. A line with "does" says what is about to be done to which file, and
all that is needed to undo it; one with "outcome" says what became of that: done, kept (the file is as it was) or
undone. An act without an outcome was interrupted: the disk tells how far it came.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from vggsearch.defaults import ACTIONS, ActionKind
from vggsearch.errors import JournalError
from vggsearch.removal.files import flush_folder

FORMAT = 1
Value = TypeVar("Value")
Outcome = Literal["done", "kept", "undone"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is about to be done to one file.

    `path` and `keeper` are relative to the photo folder; `target` is where a moved file is to be, absolute, or
    where a symbolic link is to lead. `sha256`, `bytes`, `mtime_ns` and `mode` are the file's. A companion has no
    keeper, unless the keeper has the same companion. `token` makes the names of what is there only meanwhile.
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
        """Whether the keeper has the very bytes that the file has."""
        return self.keeper is not None and self.keeper_sha256 == self.sha256

    @property
    def can_be_undone(self) -> bool:
        """Whether undo can bring these bytes back."""
        return self.does != "delete" or self.keeper_is_copy


@dataclass(slots=True)
class Record:
    """A journal as it was read: its acts in order, and the outcome of each that has one."""

    root: Path
    action: str
    entries: list[Entry] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Journal:
    """A journal that is being written."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    @contextmanager
    def create(cls, path: Path, root: Path, action: str) -> Iterator["Journal"]:
        """Start a new journal. Raises JournalError where the file is there already or cannot be written."""
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb", buffering=0)
        with file:
            journal = cls(path, file)
            journal._append({"journal": FORMAT, "root": str(root), "action": action, "started": _now()})
            with _writing(path):
                flush_folder(path.parent)
            yield journal

    @classmethod
    @contextmanager
    def extend(cls, path: Path) -> Iterator["Journal"]:
        """Go on with a journal. A line whose end was never written is cut off: nothing was done after it."""
        with _writing(path):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
            file = path.open("ab", buffering=0)
        with file:
            yield cls(path, file)

    def begin(self, entry: Entry) -> None:
        """Say what is about to be done. Only when this returned, it may be."""
        known = {name: value for name, value in asdict(entry).items() if value is not None}
        self._append(known if entry.can_be_undone else known | {"undo": "not possible: no copy has these bytes"})

    def end(self, entry: Entry, outcome: Outcome, **told: str) -> None:
        """Say what became of an act; `told` is for a person."""
        self._append({"act": entry.act, "outcome": outcome, "path": entry.path, "at": _now(), **told})

    def _append(self, line: Mapping[str, object]) -> None:
        rest = json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
        with _writing(self.path):
            write_all(self._file, rest)
            os.fsync(self._file.fileno())


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of it, however little the disk takes at once."""
    while content:
        content = content[file.write(content) :]


def read_journal(path: Path) -> Record:
    """Read a journal. What was torn off at its end is left out.

    Raises JournalError where it is missing, is no journal, or a line before its end is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise JournalError(f"{path} cannot be read ({error.strerror}). Is it the journal of an action?") from error
    if not lines:
        raise JournalError(f"{path} has no whole line: it was interrupted before anything was done.")
    record = Record(Path(), "")
    for number, line in enumerate(lines):
        try:
            read = json.loads(line.decode("utf-8", "surrogateescape"))
            record = _take(record, read) if number else _start(read)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JournalError(
                f"{path}, line {number + 1} of {len(lines)} is damaged or not of a journal ({error}): nothing was "
                "undone. Each other line says what was done to which file: mend or take out this one, in a copy."
            ) from error
    return record


def _start(read: dict[str, Any]) -> Record:
    if read["journal"] != FORMAT:
        raise ValueError(f"format {read['journal']}; this version reads {FORMAT}")
    return Record(Path(_typed(read["root"], str)), _typed(read["action"], str))


def _take(record: Record, read: dict[str, Any]) -> Record:
    if "outcome" in read:
        outcome, act = read["outcome"], _typed(read["act"], int)
        if outcome not in get_args(Outcome) or not 0 < act <= len(record.entries):
            raise ValueError(f"outcome {outcome!r} of act {act}")
        record.outcomes[act] = outcome
        return record
    entry = Entry(**{each.name: read[each.name] for each in fields(Entry) if each.name in read})
    for name in ("act", "bytes", "mtime_ns", "mode"):
        _typed(getattr(entry, name), int)
    for name in ("path", "sha256", "token", "keeper", "keeper_sha256", "target"):
        if getattr(entry, name) is not None:
            _typed(getattr(entry, name), str)
    if entry.does not in ACTIONS or entry.act != len(record.entries) + 1 or not entry.token.isalnum():
        raise ValueError(f"act {entry.act}, {entry.does!r}")
    record.entries.append(entry)
    return record


def _typed(value: object, kind: type[Value]) -> Value:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"{path} cannot be written ({error.strerror}): nothing more was done. What is in it can be undone."
        ) from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
