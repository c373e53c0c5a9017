"""One decoder process: start it, ask it, and say why it died."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch import defaults
from vggsearch.errors import ImageError, InstallationError, SkipKind
from vggsearch.photos.shared_pixels import SharedPixels
from vggsearch.photos.upright import OutsideError

WORKER_CODE = "from vggsearch.photos.decoder_worker import serve; serve()"

LOW_PRIORITY = 10  # on Linux, a ninth of the time of a process with normal priority on the same CPU

# Sent by the user, a service manager or a system that is out of memory: not the fault of the file.
EXTERNAL_SIGNALS = {getattr(signal, name, None) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}


class DiedError(Exception):
    """The process ended while it decoded a file. `reason` and `kind` are those of the file's ImageError.

    `is_certain` means that the file itself is the cause, and that it is not tried again.
    """

    def __init__(self, reason: str, kind: SkipKind, *, is_certain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.is_certain = is_certain


@dataclass(frozen=True, slots=True)
class Request:
    """A request to decoder_worker.answer: the values in it, and the bytes of a file, if any, that follow them."""

    values: dict[str, Any]
    data: bytes | None = None

    @property
    def path(self) -> str:
        """The path it is about, for messages."""
        path: str = self.values["path"]
        return path

    def with_memory(self, count: int) -> "Request":
        """Return the request, which may take `count` bytes of memory."""
        return Request({**self.values, "memory": count}, self.data)

    def chunks(self) -> list[bytes]:
        """Return the bytes to send."""
        length = {} if self.data is None else {"length": len(self.data)}
        return [json.dumps({**self.values, **length}).encode() + b"\n", self.data or b""]


@dataclass(frozen=True, slots=True)
class Response:
    """The values in a response, and the pixels, uint8 (height, width, 3), if there are any."""

    values: dict[str, Any]
    pixels: NDArray[np.uint8]

    @property
    def needed(self) -> int | None:
        """How many bytes it takes to decode the picture, if they were more than allowed."""
        return self.values.get("needed")


class DecoderProcess:
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

    def ask(self, request: "Request") -> "Response":
        """Have the process answer a request; see decoder_worker.answer.

        Raises ImageError if the file cannot be used, OutsideError, and DiedError if the process ended.
        """
        self._wait_until_ready()
        started = time.monotonic()
        try:
            self._requests.writelines(request.chunks())
            self._requests.flush()
            values = self._receive()
        except (EOFError, OSError) as error:
            raise self._cause_of_death(time.monotonic() - started) from error
        return response_of(values, request, self._shared)

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

    def _cause_of_death(self, seconds: float) -> DiedError:
        status = self._process.wait()
        if status >= 0 and seconds >= defaults.DECODER.seconds:
            return DiedError(f"decoding took more than {defaults.DECODER.seconds:g} s", "broken", is_certain=True)
        if status >= 0:
            return DiedError(f"its decoder exited with status {status}", "broken")
        if -status in EXTERNAL_SIGNALS:
            return DiedError("its decoder was killed, perhaps because memory ran out", "unreadable")
        return DiedError(f"its decoder crashed ({signal.strsignal(-status)})", "broken")


def response_of(values: dict[str, Any], request: Request, shared: SharedPixels) -> Response:
    """Return a response with its pixels, or raise the error in it."""
    if "traceback" in values:
        raise RuntimeError(f"a bug in vggsearch, at {request.path}:\n{values['traceback']}")
    if "reason" in values:
        raise ImageError(values["reason"], values["kind"])
    if "outside" in values:
        raise OutsideError(*values["outside"])
    return Response(values, shared.copy(values.get("shape", (0, 0, 3))))
