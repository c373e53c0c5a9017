"""Several cards as one engine: a process a card over one queue of batches, results in order."""

import logging
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from operator import methodcaller
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import EngineError
from vggsearch.model.engine import Engine, no_embeddings

log = logging.getLogger(__name__)

BATCHES_A_CARD = 2  # one running, one waiting, so that a card never waits for pixels
GRACE_S = 5.0  # what a process may take to end; it ends at once unless a native call holds it

Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Job(Generic[Answer]):
    """A question to an engine, its answer once there is one, and whether another card may be asked instead."""

    question: methodcaller
    answer: Answer | None = None
    is_wanted: bool = True


@dataclass(frozen=True)
class _About:
    """What a card says when its network is loaded: see Engine."""

    name: str
    precision: str
    device: str
    batch_size: int


@dataclass(frozen=True)
class _Failure:
    """What a card says last: the error in a line, and where it came from."""

    reason: str
    traceback: str


class _Wire:
    """Sends objects over a socket, the arrays in them from memory to memory.

    multiprocessing's own Connection is a tenth as fast for batches of pixels, too slow for two cards.
    """

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(None)  # whatever socket.setdefaulttimeout says
        self.socket = end

    def send(self, message: object) -> None:
        """Send a message; this waits until the other end has taken nearly all of it. Raises OSError."""
        arrays: list[pickle.PickleBuffer] = []
        head = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
        parts = [memoryview(head), *(array.raw() for array in arrays)]
        self.socket.sendall(struct.pack(f"<{len(parts) + 1}Q", len(parts), *(part.nbytes for part in parts)))
        for part in parts:
            self.socket.sendall(part)

    def receive(self) -> Any:
        """Wait for a message and return it. Raises EOFError where the other end is closed, and OSError."""
        (count,) = struct.unpack("<Q", self._read(8))
        head, *arrays = (self._read(size) for size in struct.unpack(f"<{count}Q", self._read(8 * count)))
        return pickle.loads(head, buffers=arrays)  # noqa: S301 - from this program's own processes

    def _read(self, size: int) -> memoryview:
        read = np.empty(size, np.uint8).data
        rest = read
        while len(rest):
            count = self.socket.recv_into(rest)
            if count == 0:
                raise EOFError
            rest = rest[count:]
        return read


@dataclass(eq=False)
class _Card:
    """A process and the jobs it has, in the order in which it answers them."""

    number: int
    process: BaseProcess
    wire: _Wire
    about: _About | None = None
    given: deque[_Job[Any]] = field(default_factory=deque)

    @property
    def is_free(self) -> bool:
        return self.about is not None and len(self.given) < BATCHES_A_CARD


