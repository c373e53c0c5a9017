"""The user's decisions about duplicates: these photos are the same, these are not, these are to be kept.

`decisions.jsonl` holds one decision per line, oldest first. Of two decisions about a pair, the later line counts,
whatever the clocks said. No decision is ever deleted: to change one, add another.
"""

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
from vggsearch.store.files import write_atomically
from vggsearch.store.lock import only_writer
from vggsearch.system.json_lines import decoded, encoded
from vggsearch.system.reading import reading_from

log = logging.getLogger(__name__)

Judgement = Literal["same", "different", "keep", "undecided"]

JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)
SHA256 = re.compile("[0-9a-f]{64}")
MOST_PHOTOS = 1000  # of one decision, which holds for all their pairs
MOST_SHOWN = 200  # characters of a problem, which may quote the line
PhotoId = tuple[str, str]  # sha256 and path
Pair = tuple[PhotoId, PhotoId]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the user decided, when, about every pair of some photos or, with "keep", about each of them.

    `photos` are the sha256 of their bytes, so that a decision survives moves and renames; `paths` are where they
    were. Of files with the same bytes, only the path says which is meant. `at` is ISO 8601 in UTC.

    >>> decision = index.decide("same", ["a.jpg", "b.jpg"])
    >>> decision.judgement, decision.paths
    ('same', ('a.jpg', 'b.jpg'))
    """

    at: str
    judgement: Judgement
    photos: tuple[str, ...]
    paths: tuple[str, ...]


def decide(judgement: Judgement, photos: Sequence[PhotoId]) -> Decision:
    """Return a decision, made now, about some photos, each given as (sha256, path)."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Decision(at, judgement, tuple(sha256 for sha256, _ in photos), tuple(path for _, path in photos))


def pair_key(one: PhotoId, other: PhotoId) -> Pair:
    """Return what identifies a pair of photos, each given as (sha256, path), in `Decisions.pairs`.

    It is made of their sha256, the lower first; of files with the same bytes, of their paths as well, else "".
    """
    if one[0] != other[0]:
        one, other = (one[0], ""), (other[0], "")
    return min(one, other), max(one, other)


@dataclass(frozen=True)
class Decisions:
    """All decisions in the order of the file, and what is wrong with the lines that could not be read."""

    made: tuple[Decision, ...] = ()
    damaged: tuple[DecisionsDamaged, ...] = ()

    def pairs(self) -> dict[Pair, Judgement]:
        """Return the last decision about each pair of photos, by `pair_key`; none that is undecided."""
        last = {pair: decision.judgement for decision in self.made for pair, _ in _pairs(decision)}
        return {pair: judgement for pair, judgement in last.items() if judgement != "undecided"}

    def kept(self) -> set[PhotoId]:
        """Return the photos that the user wants to keep, as (sha256, path), without what is undecided again."""
        kept: set[PhotoId] = set()
        for decision in self.made:
            if decision.judgement == "keep":
                kept.update(zip(decision.photos, decision.paths, strict=True))
            elif decision.judgement == "undecided":
                kept = {photo for photo in kept if photo[0] not in decision.photos}
        return kept


@dataclass(frozen=True)
class ImportedDecisions:
    """The result of importing decisions: how many are new, and how conflicts were settled.

    `conflicts` are decisions that were added, one for each pair on which the two files disagreed: what applies now.
    `damaged` are the lines that could not be read and were left out.

    >>> decision = index.decide("same", ["a.jpg", "b.jpg"])
    >>> index.import_decisions(index.directory / "decisions.jsonl")
    ImportedDecisions(added=0, conflicts=(), damaged=())
    """

    added: int
    conflicts: tuple[Decision, ...]
    damaged: tuple[DecisionsDamaged, ...]


def decisions_of(directory: Path) -> Decisions:
    """Return the decisions kept in an index. Raises IndexNotReadable.

    Logs a warning for each line that cannot be read, and if a repair has set lines aside: what they say does not
    apply.
    """
    aside = directory / DAMAGED_DECISIONS
    if aside.exists():
        log.warning(
            "%s holds lines that could not be read and do not apply. Correct them, import the file and delete it.",
            aside,
        )
    decisions = read_decisions(directory / DECISIONS)
    for error in decisions.damaged:
        log.warning("%s", error)
    return decisions


def read_decisions(path: Path) -> Decisions:
    """Return the decisions in a file; none if there is no file. Raises IndexNotReadable."""
    made: list[Decision] = []
    damaged: list[DecisionsDamaged] = []
    for number, line in _lines(path):
        try:
            made.append(_decision(path, number, line))
        except DecisionsDamaged as error:
            damaged.append(error)
    return Decisions(tuple(made), tuple(damaged))


def add_decisions(directory: Path, made: Iterable[Decision]) -> None:
    """Add decisions after those of an index; lines that cannot be read stay as they are.

    Raises IndexLocked while another process writes to the index, and IndexNotWritable.
    """
    with only_writer(directory):
        path = directory / DECISIONS
        _write(path, _joined([*(line for _, line in _lines(path)), *map(_encoded, made)]))


