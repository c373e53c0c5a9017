"""Tasks whose work reaches them only as bytes, as on another machine."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vggsearch.progress import SILENT, Monitor

KEPT: list[bytes] = []


@dataclass(frozen=True)
class Kept:
    """A value of KEPT, as bytes."""

    number: int

    def __call__(self) -> Any:
        return pickle.loads(KEPT[self.number])  # noqa: S301 - made below


@dataclass
class Elsewhere:
    """Tasks of `rows` rows each; `done` counts them, and `sent` is the size of the largest, in bytes."""

    rows: int
    done: int = 0
    sent: int = 0

    def share(self, rows: int) -> int:
        return min(rows, self.rows)

    def put(self, value: Any) -> Callable[[], Any]:
        KEPT.append(pickle.dumps(value))
        return Kept(len(KEPT) - 1)

    def run(self, work: Callable[..., Any], items: Sequence[Any], monitor: Monitor) -> Iterator[Any]:
        for item in items:
            monitor.check()
            data = pickle.dumps((work, item))
            self.done, self.sent = self.done + 1, max(self.sent, len(data))
            there, what = pickle.loads(data)  # noqa: S301 - made above
            yield pickle.loads(pickle.dumps(there(what, SILENT)))  # noqa: S301
