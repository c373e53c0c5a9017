"""The decoder process: decode one file after another, from its path to the square of pixels."""

import contextlib
import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

from vggsearch import defaults
from vggsearch.errors import ImageError
from vggsearch.photos.decode import decode, decoder_errors, readable_formats
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.perceptual_hash import perceptual_hash
from vggsearch.photos.resize import is_blank, square
from vggsearch.photos.shared_pixels import open_shared
from vggsearch.photos.walk import PhotoFile

STDIN, STDOUT = 0, 1
OOM_SCORE = b"500"  # of 1000: when memory runs out, Linux kills this process rather than its parent


def serve() -> None:
    """Serve requests from standard input, one JSON line each, until it is closed.

    A request is {"root", "path", "bytes", "mtime_ns", "size", "resize"}: a PhotoFile and the square to make of it.
    The pixels, uint8 (size, size, 3), go into the shared memory that the first argument of the program names; the
    response is a JSON line with all else that a Square holds. It has "reason" and "kind" for a file that cannot be
    used, "traceback" for a bug in vggsearch. If the process dies, its parent finds out why.
    """
    responses = _own_stdout()
    shared = open_shared(sys.argv[1])
    readable_formats()  # imports the decoders
    _limit_memory()
    _send(responses, {"ready": os.getpid()})
    with os.fdopen(STDIN, "rb") as requests, Path(os.devnull).open("wb") as devnull:
        for line in requests:
            _send(responses, _respond(json.loads(line), shared, devnull))


def _respond(request: dict[str, Any], shared: mmap, devnull: BinaryIO) -> dict[str, object]:
    root, file = Path(request["root"]), PhotoFile(request["path"], request["bytes"], request["mtime_ns"])
    try:
        with _time_limit(devnull):
            with decoder_errors(), (root / file.path).open("rb") as opened:
                photo = decode(opened, file.path, at_least=request["size"])
            pixels = square(photo.image, request["size"], request["resize"])
        # After decoding, so that only the start of a video is read; a photo is in the file cache by now.
        sha256 = hash_unchanged(root, file)
    except ImageError as error:
        return {"reason": error.reason, "kind": error.kind}
    except MemoryError:
        return {"reason": "not enough memory to resize it", "kind": "unreadable"}
    except Exception:  # noqa: BLE001 - the parent process raises it
        return {"traceback": traceback.format_exc()}
    shared[: pixels.nbytes] = pixels.tobytes()
    taken = photo.taken.isoformat() if photo.taken else None
    facts = {"width": photo.width, "height": photo.height, "format": photo.format, "taken": taken}
    of_pixels = {"is_blank": is_blank(pixels), "perceptual_hash": perceptual_hash(pixels).hex()}
    return {**facts, **of_pixels, "sha256": sha256}


@contextlib.contextmanager
def _time_limit(devnull: BinaryIO) -> Iterator[None]:
    """End this process if a decoder does not return, without needing the interpreter, on every operating system."""
    faulthandler.dump_traceback_later(defaults.DECODER.seconds, exit=True, file=devnull)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _send(responses: BinaryIO, response: dict[str, object]) -> None:
    responses.write(json.dumps(response).encode() + b"\n")
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
