"""What runs in a decoder process: one file after the other, from its path to the square of pixels."""

import contextlib
import faulthandler
import json
import os
import sys
import traceback
from pathlib import Path
from typing import BinaryIO

from vggsearch import defaults
from vggsearch.errors import ImageError
from vggsearch.photos.decode import decode, decoder_errors, readable_formats
from vggsearch.photos.resize import is_blank, square

STDIN, STDOUT = 0, 1
LIKELY_VICTIM = b"500"  # of 1000: where the system runs out of memory, it ends this process and not its parent


def serve() -> None:
    """Answer questions on standard input, one JSON line each, until it is closed.

    A question is {"root", "path", "size", "resize"}. An answer is a JSON line, which ends in "pixels", the number
    of bytes that follow: uint8 of shape (size, size, 3). A file that cannot be used is answered with "reason" and
    "kind", a mistake in vggsearch itself with "traceback". What kills the process is left to the parent to see.
    """
    answers = _own_stdout()
    readable_formats()  # which imports the decoders
    _limit_memory()
    _say(answers, {"ready": os.getpid()})
    with os.fdopen(STDIN, "rb") as questions, Path(os.devnull).open("wb") as nowhere:
        for line in questions:
            # It needs no interpreter to end a decoder that never comes back, and works on every system.
            faulthandler.dump_traceback_later(defaults.DECODER.seconds, exit=True, file=nowhere)
            answer, pixels = _answer(json.loads(line))
            faulthandler.cancel_dump_traceback_later()
            _say(answers, answer, pixels)


def _answer(question: dict[str, str | int]) -> tuple[dict[str, object], bytes]:
    root, path, size = str(question["root"]), str(question["path"]), int(question["size"])
    try:
        with decoder_errors(), Path(root, path).open("rb") as file:
            photo = decode(file, path, at_least=size)
        pixels = square(photo.image, size, str(question["resize"]))
    except ImageError as error:
        return {"reason": error.reason, "kind": error.kind}, b""
    except MemoryError:
        return {"reason": "not enough memory to resize it", "kind": "unreadable"}, b""
    except Exception:  # noqa: BLE001 - the parent raises it
        return {"traceback": traceback.format_exc()}, b""
    taken = photo.taken.isoformat() if photo.taken else None
    facts = {"width": photo.width, "height": photo.height, "format": photo.format, "taken": taken}
    return {**facts, "is_blank": is_blank(pixels)}, pixels.tobytes()


def _say(answers: BinaryIO, answer: dict[str, object], pixels: bytes = b"") -> None:
    answers.write(json.dumps({**answer, "pixels": len(pixels)}).encode() + b"\n")
    answers.write(pixels)
    answers.flush()


def _own_stdout() -> BinaryIO:
    """Take standard output for the answers alone: what a library prints goes nowhere."""
    answers = os.dup(STDOUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    os.close(nowhere)
    return os.fdopen(answers, "wb")


def _limit_memory() -> None:
    """Make a decoder that asks for too much memory fail alone. Only Linux keeps such a limit."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    # What the libraries have by now is not the file's: on many processors it is gigabytes of address space.
    libraries = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (libraries + defaults.DECODER.bytes, most))
    with contextlib.suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_bytes(LIKELY_VICTIM)
