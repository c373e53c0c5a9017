"""What all campaigns share: numbered cases that depend on the seed and their number alone, and their faults."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from random import Random
from time import monotonic


@dataclass(frozen=True)
class Settings:
    """The cases to run, from number `first` on; `photos` to make them from, and a scratch folder."""

    seed: int
    first: int
    count: int
    photos: Path | None
    scratch: Path
    until: float

    @property
    def is_over(self) -> bool:
        """Whether the time is over; the cases that were run then count."""
        return monotonic() > self.until

    @property
    def numbers(self) -> Iterator[int]:
        """The numbers of the cases."""
        return takewhile(lambda _: not self.is_over, range(self.first, self.first + self.count))

    def batches(self, size: int) -> Iterator[range]:
        """Yield the numbers of the cases in batches."""
        for start in range(self.first, self.first + self.count, size):
            if not self.is_over:
                yield range(start, min(start + size, self.first + self.count))

    def random(self, number: int) -> Random:
        """Return the random numbers of a case."""
        return Random(f"{self.seed} {number}")  # noqa: S311 - to attack with


@dataclass
class Result:
    """How many cases there were of each kind, other figures, and the faults, each with the number of its case."""

    notes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, kind: str, faults: list[str]) -> None:
        """Add a case; its faults are printed at once."""
        self.counts[kind] += 1
        for fault in faults:
            self.faults.append((number, fault))
            print(f"case {number}, {kind}: {fault}", flush=True)


def contents(*folders: Path) -> Counter[str]:
    """Count the contents, by hash, of all regular files below some folders, hidden ones too."""
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in regular_files(*folders))


def regular_files(*folders: Path) -> Iterator[Path]:
    """Yield the regular files below some folders, without links."""
    for folder in folders:
        for inside, _, names in os.walk(folder):
            for name in names:
                path = Path(inside, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def restore(template: Path, work: Path) -> None:
    """Make `work` a copy of `template`, times and links included."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work, symlinks=True)
