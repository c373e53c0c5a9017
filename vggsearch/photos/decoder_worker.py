"""The decoder process: answer one request after another about the picture in a file."""

import contextlib
import ctypes
import faulthandler
import hashlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vggsearch import defaults
from vggsearch.errors import ImageError
from vggsearch.photos.decode import (
    DecodedImage,
    MemoryNeededError,
    decode,
    decoder_errors,
    has_frames,
    jpeg_quality,
    readable_formats,
)
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.motion_photo import holds_video
from vggsearch.photos.opening import open_photo, open_regular
from vggsearch.photos.perceptual_hash import perceptual_hash
from vggsearch.photos.pixel_hash import pixel_hash
from vggsearch.photos.resize import bounded, is_blank, small_grey, square
from vggsearch.photos.shared_pixels import open_shared
from vggsearch.photos.upright import OutsideError
from vggsearch.photos.walk import PhotoFile

STDIN, STDOUT = 0, 1
OOM_SCORE = b"500"  # of 1000: when memory runs out, Linux kills this process rather than its parent

Values = dict[str, Any]


def serve() -> None:
    """Serve requests from standard input until it is closed. Responses are JSON lines, see `answer`.

    A request is a JSON line; if it has "length", as many bytes of a file follow. Pixels go into the shared memory
    that the first argument of the program names. If the process dies, its parent finds out why.
    """
    responses = _own_stdout()
    shared = open_shared(sys.argv[1])
    readable_formats()  # imports the decoders
    _limit_memory()
    _send(responses, {"ready": os.getpid()})
    with os.fdopen(STDIN, "rb") as requests, Path(os.devnull).open("wb") as devnull:
        for line in requests:
            request = json.loads(line)
            data = requests.read(request["length"]) if "length" in request else None
            with _time_limit(devnull):
                response = answer(request, data, shared)
            if request["memory"] > defaults.DECODER.usual_bytes:
                _return_memory()
            _send(responses, response)


def answer(request: Values, data: bytes | None, shared: mmap) -> Values:
    """Answer a request: "wanted" names one of ANSWERS, which say what else is in it and in the response.

    The picture is that of `data` or, without it, of the file "path", below the folder "root" if there is one. The
    pixels of a response go into `shared`, with their "shape", (height, width, channels). A response has "reason"
    and "kind" for a file that cannot be used, "needed" if it takes more than "memory" bytes, "outside" with width
    and height for a crop that is not inside the picture, and "traceback" for a bug in vggsearch.
    """
    try:
        response, pixels = ANSWERS[request["wanted"]](request, data)
    except ImageError as error:
        return {"reason": error.reason, "kind": error.kind}
    except MemoryNeededError as error:
        return {"needed": error.bytes}
    except OutsideError as error:
        return {"outside": (error.width, error.height)}
    except MemoryError:
        return {"reason": "not enough memory to resize it", "kind": "unreadable"}
    except Exception:  # noqa: BLE001 - the parent process raises it
        return {"traceback": traceback.format_exc()}
    if pixels is not None:
        shared[: pixels.nbytes] = pixels.tobytes()
        response["shape"] = pixels.shape
    return response


def _photo(request: Values, data: bytes | None) -> tuple[Values, NDArray[np.uint8]]:
    """Return the square of a PhotoFile ("path", "bytes", "mtime_ns"), and all else that an index holds of it."""
    photo = _decoded(request, data, request["size"])
    pixels = square(photo.image, request["size"], request["resize"])
    # After decoding, so that only the start of a video is read; a photo is in the file cache by now.
    file = PhotoFile(request["path"], request["bytes"], request["mtime_ns"])
    taken = photo.capture.taken.isoformat() if photo.capture.taken else None
    capture = (taken, *photo.capture[1:])
    facts = {"width": photo.width, "height": photo.height, "format": photo.format, "capture": capture}
    sha256 = hashlib.sha256(data).hexdigest() if data is not None else hash_unchanged(Path(request["root"]), file)
    of_pixels = {"is_blank": is_blank(pixels), "perceptual_hash": perceptual_hash(pixels).hex()}
    return {**facts, **of_pixels, "sha256": sha256}, pixels


