"""Several GPUs as one engine: one process per GPU, one queue of batches, results in order."""

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

from vggsearch.errors import EngineError, option
from vggsearch.model.engine import Description, Engine, no_embeddings

if TYPE_CHECKING:
    from vggsearch.model.engine import SquareJpeg

log = logging.getLogger(__name__)

BATCHES_PER_GPU = 4  # two computing in the engine, one ready for it, one in the pipe
GRACE_S = 5.0  # that a process may take to exit once it has closed its pipe
LAST = sys.maxsize  # the number of the job that ends a stream: it sorts after all others
IS_READY = None  # the first message of a process, before embeddings
# Not multiprocessing, whose processes import the main module again, so that every script would need a guard.
WORK = "import sys; sys.path[:] = sys.argv[1:]; from vggsearch.model.multi_gpu import work; work()"

Load = Callable[[int], Engine]


class MultiGpuEngine(Engine):
    """One network on several GPUs of a machine.

    A single batch goes to `first`, the engine on the first GPU, in this process. A stream gets one process per GPU,
    which calls `load` with the number of the GPU, and which ends with the stream; `load` must be picklable.
    """

    def __init__(self, first: Engine, load: Load, gpus: Sequence[int]) -> None:
        self.name, self.precision, self.batch_size = first.name, first.precision, first.batch_size
        self._first, self._load, self._gpus = first, load, gpus

    @property
    def device(self) -> str:
        """See Engine.device."""
        return f"{len(self._gpus)} x {self._first.device}"

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.embed."""
        return self._first.embed(squares)

    def describe(self, squares: NDArray[np.uint8]) -> Description:
        """See Engine.describe."""
        return self._first.describe(squares)

    def embed_stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the embeddings of each batch, in order; at most four batches per GPU are ahead of what is yielded.

        A batch goes to whichever GPU is free. If a GPU fails, a warning names it and the others take over its work.
        Raises EngineError when no GPU is left, with the reason of each.
        """
        source = iter(batches)
        begun = list(islice(source, len(self._gpus)))
        if len(begun) < len(self._gpus):  # not worth starting processes
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
        """See Engine.multiply_adds_per_s: that of the first GPU, times the number of GPUs."""
        return self._first.multiply_adds_per_s(seconds) * len(self._gpus)


@dataclass(order=True)
class _Job:
    """A batch, its position in the stream, and its embeddings once a GPU has computed them."""

    number: int
    squares: NDArray[np.uint8] = field(compare=False)
    embeddings: "Future[NDArray[np.float32]]" = field(default_factory=Future, compare=False)


