"""The user's decisions about duplicates: these photos are the same, these are not.

`decisions.jsonl` holds one decision per line, oldest first. Of two decisions about a pair, the later one counts. No
decision is ever deleted: to change one, add another.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

from vggsearch.errors import DecisionsDamaged
from vggsearch.store.contents import DAMAGED_DECISIONS, DECISIONS
from vggsearch.store.files import reading_from, write_atomically
from vggsearch.store.lock import only_writer

log = logging.getLogger(__name__)

Judgement = Literal["same", "different", "undecided"]

JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the user decided, when, about every pair of some photos.

    `photos` are the sha256 of their bytes, so that a decision survives moves and renames; `paths` are where they
    were. `at` is ISO 8601 in UTC.

    >>> decision = index.decide("same", ["a.jpg", "b.jpg"])
    >>> decision.judgement, decision.paths
    ('same', ('a.jpg', 'b.jpg'))
    """

    at: str
    judgement: Judgement
    photos: tuple[str, ...]
    paths: tuple[str, ...]


def decide(judgement: Judgement, photos: Sequence[tuple[str, str]]) -> Decision:
    """Return a decision, made now, about some photos, each given as (sha256, path)."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Decision(at, judgement, tuple(sha256 for sha256, _ in photos), tuple(path for _, path in photos))


@dataclass(frozen=True)
class Decisions:
    """All decisions, oldest first."""

    made: tuple[Decision, ...] = ()

    def pairs(self) -> dict[tuple[str, str], Judgement]:
        """Return the last decision about each pair of photos, by their sha256, the lower first; none undecided."""
        last: dict[tuple[str, str], Judgement] = {}
        for decision in self.made:
            for pair in combinations(sorted(set(decision.photos)), 2):
                last[pair] = decision.judgement
        return {pair: judgement for pair, judgement in last.items() if judgement != "undecided"}

    def merged(self, others: Iterable[Decision]) -> "Decisions":
        """Return these and others in the order they were made, each once."""
        return Decisions(tuple(sorted({*self.made, *others}, key=lambda decision: (decision.at, decision.photos))))


def decisions_of(directory: Path) -> Decisions:
    """Return the decisions kept in an index. Raises DecisionsDamaged, IndexNotReadable.

    Logs a warning if a repair has set lines aside: what they say does not apply.
    """
    aside = directory / DAMAGED_DECISIONS
    if aside.exists():
        log.warning(
            "%s holds lines that could not be read and do not apply. Correct them, import the file and delete it.",
            aside,
        )
    return read_decisions(directory / DECISIONS)


def read_decisions(path: Path) -> Decisions:
    """Return the decisions in a file; none if there is no file. Raises DecisionsDamaged, IndexNotReadable."""
    return Decisions(tuple(_decision(path, number, line) for number, line in _lines(path)))


def add_decisions(directory: Path, made: Iterable[Decision]) -> None:
    """Add decisions to those of an index, in the order they were made; each is kept once.

    Raises IndexLocked while another process writes to the index, IndexNotWritable, DecisionsDamaged.
    """
    with only_writer(directory):
        decisions = read_decisions(directory / DECISIONS).merged(made)
        _write(directory / DECISIONS, as_text(decisions.made).encode("utf-8"))


def as_text(decisions: Iterable[Decision]) -> str:
    """Return decisions as the lines of a file."""
    return "".join(json.dumps(asdict(decision), ensure_ascii=False) + "\n" for decision in decisions)


def damaged_lines(path: Path) -> list[DecisionsDamaged]:
    """Return what is wrong with each line of a file that cannot be read. Raises IndexNotReadable."""
    return [error for _, error in _damaged(path)]


def set_damaged_lines_aside(directory: Path) -> None:
    """Move the lines of decisions.jsonl that cannot be read to decisions.damaged.jsonl; the others stay.

    They are added to the second file before they are left out of the first, so that a crash loses none. The caller
    holds the writer's lock. Raises IndexNotWritable.
    """
    path, aside = directory / DECISIONS, directory / DAMAGED_DECISIONS
    damaged = [line for line, _ in _damaged(path)]
    if not damaged:
        return
    held = [line for _, line in _lines(aside)]
    _write(aside, _joined([*held, *(line for line in damaged if line not in held)]))
    _write(path, _joined(line for _, line in _lines(path) if line not in damaged))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not empty, each with its number from 1.

    Only a newline ends a line: a path may contain what else str.splitlines splits at, such as U+2028.
    """
    if not path.exists():
        return
    with reading_from(path):
        content = path.read_bytes()
    yield from ((number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip())


def _damaged(path: Path) -> Iterator[tuple[bytes, DecisionsDamaged]]:
    for number, line in _lines(path):
        try:
            _decision(path, number, line)
        except DecisionsDamaged as error:
            yield line, error


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, partial(_write_bytes, content=content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _decision(path: Path, number: int, line: bytes) -> Decision:
    try:
        values = json.loads(line.decode("utf-8"))
        decision = Decision(values["at"], values["judgement"], tuple(values["photos"]), tuple(values["paths"]))
        _check(decision)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecisionsDamaged(path, number, str(error) or type(error).__name__) from error
    return decision


def _check(decision: Decision) -> None:
    """Raise ValueError or TypeError for what no decision contains. Lines have no checksum: this is all there is."""
    datetime.fromisoformat(decision.at)
    if decision.judgement not in JUDGEMENTS:
        raise ValueError(f"{decision.judgement!r} is not one of {', '.join(JUDGEMENTS)}")
    for sha256 in decision.photos:
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a sha256")
    if len(decision.paths) != len(decision.photos) or not all(isinstance(path, str) for path in decision.paths):
        raise ValueError(f"{len(decision.photos)} photos, but {len(decision.paths)} paths")
