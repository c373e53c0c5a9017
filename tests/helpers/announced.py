"""The command line in a process of its own, which says on standard output when a batch has been embedded.

python -m tests.helpers.announced fake|real STALL_AT WORDS...: with the fake or the real network; after batch
STALL_AT, counted from 1, it waits for a signal.
"""

import itertools
import os
import signal
import sys

import numpy as np
from numpy.typing import NDArray

from tests.fakes import FakeEngine
from vggsearch.cli import cli
from vggsearch.model.engine import Description, Engine
from vggsearch.model.loading import load_engine as load
from vggsearch.query import session

EMBEDDED = "embedded\n"


def announced(engine: Engine, stall_at: int) -> Engine:
    """Make an engine say so after each batch."""
    describe, signals, numbers = engine.describe, signal_pipe(), itertools.count(1)

    def described(squares: NDArray[np.uint8], levels: int = 2) -> Description:
        found = describe(squares, levels)
        sys.stdout.write(EMBEDDED)
        sys.stdout.flush()
        if next(numbers) == stall_at:
            os.read(signals, 1)
        return found

    setattr(engine, "describe", described)  # noqa: B010 - a method of this one engine
    return engine


def signal_pipe() -> int:
    """Return a descriptor from which a byte can be read once a signal has been handled."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    return reading


def main(network: str, stall_at: int, words: list[str]) -> None:
    def load_engine(*asked: object) -> Engine:
        return announced(FakeEngine(batch_size=2) if network == "fake" else load(*asked), stall_at)  # type: ignore[arg-type]

    setattr(session, "load_engine", load_engine)  # noqa: B010
    cli(words)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
