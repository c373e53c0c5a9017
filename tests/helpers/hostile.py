"""A picture format whose files do to their decoder what a damaged file may: for decoder processes only."""

import ctypes
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from PIL import Image, ImageFile

from vggsearch import defaults
from vggsearch.defaults import DecoderDefaults
from vggsearch.photos import decoder_worker

LIMITS = DecoderDefaults(seconds=1.0, bytes=1 << 30)


def crash() -> None:
    ctypes.string_at(0)


def hang() -> None:
    ctypes.PyDLL(None).pause()  # a native call that keeps the interpreter's lock, as a decoder may


def flood() -> None:
    bytearray(2 << 30)


def end() -> None:
    os._exit(3)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def chatter() -> NoReturn:
    os.write(1, b"{} a library prints what it thinks\n" * 10_000)
    os.write(2, b"and so on\n" * 10_000)
    raise ValueError("chatter only")


DEEDS: dict[bytes, Callable[[], None]] = {
    deed.__name__.encode(): deed for deed in (crash, hang, flood, end, be_killed, chatter)
}


class HostileFile(ImageFile.ImageFile):
    format = "HOSTILE"

    def _open(self) -> None:
        assert self.fp is not None
        DEEDS[self.fp.read().removeprefix(b"HOSTILE ")]()


def serve() -> None:
    """Be a decoder process that also knows hostile files, with limits a test can wait for."""
    Image.register_open(HostileFile.format, HostileFile, lambda start: start.startswith(b"HOSTILE"))
    defaults.DECODER = LIMITS
    decoder_worker.serve()