class _Stream:
    """The processes of one stream, a thread that serves each, and the jobs that no GPU has yet."""

    def __init__(self, load: Load, gpus: Sequence[int]) -> None:
        self._jobs: PriorityQueue[_Job] = PriorityQueue()  # the jobs of a failed GPU come first
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
        """See MultiGpuEngine.embed_stream."""
        ahead: deque[_Job] = deque()
        for number, squares in enumerate(batches):
            ahead.append(_Job(number, squares))
            self._submit(ahead[-1])
            while ahead and (ahead[0].embeddings.done() or len(ahead) >= BATCHES_PER_GPU * self._left):
                yield ahead.popleft().embeddings.result()
        while ahead:
            yield ahead.popleft().embeddings.result()

    def end(self) -> None:
        """End the processes, whatever they are doing."""
        with self._lock:
            self._has_ended = True
        for process in self._processes:
            process.kill()
            self._jobs.put(_Job(LAST, np.empty(0, np.uint8)))
        for thread, process in zip(self._threads, self._processes, strict=True):
            thread.join()
            with process, suppress(OSError):
                _pipe(process.stdin).close()  # fails if half of a batch is still to be written

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if len(job.squares) == 0:
                job.embeddings.set_result(no_embeddings())
            elif self._left == 0:
                raise self._no_gpu_left()
            else:
                self._jobs.put(job)

    def _serve(self, load: Load, gpu: int, process: subprocess.Popen[bytes]) -> None:
        """Keep one GPU working until the stream ends or the GPU fails."""
        given: deque[_Job] = deque()
        try:
            _send((load, gpu), _pipe(process.stdin))
            reason = self._exchange(process, given)
        except (OSError, EOFError, pickle.UnpicklingError):
            reason = _exit_reason(process)
        process.kill()
        self._drop(f"GPU {gpu}", reason, given)

    def _exchange(self, process: subprocess.Popen[bytes], given: deque[_Job]) -> str:
        """Send batches once the GPU is ready, and receive embeddings. Return the reason why the process stopped."""
        while not isinstance(answer := pickle.load(_pipe(process.stdout)), str):  # noqa: S301 - our own process
            if answer is not IS_READY:
                given.popleft().embeddings.set_result(answer)
            with suppress(Empty):
                while len(given) < BATCHES_PER_GPU:
                    given.append(self._jobs.get(block=not given))
                    if given[-1].number == LAST:
                        return "no longer needed"
                    _send(given[-1].squares, _pipe(process.stdin))
        return answer

    def _drop(self, gpu: str, reason: str, given: Iterable[_Job]) -> None:
        """Go on without a GPU: its batches are the next ones for the others."""
        with self._lock:
            if self._has_ended:
                return
            self._left -= 1
            self._failures.append(f"{gpu} ({reason})")
            for job in given:
                self._jobs.put(job)
            if self._left:
                log.warning("%s failed (%s); the other GPUs take over its work.", gpu, reason)
                return
            while not self._jobs.empty():
                self._jobs.get().embeddings.set_exception(self._no_gpu_left())

    def _no_gpu_left(self) -> EngineError:
        reasons = ", ".join(self._failures)
        return EngineError(
            f"No GPU is left to run the network: {reasons}. Try again, or use ", option("device", "cpu"), "."
        )


def _start() -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that only the parent receives Ctrl-C."""
    command = [sys.executable, "-c", WORK, *map(str, sys.path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def _send(message: object, pipe: IO[bytes]) -> None:
    pickle.dump(message, pipe, protocol=5)  # writes an array without copying it
    pipe.flush()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - Popen's types do not know that it opened one
    return pipe


def _exit_reason(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        return "its process does not respond"
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by signal {-code}, {signal.strsignal(-code)}"


def work() -> None:
    """Run in the process of a GPU: load the engine and return embeddings of batches until the pipe closes."""
    requests, responses = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get into the pipe
    waiting: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
    try:
        load, gpu = pickle.load(requests)  # noqa: S301 - from this program's own process
        Thread(target=_read_ahead, args=(requests, waiting)).start()
        engine = load(gpu)
        _send(IS_READY, responses)
        while True:
            for embeddings in engine.embed_stream(_available(waiting)):
                _send(embeddings, responses)
    except Exception as error:  # noqa: BLE001 - the parent reports whatever an engine raises
        with suppress(OSError):  # the parent may be gone
            _send(f"{type(error).__name__}: {error}".partition("\n")[0], responses)


def _available(waiting: "SimpleQueue[NDArray[np.uint8]]") -> Iterator[NDArray[np.uint8]]:
    """Yield batches while any are waiting, so that an engine never holds one back until the next arrives."""
    yield waiting.get()
    while not waiting.empty():
        yield waiting.get()


def _read_ahead(requests: IO[bytes], waiting: "SimpleQueue[NDArray[np.uint8]]") -> None:
    """Take each batch from the pipe as it arrives, and exit the process when the pipe closes.

    This needs a thread of its own: otherwise a parent that sends pixels and a process that sends embeddings could
    wait for each other. And when the parent closes the pipe or dies, the current batch is no longer wanted.
    """
    try:
        while True:
            waiting.put(pickle.load(requests))  # noqa: S301 - from this program's own process
    finally:
        os._exit(1)