def _view(request: Values, data: bytes | None) -> tuple[Values, NDArray[np.uint8]]:
    """Return the square of "size" and "resize" of the picture or of its part "crop", and "width" and "height".

    The pixels are those of the square and then, if "longer" is not 0, those of the grey picture, whose height and
    width are "grey"; see resize.small_grey.
    """
    photo = _decoded(request, data, request["size"])
    width, height = (photo.width, photo.height) if request["crop"] is None else photo.image.size
    values, pixels = {"width": width, "height": height}, square(photo.image, request["size"], request["resize"])
    if not request["longer"]:
        return values, pixels
    grey = small_grey(photo.image, request["longer"])
    return {**values, "grey": grey.shape}, np.concatenate([pixels, grey], axis=None).reshape(1, -1, 1)


def _picture(request: Values, data: bytes | None) -> tuple[Values, NDArray[np.uint8]]:
    """Return the picture with about "at_least" pixels per side, or "of_longer" side; see resize.bounded."""
    photo = _decoded(request, data, request["at_least"], of_longer=request["of_longer"])
    return {}, np.asarray(bounded(photo.image, request["at_least"], of_longer=request["of_longer"]))


def _grey(request: Values, data: bytes | None) -> tuple[Values, NDArray[np.uint8]]:
    """Return the picture in grey with "longer" pixels on the longer side; see resize.small_grey."""
    photo = _decoded(request, data, request["longer"], of_longer=True)
    return {}, small_grey(photo.image, request["longer"])[..., None]


def _pixel_hash(request: Values, data: bytes | None) -> tuple[Values, None]:
    """Return "hash", that of pixel_hash.pixel_hash."""
    with decoder_errors(), _opened(request, data) as file:
        return {"hash": pixel_hash(file, request["path"], request["memory"])}, None


def _has_frames(request: Values, data: bytes | None) -> tuple[Values, None]:
    """Return "has_frames", that of decode.has_frames."""
    with decoder_errors(), _opened(request, data) as file:
        return {"has_frames": has_frames(file, request["path"])}, None


def _jpeg_quality(request: Values, data: bytes | None) -> tuple[Values, None]:
    """Return "quality", that of decode.jpeg_quality."""
    with decoder_errors(), _opened(request, data) as file:
        return {"quality": jpeg_quality(file)}, None


def _holds_video(request: Values, data: bytes | None) -> tuple[Values, None]:
    """Return "holds_video", that of motion_photo.holds_video."""
    with decoder_errors(), _opened(request, data) as file:
        return {"holds_video": holds_video(file)}, None


ANSWERS: dict[str, Callable[[Values, bytes | None], tuple[Values, NDArray[np.uint8] | None]]] = {
    "photo": _photo,
    "view": _view,
    "picture": _picture,
    "grey": _grey,
    "pixel hash": _pixel_hash,
    "has frames": _has_frames,
    "jpeg quality": _jpeg_quality,
    "holds video": _holds_video,
}


def _decoded(request: Values, data: bytes | None, at_least: int, *, of_longer: bool = False) -> DecodedImage:
    crop = tuple(request["crop"]) if request.get("crop") is not None else None
    with decoder_errors(), _opened(request, data) as file:
        return decode(file, request["path"], at_least, of_longer=of_longer, crop=crop, memory=request["memory"])


def _opened(request: Values, data: bytes | None) -> BinaryIO:
    if data is not None:
        return io.BytesIO(data)
    if request["root"] is None:
        return open_regular(Path(request["path"]))
    return open_photo(Path(request["root"]), request["path"])


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


def _return_memory() -> None:
    """Give the memory of a large picture back to the system, since the next one may be decoded elsewhere."""
    with contextlib.suppress(AttributeError, OSError):  # only the GNU C library keeps it
        ctypes.CDLL(None).malloc_trim(0)


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
