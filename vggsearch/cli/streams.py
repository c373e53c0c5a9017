"""The standard streams: what cannot be written to stdout is an error, what cannot be written to stderr is lost."""

import io
import os
import sys
from typing import Any, TextIO

STDIN, STDOUT, STDERR = 0, 1, 2
STDOUT_NAME = "standard output"


class _Stdout(io.RawIOBase):
    """Names itself in an error of writing; after the first, it accepts everything: one error is told once."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._is_lost = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any, /) -> int | None:
        """Write data. Raises OSError with the name of the stream."""
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            return self._stream.write(data)
        except OSError as error:
            self._is_lost = True
            error.filename = STDOUT_NAME
            raise


class _Stderr(_Stdout):
    """Loses what it cannot write: a command does not end half-way since a message about it cannot be shown."""

    def write(self, data: Any, /) -> int | None:
        """Write data, if that is possible."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def messages_to(stream: io.RawIOBase, encoding: str) -> TextIO:
    """Return a text stream for messages, with what the encoding lacks as escapes; it never raises OSError."""
    return _text(_Stderr(stream), encoding)


def prepare_streams() -> None:
    """Give the three standard streams of this process that behaviour, also where they are closed.

    A closed one becomes a null device that can only be used the other way round, as in gnulib's stdopen: otherwise
    the next file that is opened, of an index perhaps, would be the standard output of every library. What replaces
    a stream, as in tests and notebooks, stays.
    """
    for number, flags in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDONLY)):
        if not _is_open(number):
            os.open(os.devnull, flags)  # the lowest free number, which is this one
    sys.stdout = _prepared(sys.stdout, STDOUT, _Stdout)
    sys.stderr = _prepared(sys.stderr, STDERR, _Stderr)


def _prepared(stream: TextIO | None, number: int, kind: type[_Stdout]) -> TextIO:
    if stream is None:
        return _text(kind(io.FileIO(number, "w", closefd=False)), "utf-8")
    raw = _raw(stream) if stream in (sys.__stdout__, sys.__stderr__) else None
    return _text(kind(raw), stream.encoding) if raw is not None else stream


def _raw(stream: object) -> io.RawIOBase | None:
    """Return the unbuffered stream below a text stream, None if it has none."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED, there is no buffer in between
    return raw if isinstance(raw, io.RawIOBase) else None


def _text(stream: io.RawIOBase, encoding: str) -> TextIO:
    # A name may have characters that a terminal lacks.
    buffer = io.BufferedWriter(stream)
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=stream.isatty())


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