class ManyCardsEngine(Engine):
    """One network, loaded once on each card, each in a process of its own; for one thread at a time.

    `load` is called inside the process of a card, with the card's number, and must be picklable; a script that
    comes here needs `if __name__ == "__main__":`, as whatever starts processes by multiprocessing does. Batches go
    to whichever card is free. A card that fails is named in a warning and its unfinished batches go to the others;
    when the last one fails, EngineError names every card and its reason.
    """

    def __init__(self, load: Callable[[int], Engine], cards: Sequence[int]) -> None:
        """Start all cards; return when the first is up. Raises EngineError where none comes up."""
        self._cards: list[_Card] = []
        self._waiting: deque[_Job[Any]] = deque()
        self._failures: list[str] = []
        self._finalizer = weakref.finalize(self, _end, self._cards)
        for card in cards:
            self._cards.append(_start(load, card))
        while not any(card.about for card in self._cards):
            self._hear(timeout_s=None)
        about = next(card.about for card in self._cards if card.about)
        self.name, self.precision, self.batch_size = about.name, about.precision, about.batch_size
        self.device = f"{len(self._cards)} x {about.device}"

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order.

        Raises EngineError when no card is left.
        """
        (embeddings,) = self.embed_stream([squares])
        return embeddings

    def embed_stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the embeddings of each batch, in order; an empty batch gives an empty array without any work.

        At most two batches a card are ahead of what was yielded. Raises EngineError when no card is left.
        """
        source = iter(batches)
        ahead: deque[_Job[NDArray[np.float32]]] = deque()
        try:
            while True:
                self._hear(timeout_s=0)
                if ahead and (embeddings := ahead[0].answer) is not None:
                    ahead.popleft()
                    yield embeddings
                elif self._has_room(ahead) and (batch := next(source, None)) is not None:
                    ahead.append(self._ask(batch))
                elif ahead:
                    self._hear(timeout_s=None)
                else:
                    return
        finally:
            for job in ahead:
                job.is_wanted = False

    def multiply_adds_per_s(self, seconds: float) -> float:
        """Measure all cards at once, for about so many seconds; return the sum over those that did not fail."""
        question = methodcaller("multiply_adds_per_s", seconds)
        asked = [(card, _Job[float](question, is_wanted=False)) for card in self._cards]
        for card, job in asked:
            self._give(card, job)
        while any(job.answer is None and card in self._cards for card, job in asked):
            self._hear(timeout_s=None)
        if not self._cards:
            raise self._nobody_left()
        return sum(job.answer for _, job in asked if job.answer is not None)

    def close(self) -> None:
        """End the processes. What is asked of the engine afterwards raises EngineError."""
        self._finalizer()

    def _has_room(self, ahead: deque[_Job[NDArray[np.float32]]]) -> bool:
        return len(ahead) < BATCHES_A_CARD * len(self._cards)

    def _ask(self, batch: NDArray[np.uint8]) -> _Job[NDArray[np.float32]]:
        if len(batch) == 0:
            return _Job(methodcaller("embed", batch), answer=no_embeddings())
        job = _Job[NDArray[np.float32]](methodcaller("embed", batch))
        self._waiting.append(job)
        self._hand_out()
        return job

    def _hand_out(self) -> None:
        """Give the waiting jobs to free cards, the least busy first."""
        while self._waiting and (free := [card for card in self._cards if card.is_free]):
            job = self._waiting.popleft()
            if job.is_wanted:
                self._give(min(free, key=lambda card: len(card.given)), job)

    def _give(self, card: _Card, job: _Job[Any]) -> None:
        with self._talking_to(card):
            card.given.append(job)
            card.wire.send(job.question)

    def _hear(self, timeout_s: float | None) -> None:
        """Take what the cards have to say, waiting so long for the first word (None: for ever)."""
        if not self._cards:
            raise self._nobody_left()
        speaking = wait([card.wire.socket for card in self._cards], timeout_s)
        for card in [card for card in self._cards if card.wire.socket in speaking]:
            with self._talking_to(card):
                self._take(card, card.wire.receive())
        self._hand_out()

    def _take(self, card: _Card, message: object) -> None:
        if isinstance(message, _About):
            card.about = message
        elif isinstance(message, _Failure):
            log.debug("card %d:\n%s", card.number, message.traceback)
            self._lose(card, message.reason)
        else:
            card.given.popleft().answer = message

    @contextmanager
    def _talking_to(self, card: _Card) -> Iterator[None]:
        """Give up a card when the talk with it breaks off, be it by Ctrl-C.

        After half a message the next answers could be taken for those of other batches.
        """
        try:
            yield
        except (EOFError, OSError):
            self._lose(card, _how_it_ended(card.process))
        except BaseException:
            self._lose(card, "interrupted within a message")
            raise

    def _lose(self, card: _Card, reason: str) -> None:
        """Go on without a card; what it had in hand is first in line for the others."""
        if card not in self._cards:  # interrupted while it was being lost
            return
        self._cards.remove(card)
        self._waiting.extendleft(reversed(card.given))
        self._failures.append(f"card {card.number} ({reason})")
        if self._cards:
            log.warning("card %d failed (%s); its work goes to the others", card.number, reason)
        _end([card])

    def _nobody_left(self) -> EngineError:
        if not self._finalizer.alive:
            return EngineError("This engine was closed. Load it again.")
        return EngineError(
            f"No card is left to run the network: {', '.join(self._failures)}. Try again, or use --device cpu."
        )


def _start(load: Callable[[int], Engine], card: int) -> _Card:
    """Start the process of a card: by spawn, since CUDA does not survive a fork."""
    ours, theirs = socket.socketpair()
    arguments = (theirs, load, card)
    process = get_context("spawn").Process(target=_work, args=arguments, name=f"card {card}", daemon=True)
    with theirs, _ctrl_c_held_back():  # closed here, so that the wire ends with the process
        process.start()
    return _Card(card, process, _Wire(ours))


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Let a process that is started within never hear Ctrl-C, which a terminal sends to it too.

    It inherits that the signal is blocked, from before its first line; here the signal only comes a little later.
    """
    if sys.platform == "win32":  # knows no blocking: there a process is deaf from _work on
        yield
        return
    resource_tracker.ensure_running()  # first, since it lifts the block when multiprocessing starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(cards: list[_Card]) -> None:
    """End the processes: each does so itself when its wire is closed, or else is killed."""
    for card in cards:
        card.wire.socket.close()
    for card in cards:
        card.process.join(GRACE_S)
        card.process.kill()
        card.process.join()
    cards.clear()


def _how_it_ended(process: BaseProcess) -> str:
    process.join(GRACE_S)
    code = process.exitcode
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by signal {-code}, {signal.strsignal(-code)}"


def _work(end: socket.socket, load: Callable[[int], Engine], card: int) -> None:
    """Run in the process of a card: load its engine, say so, and answer questions until the wire is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = _Wire(end)
    questions: SimpleQueue[methodcaller] = SimpleQueue()
    reader = threading.Thread(target=_read_ahead, args=(wire, questions), daemon=True)
    reader.start()
    try:
        engine = load(card)
        wire.send(_About(engine.name, engine.precision, engine.device, engine.batch_size))
        while True:
            wire.send(questions.get()(engine))
    except Exception as error:  # noqa: BLE001 - whatever an engine raises, the parent is told
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        with suppress(OSError):  # the parent may be gone
            wire.send(_Failure(reason, traceback.format_exc()))
    reader.join()


def _read_ahead(wire: _Wire, questions: SimpleQueue[methodcaller]) -> None:
    """Take each question off the wire as it comes, and end the process when the wire does.

    A thread of its own, since a parent that sends pixels and a card that sends embeddings would wait for each
    other; and since, when the parent closes the wire or dies, nobody is left to finish a batch for.
    """
    try:
        while True:
            questions.put(wire.receive())
    finally:
        os._exit(1)
