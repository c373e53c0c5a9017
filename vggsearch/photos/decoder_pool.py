"""Decoder processes, seen from the process that uses them."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
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

SERVE = "from vggsearch.photos.decoder_worker import serve; serve()"

# Whoever sends these does not mean the file: a person, a service manager, or a system out of memory.
SENT_FROM_OUTSIDE = {getattr(signal, name, None) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}


@dataclass(frozen=True, slots=True)
class Square:
    """A decoded photo as the network sees it: `pixels` is uint8 (size, size, 3), RGB; see images.Photo.

    `is_blank` says that there is nothing in it to compare: see preprocess.is_blank.
    """

    width: int
    height: int
    format: str
    taken: datetime | None
    is_blank: bool
    pixels: NDArray[np.uint8]


class _Died(Exception):
    """The process ended within a file: `reason` and `kind` are the file's, if `is_certain` without another try."""

    def __init__(self, reason: str, kind: SkipKind, *, is_certain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.is_certain = is_certain


class _Decoder:
    """One decoder process. It remembers nothing between files, so it can be ended and started anew at any time."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; {SERVE}"
        # A session of its own keeps a terminal's Ctrl-C from it: what is being decoded is to be finished.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff and libheif write a line for each odd tag
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: both are pipes, as asked for
        assert isinstance(self._process.stdout, BufferedReader)  # noqa: S101
        self._questions, self._answers = self._process.stdin, self._process.stdout
        self._is_ready = False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with contextlib.suppress(OSError):  # half a question may still be in it
            self._questions.close()

    def decode(self, question: "_Question") -> Square:
        """Raise ImageError where the file cannot be used, _Died where it ended the process."""
        self._wait_until_ready()
        started = time.monotonic()
        try:
            self._questions.write(json.dumps(asdict(question)).encode() + b"\n")
            self._questions.flush()
            answer = self._hear()
            pixels = np.empty((question.size, question.size, 3) if answer["pixels"] else 0, np.uint8)
            if self._answers.readinto(pixels.data) != pixels.nbytes:
                raise EOFError
        except (EOFError, OSError) as error:
            raise self._how_it_died(time.monotonic() - started) from error
        if "traceback" in answer:
            raise RuntimeError(f"a mistake in vggsearch, at {question.path}:\n{answer['traceback']}")
        if "reason" in answer:
            raise ImageError(answer["reason"], answer["kind"])
        taken = datetime.fromisoformat(answer["taken"]) if answer["taken"] else None
        return Square(answer["width"], answer["height"], answer["format"], taken, answer["is_blank"], pixels)

    def _hear(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            self._hear()
        except EOFError as error:
            raise InstallationError(
                f"The process that decodes photos does not start (exit status {self._process.wait()}). "
                f"What does this say? {sys.executable} -c 'import vggsearch.photos.decoder_worker'"
            ) from error
        self._is_ready = True

    def _how_it_died(self, seconds: float) -> _Died:
        status = self._process.wait()
        if status >= 0 and seconds >= defaults.DECODER.seconds:
            return _Died(f"decoding it took more than {defaults.DECODER.seconds:g} s", "broken", is_certain=True)
        if status >= 0:
            return _Died(f"its decoder ended with exit status {status}", "broken")
        if -status in SENT_FROM_OUTSIDE:
            return _Died("its decoder was killed, perhaps for want of memory", "unreadable")
        return _Died(f"its decoder crashed ({signal.strsignal(-status)})", "broken")


@dataclass(frozen=True, slots=True)
class _Question:
    root: str
    path: str
    size: int
    resize: str


class Decoders:
    """`count` decoder processes, for as many threads. They start at once and are ready a moment later."""

    def __init__(self, count: int) -> None:
        self._is_open = True
        self._opening = Lock()
        self._all = [_Decoder() for _ in range(count)]
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    def __enter__(self) -> "Decoders":
        """Return the decoders."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are at; who waits for one gets an ImageError."""
        with self._opening:
            self._is_open = False
            for decoder in self._all:
                decoder.close()

    def decode(self, root: Path, path: str, size: int, resize: str) -> Square:
        """Decode the file at `root`/`path` into a square of `size` pixels a side; see preprocess.square.

        Waits for an idle process. Raises ImageError, also for a file that ends its process. A crash is believed
        when it happens twice, the second time in a new process, which no file before it can have harmed.
        """
        question = _Question(str(root), path, size, resize)
        decoder = self._idle.get()
        try:
            try:
                return self._decode_once(decoder, question)
            except _Died as died:
                if died.is_certain or not self._is_open:
                    raise
            return self._decode_once(decoder, question)
        except _Died as died:
            raise ImageError(died.reason, died.kind) from died
        finally:
            self._idle.put(decoder)

    def _decode_once(self, decoder: _Decoder, question: _Question) -> Square:
        try:
            return decoder.decode(question)
        except ImageError:
            raise
        except BaseException:  # it is dead, or has half an answer left to give
            with self._opening:
                if self._is_open:
                    decoder.close()
                    decoder.start()
            raise
