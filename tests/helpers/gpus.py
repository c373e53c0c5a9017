"""GPUs that need no GPU: what runs in the processes of test_multi_gpu.py, which start faster without pytest."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.fakes import FakeEngine
from vggsearch.errors import OptionError

POISON = 255  # the value of a batch no GPU survives

Ill = Callable[[], object]


@dataclass(frozen=True)
class Load:
    """Loads a fake engine in a GPU's process; each table is by the GPU's number.

    `falls_ill` says what a GPU does instead of its n-th batch, counted from 1. In the folder `diary` each GPU
    leaves an empty file once it "is up", once it "began" a batch and once it "ended" one, so that a test need not
    go by the clock.
    """

    seconds_a_batch: dict[int, float] = field(default_factory=dict)
    seconds_to_load: dict[int, float] = field(default_factory=dict)
    falls_ill: dict[int, tuple[int, Ill]] = field(default_factory=dict)
    does_not_load: tuple[int, ...] = ()
    diary: Path | None = None

    def __call__(self, gpu: int) -> "GpuEngine":
        time.sleep(self.seconds_to_load.get(gpu, 0))
        if gpu in self.does_not_load:
            raise OptionError(f"there is no GPU {gpu}")
        engine = GpuEngine(gpu, self.seconds_a_batch.get(gpu, 0), self.falls_ill.get(gpu), self.diary)
        engine.note("is up")
        return engine


class GpuEngine(FakeEngine):
    """Writes its number last into each embedding, so that a test can see who made it."""

    device = "a pretended GPU"

    def __init__(
        self,
        gpu: int,
        seconds: float = 0.0,
        falls_ill: tuple[int, Ill] | None = None,
        diary: Path | None = None,
    ) -> None:
        super().__init__(batch_size=5)
        self.diary = diary
        self.gpu = gpu
        self.seconds = seconds
        self.falls_ill = falls_ill

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.note("began")
        rows = super().embed(squares)
        if self.falls_ill is not None and self.calls == self.falls_ill[0]:
            self.falls_ill[1]()
        if (squares == POISON).all():
            raise ValueError("poison")
        time.sleep(self.seconds)
        rows[:, -1] = self.gpu
        self.note("ended")
        return rows

    def note(self, event: str) -> None:
        if self.diary is not None:
            (self.diary / f"GPU {self.gpu} {event}").touch()


def raise_an_error() -> None:
    raise RuntimeError("out of memory\nand advice about debugging")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def chatter() -> None:
    print("what a library prints", flush=True)  # noqa: T201
    os.write(1, b"and a driver\n")
