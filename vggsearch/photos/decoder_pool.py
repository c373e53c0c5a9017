"""A pool of decoder processes: a file that crashes, hangs or exhausts its decoder costs only itself.

Every file that somebody else may have made is decoded here, and nowhere else.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
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
from PIL import Image

from vggsearch import defaults
from vggsearch.errors import ForkError, ImageError, InstallationError, SkipKind
from vggsearch.photos.memory_budget import MemoryBudget
from vggsearch.photos.shared_pixels import SharedPixels
from vggsearch.photos.upright import Box, OutsideError
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


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to decode: the photo `path` below the folder `root`, or the bytes `data` of a file.

    Without either, `path` is a file that the user has named. With `data`, it is used for its suffix alone.
    """

    path: str
    root: Path | None = None
    data: bytes | None = None

    def place(self) -> dict[str, str | None]:
        """Return path and root, absolute, since the current folder may change after a process has started."""
        if self.root is not None:
            return {"path": self.path, "root": str(self.root.absolute())}
        return {"path": self.path if self.data is not None else str(Path(self.path).absolute()), "root": None}


@dataclass(frozen=True, slots=True)
class View:
    """What a network sees of a picture: `pixels`, uint8 (size, size, 3), RGB, and the picture's width by height."""

    pixels: NDArray[np.uint8]
    aspect: float


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

    def ask(self, request: "_Request") -> "_Response":
        """Have the process answer a request; see decoder_worker.answer.

        Raises ImageError if the file cannot be used, OutsideError, and _Died if the process ended.
        """
        self._wait_until_ready()
        started = time.monotonic()
        try:
            self._requests.writelines(request.chunks())
            self._requests.flush()
            values = self._receive()
        except (EOFError, OSError) as error:
            raise self._cause_of_death(time.monotonic() - started) from error
        return _response_of(values, request, self._shared)

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
    """A request to decoder_worker.answer: the values in it, and the bytes of a file, if any, that follow them."""

    values: dict[str, Any]
    data: bytes | None = None

    @property
    def path(self) -> str:
        """The path it is about, for messages."""
        path: str = self.values["path"]
        return path

    def with_memory(self, count: int) -> "_Request":
        """Return the request, which may take `count` bytes of memory."""
        return _Request({**self.values, "memory": count}, self.data)

    def chunks(self) -> list[bytes]:
        """Return the bytes to send."""
        length = {} if self.data is None else {"length": len(self.data)}
        return [json.dumps({**self.values, **length}).encode() + b"\n", self.data or b""]


@dataclass(frozen=True, slots=True)
class _Response:
    """The values in a response, and the pixels, uint8 (height, width, 3), if there are any."""

    values: dict[str, Any]
    pixels: NDArray[np.uint8]

    @property
    def needed(self) -> int | None:
        """How many bytes it takes to decode the picture, if they were more than allowed."""
        return self.values.get("needed")


def _response_of(values: dict[str, Any], request: _Request, shared: SharedPixels) -> _Response:
    """Return a response with its pixels, or raise the error in it."""
    if "traceback" in values:
        raise RuntimeError(f"a bug in vggsearch, at {request.path}:\n{values['traceback']}")
    if "reason" in values:
        raise ImageError(values["reason"], values["kind"])
    if "outside" in values:
        raise OutsideError(*values["outside"])
    return _Response(values, shared.copy(values.get("shape", (0, 0, 3))))


