"""A pool of decoder processes: a file that crashes, hangs or exhausts its decoder costs only itself."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch import defaults
from vggsearch.errors import ImageError, InstallationError, SkipKind
from vggsearch.photos.shared_pixels import SharedPixels
from vggsearch.photos.walk import PhotoFile

WORKER_CODE = "from vggsearch.photos.decoder_worker import serve; serve()"

CPU_QUOTA = Path(
    "/sys/fs/cgroup/cpu.max"
)  # "200000 100000": 200 of every 100 ms; the first is "max" without a limit

LOW_PRIORITY = 10  # on Linux, a ninth of the time of a process with normal priority on the same CPU

# Sent by the user, a service manager or a system that is out of memory: not the fault of the file.
EXTERNAL_SIGNALS = {getattr(signal, name, None) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}


@dataclass(frozen=True, slots=True)
class Square:
    """A decoded photo as network input: `pixels` is uint8 of shape (size, size, 3), RGB.

    `width` to `taken` are those of decode.DecodedImage, `is_blank` and `perceptual_hash` the results of these
    functions for the pixels, and `sha256` the hash of the file.
    """

    width: int
    height: int
    format: str
    taken: datetime | None
    is_blank: bool
    perceptual_hash: bytes
    sha256: str
    pixels: NDArray[np.uint8]


def default_workers() -> int:
    """Return the default number of decoder processes: one per CPU that this process may use, one at least."""
    return max(1, min(_usable_cpus(), _cpu_quota()))


def _usable_cpus() -> int:
    """Return the number of CPUs without those that this process is kept from, by taskset for example."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def _cpu_quota() -> int:
    """Return the number of CPUs that a container (cgroup 2) may use at once, rounded up; sys.maxsize if all."""
    try:
        quota, period = CPU_QUOTA.read_text().split()
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if quota == "max" else -(-int(quota) // int(period))


class _Died(Exception):
    """The process ended while it decoded a file. `reason` and `kind` are those of the file's ImageError.

    `is_certain` means that the file itself is the cause, and that it is not tried again.
    """

    def __init__(self, reason: str, kind: SkipKind, *, is_certain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.is_certain = is_certain


class _Decoder:
    """One decoder process. It keeps no state between files, so it can be killed and restarted at any time."""

    def __init__(self) -> None:
        self._shared = SharedPixels()
        self._priority = 0
        self.start()

    def start(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; {WORKER_CODE}"
        # A session of its own shields it from Ctrl-C in the terminal, so that files in progress are finished.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, self._shared.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff and libheif print a line for every unusual tag
            start_new_session=True,
            pass_fds=self._shared.file_descriptors,
        )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert isinstance(self._process.stdout, BufferedReader)  # noqa: S101
        self._requests, self._responses = self._process.stdin, self._process.stdout
        self._is_ready = False
        self.lower_priority(self._priority)

    def lower_priority(self, priority: int) -> None:
        """Set the priority, from 0 to 19, the lowest. Has no effect on Windows."""
        self._priority = priority
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):  # the process may have ended
                os.setpriority(os.PRIO_PROCESS, self._process.pid, priority)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._responses.close()
        with contextlib.suppress(OSError):  # an unsent part of a request may still be buffered
            self._requests.close()

    def close(self) -> None:
        self.end()
        self._shared.close()

    def decode(self, request: "_Request") -> Square:
        """Decode one file. Raises ImageError if it cannot be used, _Died if the process ended."""
        self._wait_until_ready()
        started = time.monotonic()
        try:
            self._requests.write(request.line)
            self._requests.flush()
            response = self._receive()
        except (EOFError, OSError) as error:
            raise self._cause_of_death(time.monotonic() - started) from error
        if "traceback" in response:
            raise RuntimeError(f"a bug in vggsearch, at {request.path}:\n{response['traceback']}")
        if "reason" in response:
            raise ImageError(response["reason"], response["kind"])
        taken = datetime.fromisoformat(response["taken"]) if response["taken"] else None
        facts = response["width"], response["height"], response["format"], taken, response["is_blank"]
        perceptual_hash = bytes.fromhex(response["perceptual_hash"])
        return Square(*facts, perceptual_hash, response["sha256"], self._shared.copy(request.size))

    def _receive(self) -> dict[str, Any]:
        line = self._responses.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        response: dict[str, Any] = json.loads(line)
        return response

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            self._receive()
        except EOFError as error:
            raise InstallationError(
                f"The decoder process does not start (exit status {self._process.wait()}). "
                f"To see why, run {sys.executable} -c 'import vggsearch.photos.decoder_worker'"
            ) from error
        self._is_ready = True

    def _cause_of_death(self, seconds: float) -> _Died:
        status = self._process.wait()
        if status >= 0 and seconds >= defaults.DECODER.seconds:
            return _Died(f"decoding took more than {defaults.DECODER.seconds:g} s", "broken", is_certain=True)
        if status >= 0:
            return _Died(f"its decoder exited with status {status}", "broken")
        if -status in EXTERNAL_SIGNALS:
            return _Died("its decoder was killed, perhaps because memory ran out", "unreadable")
        return _Died(f"its decoder crashed ({signal.strsignal(-status)})", "broken")


@dataclass(frozen=True, slots=True)
class _Request:
    """A request as it is sent, the path it is about and the size of the square."""

    line: bytes
    path: str
    size: int


class Decoders:
    """`count` decoder processes, to be shared by as many threads. They start in the background."""

    def __init__(self, count: int) -> None:
        self._is_open = True
        self._opening = Lock()
        self._all = [_Decoder() for _ in range(count)]
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    def __enter__(self) -> "Decoders":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        self.close()

    def close(self) -> None:
        """End the processes, even while they decode; a thread that waits for one gets an ImageError."""
        with self._opening:
            self._is_open = False
            for decoder in self._all:
                decoder.close()

    def lower_priority(self) -> None:
        """Let other processes go first on the CPU: those that feed GPUs, which get more done."""
        with self._opening:
            for decoder in self._all:
                decoder.lower_priority(LOW_PRIORITY)

    def decode(self, root: Path, file: PhotoFile, size: int, resize: str) -> Square:
        """Decode `file` below `root` into a square of `size` pixels per side; see resize.square.

        Waits for an idle process. Raises ImageError, also for a file that changed since the walk, or that ends its
        process. A file is blamed for a crash only if it crashes a second, fresh process, which no earlier file can
        have corrupted.
        """
        wanted = {"root": str(root), **file._asdict(), "size": size, "resize": resize}
        request = _Request(json.dumps(wanted).encode() + b"\n", file.path, size)
        decoder = self._idle.get()
        try:
            try:
                return self._decode_once(decoder, request)
            except _Died as died:
                if died.is_certain or not self._is_open:
                    raise
            return self._decode_once(decoder, request)
        except _Died as died:
            raise ImageError(died.reason, died.kind) from died
        finally:
            self._idle.put(decoder)

    def _decode_once(self, decoder: _Decoder, request: _Request) -> Square:
        try:
            return decoder.decode(request)
        except ImageError:
            raise
        except BaseException:  # it has died, or part of its response is still unread
            with self._opening:
                if self._is_open:
                    decoder.end()
                    decoder.start()
            raise
