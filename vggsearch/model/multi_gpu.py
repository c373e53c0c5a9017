"""Several GPUs as one engine: a process a GPU over one queue of batches, results in order."""

import logging
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from queue import Empty, PriorityQueue, SimpleQueue
from threading import Lock, Thread
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import EngineError
from vggsearch.model.engine import Description, Engine, no_embeddings

if TYPE_CHECKING:
    from vggsearch.model.engine import SquareJpeg

log = logging.getLogger(__name__)

BATCHES_A_CARD = 4  # two under way in the engine, one at hand when it has a place for it, one on the wire
GRACE_S = 5.0  # what a process may take to end once it has closed its pipe
LAST = sys.maxsize  # the number of a job after all others, which is none
IS_UP = None  # what a GPU says first, before embeddings
# Not by multiprocessing, whose processes run the main module again: any script may call ImageIndex.update.
WORK = "import sys; sys.path[:] = sys.argv[1:]; from vggsearch.model.multi_gpu import work; work()"

Load = Callable[[int], Engine]


class MultiGpuEngine(Engine):
    """One network on several GPUs of a machine.

    A single question goes to `first`, the engine on the first GPU, in this process. A stream gets a process a
    GPU, which calls `load` with the GPU's number, and which ends with the stream; `load` must be picklable.
    """

    def __init__(self, first: Engine, load: Load, gpus: Sequence[int]) -> None:
        self.name, self.precision, self.batch_size = first.name, first.precision, first.batch_size
        self._first, self._load, self._gpus = first, load, gpus

    @property
    def device(self) -> str:
        """See Engine.device."""
        return f"{len(self._gpus)} x {self._first.device}"

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order."""
        return self._first.embed(squares)

    def describe(self, squares: NDArray[np.uint8]) -> Description:
        """See Engine.describe."""
        return self._first.describe(squares)

    def embed_stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the embeddings of each batch, in order; at most four batches a GPU are ahead of what is yielded.

        A batch goes to whichever GPU is free. A GPU that fails is named in a warning, and its work is done by
        the others. Raises EngineError when none is left, with each GPU's reason.
        """
        source = iter(batches)
        begun = list(islice(source, len(self._gpus)))
        if len(begun) < len(self._gpus):  # not worth the start of the processes
            yield from self._first.embed_stream(begun)
            return
        stream = _Stream(self._load, self._gpus)
        try:
            yield from stream.embed(chain(begun, source))
        finally:
            stream.end()

    def square_jpeg(self) -> "SquareJpeg | None":
        """See Engine.square_jpeg."""
        return self._first.square_jpeg()

    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s: what the first GPU does, times their number."""
        return self._first.multiply_adds_per_s(seconds) * len(self._gpus)


@dataclass(order=True)
class _Job:
    """A batch, by its place in the stream, and its embeddings once a GPU has answered."""

    number: int
    squares: NDArray[np.uint8] = field(compare=False)
    embeddings: "Future[NDArray[np.float32]]" = field(default_factory=Future, compare=False)


class _Stream:
    """The processes of one stream, a thread to talk to each, and the jobs that no GPU has yet."""

    def __init__(self, load: Load, gpus: Sequence[int]) -> None:
        self._jobs: PriorityQueue[_Job] = PriorityQueue()  # what a failed GPU leaves comes first again
        self._lock = Lock()
        self._failures: list[str] = []
        self._left = len(gpus)
        self._has_ended = False
        self._processes = [_start() for _ in gpus]
        self._threads = [
            Thread(target=self._serve, args=(load, gpu, process), daemon=True)
            for gpu, process in zip(gpus, self._processes, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def embed(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """See ManyCardsEngine.embed_stream."""
        ahead: deque[_Job] = deque()
        for number, squares in enumerate(batches):
            ahead.append(_Job(number, squares))
            self._ask(ahead[-1])
            while ahead and (ahead[0].embeddings.done() or len(ahead) >= BATCHES_A_CARD * self._left):
                yield ahead.popleft().embeddings.result()
        while ahead:
            yield ahead.popleft().embeddings.result()

    def end(self) -> None:
        """End the processes, whatever they do."""
        with self._lock:
            self._has_ended = True
        for process in self._processes:
            process.kill()
            self._jobs.put(_Job(LAST, np.empty(0, np.uint8)))
        for thread, process in zip(self._threads, self._processes, strict=True):
            thread.join()
            with process, suppress(OSError):
                _pipe(process.stdin).close()  # which fails where the half of a batch is still to be written

    def _ask(self, job: _Job) -> None:
        with self._lock:
            if len(job.squares) == 0:
                job.embeddings.set_result(no_embeddings())
            elif self._left == 0:
                raise self._nobody_left()
            else:
                self._jobs.put(job)

    def _serve(self, load: Load, gpu: int, process: subprocess.Popen[bytes]) -> None:
        """Have one GPU work until the stream ends, or the GPU fails."""
        given: deque[_Job] = deque()
        try:
            _send((load, gpu), _pipe(process.stdin))
            reason = self._talk(process, given)
        except (OSError, EOFError, pickle.UnpicklingError):
            reason = _how_it_ended(process)
        process.kill()
        self._lose(f"GPU {gpu}", reason, given)

    def _talk(self, process: subprocess.Popen[bytes], given: deque[_Job]) -> str:
        """Hand out batches once the GPU is up, and take their embeddings; return what it says when it gives up."""
        while not isinstance(answer := pickle.load(_pipe(process.stdout)), str):  # noqa: S301 - our own process
            if answer is not IS_UP:
                given.popleft().embeddings.set_result(answer)
            with suppress(Empty):
                while len(given) < BATCHES_A_CARD:
                    given.append(self._jobs.get(block=not given))
                    if given[-1].number == LAST:
                        return "not needed any more"
                    _send(given[-1].squares, _pipe(process.stdin))
        return answer

    def _lose(self, gpu: str, reason: str, given: Iterable[_Job]) -> None:
        """Go on without a GPU: what it had in hand is first in line for the others."""
        with self._lock:
            if self._has_ended:
                return
            self._left -= 1
            self._failures.append(f"{gpu} ({reason})")
            for job in given:
                self._jobs.put(job)
            if self._left:
                log.warning("%s failed (%s); its work goes to the others", gpu, reason)
                return
            while not self._jobs.empty():
                self._jobs.get().embeddings.set_exception(self._nobody_left())

    def _nobody_left(self) -> EngineError:
        reasons = ", ".join(self._failures)
        return EngineError(f"No GPU is left to run the network: {reasons}. Try again, or use --device cpu.")


def _start() -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C is heard by the parent alone."""
    command = [sys.executable, "-c", WORK, *map(str, sys.path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def _send(message: object, pipe: IO[bytes]) -> None:
    pickle.dump(message, pipe, protocol=5)  # which writes an array as it lies in memory
    pipe.flush()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - Popen's types do not know that it was told to open one
    return pipe


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        return "its process does not answer"
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by signal {-code}, {signal.strsignal(-code)}"


def work() -> None:
    """Run in the process of a GPU: load its engine, and answer batches with embeddings until the pipe closes."""
    questions, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    waiting: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
    try:
        load, gpu = pickle.load(questions)  # noqa: S301 - from this program's own process
        Thread(target=_read_ahead, args=(questions, waiting)).start()
        engine = load(gpu)
        _send(IS_UP, answers)
        while True:
            for embeddings in engine.embed_stream(_at_hand(waiting)):
                _send(embeddings, answers)
    except Exception as error:  # noqa: BLE001 - whatever an engine raises, the parent is told
        with suppress(OSError):  # the parent may be gone
            _send(f"{type(error).__name__}: {error}".partition("\n")[0], answers)


def _at_hand(waiting: "SimpleQueue[NDArray[np.uint8]]") -> Iterator[NDArray[np.uint8]]:
    """Yield batches while there are any, so that an engine never holds one back until another comes."""
    yield waiting.get()
    while not waiting.empty():
        yield waiting.get()


def _read_ahead(questions: IO[bytes], waiting: "SimpleQueue[NDArray[np.uint8]]") -> None:
    """Take each batch off the pipe as it comes, and end the process when the pipe does.

    A thread of its own, since a parent that sends pixels and a GPU that sends embeddings would wait for each
    other; and since, when the parent closes the pipe or dies, nobody is left to finish a batch for.
    """
    try:
        while True:
            waiting.put(pickle.load(questions))  # noqa: S301 - from this program's own process
    finally:
        os._exit(1)