class Decoders:
    """`count` decoder processes, to be shared by any number of threads. They start in the background.

    Pictures that take much memory are decoded only as many at once as fit into DECODER.picture_bytes, or into
    DECODER.usual_bytes for each process if that is more.
    """

    def __init__(self, count: int) -> None:
        self._is_open = True
        self._owner = os.getpid()
        self._opening = Lock()
        self._all: list[_Decoder] = []
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        self._memory = MemoryBudget(max(defaults.DECODER.picture_bytes, count * defaults.DECODER.usual_bytes))
        self.grow(count)
        self._end = weakref.finalize(self, _close_all, self._all, self._owner)

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
            self._end()

    def grow(self, count: int) -> None:
        """Start as many processes as are missing to `count`."""
        with self._opening:
            for _ in range(count - len(self._all)):
                self._all.append(_Decoder())
                self._idle.put(self._all[-1])

    @property
    def is_usable(self) -> bool:
        """Whether they are open, and belong to this process rather than to the one that it was forked from."""
        return self._is_open and self._owner == os.getpid()

    def lower_priority(self) -> None:
        """Let other processes go first on the CPU: those that feed GPUs, which get more done."""
        with self._opening:
            for decoder in self._all:
                decoder.lower_priority(LOW_PRIORITY)

    def decode(self, root: Path, file: PhotoFile, size: int, resize: str) -> Square:
        """Decode `file` below `root` into a square of `size` pixels per side, for an index; see resize.square.

        Raises ImageError, also for a file that changed since the walk.
        """
        wanted = {"bytes": file.bytes, "mtime_ns": file.mtime_ns, "size": size, "resize": resize}
        response = self._ask("photo", Source(file.path, root), **wanted)
        values = response.values
        taken = datetime.fromisoformat(values["taken"]) if values["taken"] else None
        facts = values["width"], values["height"], values["format"], taken, values["is_blank"]
        perceptual_hash = bytes.fromhex(values["perceptual_hash"])
        return Square(*facts, perceptual_hash, values["sha256"], response.pixels)

    def view(self, source: Source, size: int, resize: str, crop: Box | None = None) -> View:
        """Return a picture, or the part `crop` of it, as a network with inputs of `size` pixels sees it.

        Raises ImageError, and OutsideError for the crop.
        """
        response = self._ask("view", source, size=size, resize=resize, crop=crop)
        return View(response.pixels, response.values["width"] / response.values["height"])

    def picture(
        self, source: Source, at_least: int, *, of_longer: bool = False, crop: Box | None = None
    ) -> Image.Image:
        """Return a picture, or the part `crop` of it, as upright RGB, with about `at_least` pixels per side.

        With `of_longer`, the longer side alone has so many. It has at most IMAGE.picture_pixels in any case; a
        small picture is not enlarged. See resize.bounded. Raises ImageError, and OutsideError for the crop.
        """
        response = self._ask("picture", source, at_least=at_least, of_longer=of_longer, crop=crop)
        return Image.fromarray(response.pixels)

    def pixel_hash(self, source: Source) -> str:
        """Return a hash of all that a file shows; see pixel_hash.pixel_hash. Raises ImageError."""
        found: str = self._ask("pixel hash", source).values["hash"]
        return found

    def has_frames(self, source: Source) -> bool:
        """Return whether a file shows more than one picture; see decode.has_frames. Raises ImageError."""
        found: bool = self._ask("has frames", source).values["has_frames"]
        return found

    def jpeg_quality(self, source: Source) -> int | None:
        """Return the quality that a JPEG was saved with; see decode.jpeg_quality. Raises ImageError."""
        quality: int | None = self._ask("jpeg quality", source).values["quality"]
        return quality

    def _ask(self, wanted: str, source: Source, **values: Any) -> _Response:
        """Return the response to a request; see decoder_worker.ANSWERS.

        Waits for an idle process. Raises ImageError, also for a file that ends its process. A file is blamed for a
        crash only if it crashes a second, fresh process, which no earlier file can have corrupted.
        """
        if self._owner != os.getpid():
            raise ForkError
        request = _Request({"wanted": wanted, **source.place(), **values}, source.data)
        response = self._answered(request.with_memory(defaults.DECODER.usual_bytes))
        if response.needed is None:
            return response
        with self._memory.reserved(response.needed):
            return self._answered(request.with_memory(response.needed))

    def _answered(self, request: _Request) -> _Response:
        decoder = self._idle.get()
        try:
            try:
                return self._ask_once(decoder, request)
            except _Died as died:
                if died.is_certain or not self._is_open:
                    raise
            return self._ask_once(decoder, request)
        except _Died as died:
            raise ImageError(died.reason, died.kind) from died
        finally:
            self._idle.put(decoder)

    def _ask_once(self, decoder: _Decoder, request: _Request) -> _Response:
        if not self._is_open:
            raise ImageError("the decoder processes were closed", "unreadable")
        try:
            return decoder.ask(request)
        except (ImageError, OutsideError):
            raise
        except BaseException:  # it has died, or part of its response is still unread
            with self._opening:
                if self._is_open:
                    decoder.end()
                    decoder.start()
            raise


def _close_all(decoders: list[_Decoder], owner: int) -> None:
    """End the processes, unless this process was forked from the one that started them."""
    if owner == os.getpid():
        for decoder in decoders:
            decoder.close()
