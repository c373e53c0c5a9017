"""Processes that run the network on GPUs, one or more on each, and the jobs that wait for them."""

import logging
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import EngineError, option
from vggsearch.model.gpu_worker import EmbeddedFiles, Files, Load, Ready, Request, none_embedded, send
from vggsearch.photos.walk import PhotoFile

log = logging.getLogger(__name__)

JOBS_PER_PROCESS = 4  # two in the engine, one being decoded, one being read
RESTARTS = 3  # in a row, of a process that ended while it had files, which are then left to the CPU
GRACE_S = 5.0  # that a process may take to exit once it has closed its pipe
# Not multiprocessing, whose processes import the main module again, so that every script would need a guard.
WORK = "import sys; sys.path[:] = sys.argv[1:]; from vggsearch.model.gpu_worker import work; work()"


@dataclass(order=True)
class _Job:
    """A request, its position in line, and its response once a GPU has computed it."""

    number: int
    request: Request = field(compare=False)
    response: "Future[Any]" = field(default_factory=Future, compare=False)


class _Jobs:
    """The jobs that no process has yet: pixels, which take up memory, go before files."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._pixels: list[_Job] = []
        self._files: list[_Job] = []
        self._is_closed = self._is_served = False

    def put(self, job: _Job) -> None:
        with self._changed:
            heappush(self._files if isinstance(job.request, Files) else self._pixels, job)
            self._changed.notify_all()

    def take(self, *, files: bool, wait: bool) -> _Job | None:
        """Return the first job, but files only with `files`; None without one, or once closed if it is to wait."""
        with self._changed:
            self._is_served = self._is_served or files
            while not (self._pixels or (files and self._files)):
                if self._is_closed or not wait:
                    return None
                self._changed.wait()
            return heappop(self._pixels or self._files)

    def take_files(self, min_bytes: int) -> _Job | None:
        """Return the first files once they average `min_bytes` or no process decodes any yet; None once closed."""
        with self._changed:
            while not (self._files and (not self._is_served or _mean_bytes(self._files[0]) >= min_bytes)):
                if self._is_closed:
                    return None
                self._changed.wait()
            return heappop(self._files)

    def close(self) -> list[_Job]:
        """Return and drop all jobs; nobody waits for another."""
        with self._changed:
            dropped = [*self._pixels, *self._files]
            self._pixels, self._files, self._is_closed = [], [], True
            self._changed.notify_all()
            return dropped


def _mean_bytes(job: _Job) -> float:
    files = job.request.files if isinstance(job.request, Files) else ()
    return sum(file.bytes for file in files) / max(1, len(files))


class GpuPool:
    """One process for each of `gpus`, numbers of GPUs in which one may be repeated; they call `load` with it.

    `load` must be picklable. Jobs go to whichever process is free. If a GPU fails, a warning names it and the
    others take over its work.
    """

    def __init__(self, load: Load, gpus: Sequence[int]) -> None:
        self.processes = len(gpus)
        self._load, self._jobs, self._lock = load, _Jobs(), Lock()
        self._failures: list[str] = []
        self._submitted, self._is_closed = 0, False
        self._running = [_Process() for _ in gpus]
        self._threads = [Thread(target=self._serve, args=(slot, gpu), daemon=True) for slot, gpu in enumerate(gpus)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "GpuPool":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        self.close()

    def embed(self, squares: NDArray[np.uint8]) -> "Future[NDArray[np.float32]]":
        """Return the embeddings of RGB pixels (n, size, size, 3) to come: float32 (n, dim).

        The future raises EngineError if no GPU is left, with the reason of each.
        """
        return self._submit(squares)

    def embed_files(self, root: Path, size: int, files: Sequence[PhotoFile]) -> "Future[Any]":
        """Return an EmbeddedFiles to come, or whatever a caller of `take_files` sets instead.

        A process that ends leaves its files to the CPU.
        """
        return self._submit(Files(str(root), size, files))

    def take_files(self, min_bytes: int) -> "tuple[Sequence[PhotoFile], Future[Any]] | None":
        """Wait for files that no process has yet; return them, and the response to be set. None once closed.

        Once a process decodes files itself, only those are returned that have `min_bytes` on average.
        """
        job = self._jobs.take_files(min_bytes)
        return (job.request.files, job.response) if job is not None and isinstance(job.request, Files) else None

    def close(self) -> None:
        """End the processes, whatever they are doing; unfinished jobs raise EngineError."""
        with self._lock:
            self._is_closed = True
            for process in self._running:
                process.kill()
        self._fail(self._jobs.close(), EngineError("The GPUs were stopped."))
        for thread, process in zip(self._threads, self._running, strict=True):
            thread.join()
            process.close()

    def _submit(self, request: Request) -> "Future[Any]":
        with self._lock:
            job = _Job(self._submitted, request)
            self._submitted += 1
            if self._is_closed or len(self._failures) == self.processes:
                job.response.set_exception(self._no_gpu_left())
            else:
                self._jobs.put(job)
        return job.response

    def _serve(self, slot: int, gpu: int) -> None:
        """Keep one process working until the pool is closed or the GPU fails."""
        restarts = RESTARTS
        while True:
            process = self._running[slot]
            try:
                send((self._load, gpu), process.requests)
                reason = self._exchange(process)
            except (OSError, EOFError, pickle.UnpicklingError):
                reason = process.exit_reason()
            process.kill()
            had_files = any(isinstance(job.request, Files) for job in process.given)
            restarts = RESTARTS if process.has_embedded_files else restarts - 1
            if not self._take_back(process.given) or not had_files or not restarts or not self._restart(slot):
                break
            log.warning("GPU %d was restarted (%s); the CPU decodes the files it had.", gpu, reason)
        self._drop(f"GPU {gpu}", reason)

    def _exchange(self, process: "_Process") -> str:
        """Send requests once the GPU is ready, and receive responses. Return the reason why the process stopped."""
        decodes, given = False, process.given
        while not isinstance(response := pickle.load(process.responses), str):  # noqa: S301 - our own process
            if isinstance(response, Ready):
                decodes = response.decodes_jpeg
            else:
                given.popleft().response.set_result(response)
                process.has_embedded_files |= isinstance(response, EmbeddedFiles)
            while len(given) < JOBS_PER_PROCESS:
                job = self._jobs.take(files=decodes, wait=not given)
                if job is None and not given:
                    return "no longer needed"
                if job is None:
                    break
                given.append(job)
                send(job.request, process.requests)
        return response

    def _take_back(self, given: "deque[_Job]") -> bool:
        """Let others do the work of a process that ended: the CPU for files, GPUs for pixels. False if closed."""
        with self._lock:
            if self._is_closed:
                self._fail(given, EngineError("The GPUs were stopped."))
                return False
            for job in given:
                if isinstance(job.request, Files):
                    job.response.set_result(none_embedded())
                else:
                    self._jobs.put(job)
            return True

    def _restart(self, slot: int) -> bool:
        """Start another process in place of one that ended, unless the pool is closed."""
        with self._lock:
            if not self._is_closed:
                self._running[slot].close()
                self._running[slot] = _Process()
            return not self._is_closed

    def _drop(self, gpu: str, reason: str) -> None:
        """Go on without a process."""
        with self._lock:
            if self._is_closed:
                return
            self._failures.append(f"{gpu} ({reason})")
            if len(self._failures) < self.processes:
                log.warning("%s failed (%s); the other processes take over its work.", gpu, reason)
            else:
                self._fail(self._jobs.close(), self._no_gpu_left())

    def _no_gpu_left(self) -> EngineError:
        reasons = ", ".join(self._failures)
        return EngineError(
            f"No GPU is left to run the network: {reasons}. Try again, or use ", option("device", "cpu"), "."
        )

    @staticmethod
    def _fail(jobs: Iterable[_Job], error: EngineError) -> None:
        for job in jobs:
            job.response.set_exception(error)


class _Process:
    """The process of a GPU, and the jobs given to it, in order."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", WORK, *map(str, sys.path)]
        # In a session of its own, so that only the parent receives Ctrl-C.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self.requests, self.responses = self._process.stdin, self._process.stdout
        self.given: deque[_Job] = deque()
        self.has_embedded_files = False

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Wait for the end of the process once it is killed."""
        with self._process, suppress(OSError):
            self.requests.close()  # fails if half of a request is still to be written

    def exit_reason(self) -> str:
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "its process does not respond"
        if code >= 0:
            return f"its process ended with exit code {code}"
        return f"its process was ended by signal {-code}, {signal.strsignal(-code)}"
