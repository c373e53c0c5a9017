"""The decoder process: decode one file after another, from its path to the square of pixels."""

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
OOM_SCORE = b"500"  # of 1000: when memory runs out, Linux kills this process rather than its parent


def serve() -> None:
    """Serve requests from standard input, one JSON line each, until it is closed.

    A request is {"root", "path", "size", "resize"}. A response is a JSON line whose last key, "pixels", is the
    number of bytes that follow it: uint8 of shape (size, size, 3). A response has "reason" and "kind" for a file
    that cannot be used, "traceback" for a bug in vggsearch. If the process dies, its parent finds out why.
    """
    responses = _own_stdout()
    readable_formats()  # imports the decoders
    _limit_memory()
    _send(responses, {"ready": os.getpid()})
    with os.fdopen(STDIN, "rb") as requests, Path(os.devnull).open("wb") as devnull:
        for line in requests:
            # This ends a decoder that never returns without needing the interpreter, on every operating system.
            faulthandler.dump_traceback_later(defaults.DECODER.seconds, exit=True, file=devnull)
            response, pixels = _respond(json.loads(line))
            faulthandler.cancel_dump_traceback_later()
            _send(responses, response, pixels)


def _respond(request: dict[str, str | int]) -> tuple[dict[str, object], bytes]:
    root, path, size = str(request["root"]), str(request["path"]), int(request["size"])
    try:
        with decoder_errors(), Path(root, path).open("rb") as file:
            photo = decode(file, path, at_least=size)
        pixels = square(photo.image, size, str(request["resize"]))
    except ImageError as error:
        return {"reason": error.reason, "kind": error.kind}, b""
    except MemoryError:
        return {"reason": "not enough memory to resize it", "kind": "unreadable"}, b""
    except Exception:  # noqa: BLE001 - the parent process raises it
        return {"traceback": traceback.format_exc()}, b""
    taken = photo.taken.isoformat() if photo.taken else None
    facts = {"width": photo.width, "height": photo.height, "format": photo.format, "taken": taken}
    return {**facts, "is_blank": is_blank(pixels)}, pixels.tobytes()


def _send(responses: BinaryIO, response: dict[str, object], pixels: bytes = b"") -> None:
    responses.write(json.dumps({**response, "pixels": len(pixels)}).encode() + b"\n")
    responses.write(pixels)
    responses.flush()


def _own_stdout() -> BinaryIO:
    """Reserve standard output for responses: whatever a library prints is discarded."""
    responses = os.dup(STDOUT)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, STDOUT)
    os.close(devnull)
    return os.fdopen(responses, "wb")


def _limit_memory() -> None:
    """Limit the memory of this process, so that a decoder that needs too much fails alone. Only on Linux."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    # Exclude what the libraries have reserved by now: gigabytes of address space on a machine with many CPU cores.
    libraries = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):  # a lower limit is already set
        resource.setrlimit(resource.RLIMIT_AS, (libraries + defaults.DECODER.bytes, hard_limit))
    with contextlib.suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_bytes(OOM_SCORE)