def import_decisions(directory: Path, file: Path) -> ImportedDecisions:
    """Merge the decisions in `file` into those of an index, whose lines stay as they are, readable or not.

    Each decision is kept once, and the order of both files is kept: a decision that both hold shows which of the
    others are later. Where nothing shows that, "different" wins, since it removes nothing.

    Raises IndexLocked, IndexNotWritable and IndexNotReadable.
    """
    with only_writer(directory):
        path = directory / DECISIONS
        own, others = read_decisions(path), read_decisions(file)
        unreadable = {error.line for error in own.damaged}
        inserted = _inserted(own, others)
        added, settled = sum(map(len, inserted)), tuple(_settled(own, others))
        lines: list[bytes] = []
        for number, line in _lines(path):
            if number not in unreadable:
                lines += map(_encoded, inserted.pop(0))
            lines.append(line)
        if added:
            _write(path, _joined([*lines, *map(_encoded, (*inserted[0], *settled))]))
    return ImportedDecisions(added, settled, others.damaged)


def as_text(decisions: Iterable[Decision]) -> str:
    """Return decisions as the lines of a file."""
    return _joined(map(_encoded, decisions)).decode("utf-8")


def set_damaged_lines_aside(directory: Path) -> None:
    """Move the lines of decisions.jsonl that cannot be read to decisions.damaged.jsonl; the others stay.

    They are added to the second file before they are left out of the first, so that a crash loses none. The caller
    holds the writer's lock. Raises IndexNotWritable.
    """
    path, aside = directory / DECISIONS, directory / DAMAGED_DECISIONS
    unreadable = {error.line for error in read_decisions(path).damaged}
    if not unreadable:
        return
    damaged = [line for number, line in _lines(path) if number in unreadable]
    _write(aside, _joined(dict.fromkeys([*(line for _, line in _lines(aside)), *damaged])))
    _write(path, _joined(line for number, line in _lines(path) if number not in unreadable))


def _encoded(decision: Decision) -> bytes:
    return encoded(asdict(decision))


def _pairs(decision: Decision) -> Iterator[tuple[Pair, Pair]]:
    """Yield all pairs of photos that a decision is about, each with its key."""
    if decision.judgement == "keep":
        return iter(())
    photos = dict.fromkeys(zip(decision.photos, decision.paths, strict=True))
    return ((pair_key(*pair), pair) for pair in combinations(photos, 2))


def _inserted(own: Decisions, others: Decisions) -> list[list[Decision]]:
    """Return the new decisions in lists: those before the first of `own`, before the second, ..., at the end."""
    place = {decision: number for number, decision in enumerate(own.made)}
    inserted: list[list[Decision]] = [[] for _ in range(len(own.made) + 1)]
    at = len(own.made)
    for decision in reversed(list(dict.fromkeys(others.made))):
        if decision in place:
            at = min(at, place[decision])
        else:
            inserted[at].append(decision)
    return [each[::-1] for each in inserted]


def _settled(own: Decisions, others: Decisions) -> Iterator[Decision]:
    """Yield a decision for each pair on which two files disagree by decisions that the other one does not have."""
    ours, theirs = own.pairs(), others.pairs()
    only_ours, only_theirs = _decided_only_in(own, others), _decided_only_in(others, own)
    for pair in sorted(only_ours.keys() & only_theirs.keys()):
        judgements = (ours.get(pair), theirs.get(pair))
        if judgements[0] != judgements[1]:
            yield decide("different" if "different" in judgements else "same", only_ours[pair])


def _decided_only_in(one: Decisions, other: Decisions) -> dict[Pair, Pair]:
    """Return the pairs of photos for which `one` has a decision that `other` does not have."""
    known = set(other.made)
    return dict(pair for decision in one.made if decision not in known for pair in _pairs(decision))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not empty, each with its number from 1.

    Only a newline ends a line: a path may contain what else str.splitlines splits at, such as U+2028.
    """
    if not path.exists():
        return
    with reading_from(path):
        content = path.read_bytes()
    yield from ((number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip())


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, partial(_write_bytes, content=content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _decision(path: Path, number: int, line: bytes) -> Decision:
    try:
        values = decoded(line)
        decision = Decision(values["at"], values["judgement"], tuple(values["photos"]), tuple(values["paths"]))
        _check(decision)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DecisionsDamaged(path, number, (str(error) or type(error).__name__)[:MOST_SHOWN]) from error
    return decision


def _check(decision: Decision) -> None:
    """Raise ValueError, TypeError or AttributeError for what no decision contains: a line may lack a checksum."""
    datetime.fromisoformat(decision.at)
    if decision.judgement not in JUDGEMENTS:
        raise ValueError(f"{decision.judgement!r} is not one of {', '.join(JUDGEMENTS)}")
    if len(decision.photos) > MOST_PHOTOS:
        raise ValueError(f"it names {len(decision.photos):,} photos, more than {MOST_PHOTOS:,}")
    for sha256 in decision.photos:
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a sha256")
    if len(decision.paths) != len(decision.photos):
        raise ValueError(f"{len(decision.photos)} photos, but {len(decision.paths)} paths")
    for path in decision.paths:
        path.encode("utf-8")
