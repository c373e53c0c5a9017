"""GPUs that need no GPU: what runs in the processes of test_gpu_pool.py, which start faster without pytest."""

import io
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.fakes import FAKE_SPEC, FakeEngine
from vggsearch.errors import OptionError
from vggsearch.model.decoding_engine import DecodingEngine, SquareFacts
from vggsearch.photos.decode import decode
from vggsearch.photos.jpeg_header import JpegHeader
from vggsearch.photos.perceptual_hash import BYTES, perceptual_hash
from vggsearch.photos.resize import is_blank, square

LETHAL = b"kills a GPU"  # in a comment of a JPEG file
POISON = 255  # the value of a batch no GPU survives

Ill = Callable[[], object]


@dataclass(frozen=True)
class Load:
    """Loads a fake engine in a GPU's process; each table is by the GPU's number.

    `falls_ill` says what a GPU does instead of its n-th batch, counted from 1. In the folder `diary` each GPU
    leaves an empty file once it "is up", once it "began" a batch and once it "ended" one, and once it "decoded"
    files, so that a test need not go by the clock.
    """

    seconds_a_batch: dict[int, float] = field(default_factory=dict)
    seconds_to_load: dict[int, float] = field(default_factory=dict)
    falls_ill: dict[int, tuple[int, Ill]] = field(default_factory=dict)
    does_not_load: tuple[int, ...] = ()
    diary: Path | None = None
    decodes: bool = False

    def __call__(self, gpu: int) -> "PretendedGpu":
        time.sleep(self.seconds_to_load.get(gpu, 0))
        if gpu in self.does_not_load:
            raise OptionError(f"there is no GPU {gpu}")
        engine = PretendedGpu(
            gpu, self.seconds_a_batch.get(gpu, 0), self.falls_ill.get(gpu), self.diary, decodes=self.decodes
        )
        engine.note("is up")
        return engine


class PretendedGpu(FakeEngine, DecodingEngine):
    """Writes its number last into each embedding, so that a test can see who made it."""

    device = "a pretended GPU"

    def __init__(
        self,
        gpu: int,
        seconds: float = 0.0,
        falls_ill: tuple[int, Ill] | None = None,
        diary: Path | None = None,
        *,
        decodes: bool = False,
    ) -> None:
        super().__init__(batch_size=5)
        self.decodes = decodes
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

    def square_decoder(self) -> "PretendedDecoder | None":
        return PretendedDecoder(self) if self.decodes else None

    def note(self, event: str) -> None:
        if self.diary is not None:
            (self.diary / f"GPU {self.gpu} {event}").touch()


class PretendedDecoder:
    """Decodes what is wide as the CPU does and refuses the rest; LETHAL files kill the process."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu = gpu

    def squares(
        self, files: Sequence[bytes], headers: Sequence[JpegHeader]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Callable[[], SquareFacts]]:
        if any(LETHAL in data for data in files):
            die()
        size = FAKE_SPEC.size
        pixels = np.full((len(files), size, size, 3), POISON, np.uint8)
        is_decoded = np.array([header.width > header.height for header in headers])
        for row in np.flatnonzero(is_decoded).tolist():
            pixels[row] = square(decode(io.BytesIO(files[row]), at_least=size).image, size, FAKE_SPEC.resize)
        self.gpu.note("decoded")
        return pixels, is_decoded, lambda: _facts_of(pixels)


def _facts_of(pixels: NDArray[np.uint8]) -> SquareFacts:
    hashes = np.frombuffer(b"".join(map(perceptual_hash, pixels)), np.uint8).reshape(len(pixels), BYTES)
    return SquareFacts(np.array([is_blank(each) for each in pixels], bool), hashes)


def raise_an_error() -> None:
    raise RuntimeError("out of memory\nand advice about debugging")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def chatter() -> None:
    print("what a library prints", flush=True)  # noqa: T201
    os.write(1, b"and a driver\n")
