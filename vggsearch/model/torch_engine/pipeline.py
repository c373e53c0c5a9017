"""A stream of batches through two slots on a GPU: one computes while the other is filled or read."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggsearch.errors import OptionError
from vggsearch.model.engine import no_embeddings

SLOTS = 2
AHEAD = 2  # batches that may be taken ahead of what is yielded; see Engine.embed_stream

Squares: TypeAlias = NDArray[np.uint8] | Tensor  # RGB pixels (n, size, size, 3), uint8, on the host or on the GPU


class Slots(Protocol):
    """Two slots on a device, 0 and 1, each for a batch of at most `batch_size` images.

    `upload`, `run` and `download` follow each other; only `download` waits for the device. Each may raise
    torch.OutOfMemoryError, and so may opening the slots; their content is lost then.
    """

    batch_size: int

    def upload(self, slot: int, squares: Squares) -> None:
        """Copy the images to the slot. An array may be reused at once, a tensor only after `download`."""

    def run(self, slot: int) -> None:
        """Compute the embeddings of the uploaded images."""

    def download(self, slot: int) -> NDArray[np.float32]:
        """Return the embeddings (batch_size, dim), in memory that the slot's next run overwrites.

        Rows after those of the uploaded images are undefined.
        """


class SlotOwner(Protocol):
    """An engine whose slots a pipeline borrows: CudaEngine. `batch_size` is what slots taken now hold."""

    batch_size: int

    def take_slots(self) -> Slots:
        """Return slots that nobody uses. Raises torch.OutOfMemoryError if they do not fit."""

    def return_slots(self, slots: Slots) -> None:
        """Keep slots for the next stream."""

    def shrink(self, batch_size: int) -> None:
        """Halve the batch size after `batch_size` was too large."""

    def too_small(self, error: torch.OutOfMemoryError) -> OptionError:
        """Return the error for a GPU without memory for a single picture."""


@dataclass
class _Batch:
    """A batch in progress: `started` of its rows are in slots or finished, `done` are in `embeddings`."""

    squares: Squares
    embeddings: NDArray[np.float32] = field(default_factory=no_embeddings)
    started: int = 0
    done: int = 0

    @property
    def is_done(self) -> bool:
        return self.done == len(self.squares)

    def take(self, rows: NDArray[np.float32]) -> None:
        """Copy the next rows (n, dim) from a slot."""
        if not self.done:
            self.embeddings = np.empty((len(self.squares), rows.shape[1]), np.float32)
        self.embeddings[self.done : self.done + len(rows)] = rows
        self.done += len(rows)


@dataclass(frozen=True)
class _Chunk:
    """The next `count` rows of a batch, in a slot."""

    batch: _Batch
    count: int
    slot: int


class Pipeline:
    """One stream of batches of any size through the slots of an engine: split, two at a time, in order."""

    def __init__(self, engine: SlotOwner) -> None:
        self._engine = engine
        self._slots: Slots | None = None
        self._held: deque[_Batch] = deque()  # taken and not yet yielded
        self._under_way: deque[_Chunk] = deque()
        self._next_slot = 0

    def stream(self, batches: Iterable[Squares]) -> Iterator[NDArray[np.float32]]:
        """See CudaEngine.embed_stream. Raises OptionError if not even one image fits into the memory of the GPU."""
        held = self._held
        try:
            for squares in batches:
                held.append(_Batch(squares))
                while self._waiting() is not None:
                    self._step()
                while held and (held[0].is_done or len(held) > AHEAD):
                    yield self._finished()
            while held:
                yield self._finished()
        finally:
            if self._slots is not None:
                self._engine.return_slots(self._slots)

    def _finished(self) -> NDArray[np.float32]:
        while not self._held[0].is_done:
            self._step()
        return self._held.popleft().embeddings

    def _step(self) -> None:
        """Start a waiting chunk if a slot is free, else collect the oldest one; back off if memory runs out."""
        batch_size = self._engine.batch_size
        try:
            if self._slots is None:
                self._slots = self._engine.take_slots()
            batch_size = self._slots.batch_size
            batch = self._waiting()
            if batch is not None and len(self._under_way) < SLOTS:
                self._start(batch, self._slots)
            else:
                self._collect(self._slots)
            return
        except torch.OutOfMemoryError as error:
            if batch_size == 1:
                raise self._engine.too_small(error) from error
        # Not in the handler: the error references the frames that failed, and these the memory to be freed.
        self._back_off(batch_size)

    def _waiting(self) -> _Batch | None:
        """Return the first batch with rows that have not been started."""
        return next((batch for batch in self._held if batch.started < len(batch.squares)), None)

    def _start(self, batch: _Batch, slots: Slots) -> None:
        squares = batch.squares[batch.started : batch.started + slots.batch_size]
        slots.upload(self._next_slot, squares)
        slots.run(self._next_slot)
        self._under_way.append(_Chunk(batch, len(squares), self._next_slot))
        batch.started += len(squares)
        self._next_slot = (self._next_slot + 1) % SLOTS

    def _collect(self, slots: Slots) -> None:
        chunk = self._under_way.popleft()
        chunk.batch.take(slots.download(chunk.slot)[: chunk.count])

    def _back_off(self, batch_size: int) -> None:
        """Discard the slots and recompute what was in them, in smaller ones."""
        self._slots, self._next_slot = None, 0
        self._under_way.clear()
        for batch in self._held:
            batch.started = batch.done
        self._engine.shrink(batch_size)
