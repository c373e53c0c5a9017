"""What a person has said of photos: these are the same, these are not. Kept by content, in one readable file.

`decisions.jsonl` holds one decision a line, oldest first. Of a pair, the last one counts. Nothing is ever taken out
of it: who changes his mind adds a line.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

from vggsearch.errors import DecisionsDamaged
from vggsearch.store.contents import DECISIONS
from vggsearch.store.files import write_atomically
from vggsearch.store.lock import only_writer

Judgement = Literal["same", "different", "undecided"]

JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was said, when, of which photos: of each two of them.

    `photos` are the sha256 of their bytes, so that neither moves nor renames forget; `paths` are where they were.
    `at` is ISO 8601 in UTC.
    """

    at: str
    judgement: Judgement
    photos: tuple[str, ...]
    paths: tuple[str, ...]


def decide(judgement: Judgement, photos: Sequence[tuple[str, str]]) -> Decision:
    """Return the decision of now on some photos, each (sha256, path)."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Decision(at, judgement, tuple(sha256 for sha256, _ in photos), tuple(path for _, path in photos))


@dataclass(frozen=True)
class Decisions:
    """All decisions there are, oldest first."""

    made: tuple[Decision, ...] = ()

    def pairs(self) -> dict[tuple[str, str], Judgement]:
        """Return what was last said of each pair of photos, by their sha256, the lower first; none undecided."""
        last: dict[tuple[str, str], Judgement] = {}
        for decision in self.made:
            for pair in combinations(sorted(set(decision.photos)), 2):
                last[pair] = decision.judgement
        return {pair: judgement for pair, judgement in last.items() if judgement != "undecided"}

    def merged(self, others: Iterable[Decision]) -> "Decisions":
        """Return these and others in the order they were made, each once."""
        return Decisions(tuple(sorted({*self.made, *others}, key=lambda decision: (decision.at, decision.photos))))


def read_decisions(path: Path) -> Decisions:
    """Return the decisions in a file; none where there is no file. Raises DecisionsDamaged."""
    if not path.exists():
        return Decisions()
    lines = path.read_text("utf-8").splitlines()
    return Decisions(tuple(_decision(path, number, line) for number, line in enumerate(lines, start=1) if line))


def add_decisions(directory: Path, made: Iterable[Decision]) -> None:
    """Add decisions to those of an index, in the order they were made; each is there once.

    Raises IndexLocked while another process writes to the index, IndexNotWritable, DecisionsDamaged.
    """
    with only_writer(directory):
        decisions = read_decisions(directory / DECISIONS).merged(made)

        def write(path: Path) -> None:
            path.write_text(as_text(decisions.made), "utf-8")

        write_atomically(directory / DECISIONS, write)


def as_text(decisions: Iterable[Decision]) -> str:
    """Return decisions as the lines of a file."""
    return "".join(json.dumps(asdict(decision), ensure_ascii=False) + "\n" for decision in decisions)


def _decision(path: Path, number: int, line: str) -> Decision:
    try:
        values = json.loads(line)
        photos, paths = (tuple(map(str, values[name])) for name in ("photos", "paths"))
        decision = Decision(str(values["at"]), values["judgement"], photos, paths)
    except (ValueError, KeyError, TypeError) as error:
        raise DecisionsDamaged(path, number, str(error)) from error
    if decision.judgement not in JUDGEMENTS:
        raise DecisionsDamaged(path, number, f"{decision.judgement!r} is none of {', '.join(JUDGEMENTS)}")
    return decision
