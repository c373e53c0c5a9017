"""A pool of decoder processes: a file that crashes, hangs or exhausts its decoder costs only itself.

Every file that somebody else may have made is decoded here, and nowhere else.
"""

import os
import sys
import weakref
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch import defaults
from vggsearch.errors import ForkError, ImageError
from vggsearch.photos.addresses import is_address, split
from vggsearch.photos.capture import Capture
from vggsearch.photos.decoder_process import LOW_PRIORITY, DecoderProcess, DiedError, Request, Response
from vggsearch.photos.memory_budget import MemoryBudget
from vggsearch.photos.sources import read_photo
from vggsearch.photos.upright import Box, OutsideError
from vggsearch.photos.walk import PhotoFile

# "200000 100000": 200 of every 100 ms; the first is "max" without a limit.
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Square:
    """A decoded photo as network input: `pixels` is uint8 of shape (size, size, 3), RGB.

    `width` to `capture` are those of decode.DecodedImage, `is_blank` and `perceptual_hash` the results of these
    functions for the pixels, and `sha256` the hash of the file.
    """

    width: int
    height: int
    format: str
    capture: Capture
    is_blank: bool
    perceptual_hash: bytes
    sha256: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to decode: the photo `path` below the folder `root`, or the bytes `data` of a file.

    Without either, `path` is a file that the user has named. With `data`, it is used for its suffix alone. `root`
    may be an address, see photos.sources.
    """

    path: str
    root: Path | None = None
    data: bytes | None = None

    @classmethod
    def named(cls, file: Path) -> "Source":
        """Return a file that the user has named, or a photo at an address. Raises OptionError for no address."""
        if not is_address(file):
            return cls(str(file))
        root, path = split(file)
        return cls(path, root)

    def fetched(self) -> "Source":
        """Return a photo at an address with its bytes, any other one as it is. Raises ImageError."""
        if self.root is None or self.data is not None or not is_address(self.root):
            return self
        return replace(self, data=read_photo(self.root, self.path))

    def place(self) -> dict[str, str | None]:
        """Return path and root, absolute, since the current folder may change after a process has started."""
        if self.root is not None:
            return {"path": self.path, "root": str(self.root.absolute())}
        return {"path": self.path if self.data is not None else str(Path(self.path).absolute()), "root": None}


@dataclass(frozen=True, slots=True)
class View:
    """What a network sees of a picture: `pixels`, uint8 (size, size, 3), RGB, and the picture's width by height.

    `grey` is the picture for keypoints, see resize.small_grey; None if it was not requested.
    """

    pixels: NDArray[np.uint8]
    aspect: float
    grey: NDArray[np.uint8] | None = None


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


class Decoders:
    """`count` decoder processes, to be shared by any number of threads. They start in the background.

    Pictures that take much memory are decoded only as many at once as fit into DECODER.picture_bytes, or into
    DECODER.usual_bytes for each process if that is more.
    """

    def __init__(self, count: int) -> None:
        self._is_open = True
        self._owner = os.getpid()
        self._opening = Lock()
        self._all: list[DecoderProcess] = []
        self._idle: SimpleQueue[DecoderProcess] = SimpleQueue()
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
                self._all.append(DecoderProcess())
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

    def decode(self, root: Path, file: PhotoFile, size: int, resize: str, data: bytes | None = None) -> Square:
        """Decode `file` below `root` into a square of `size` pixels per side, for an index; see resize.square.

        `data` are its bytes if it is not on a disk. Raises ImageError, also for a file that changed since the walk.
        """
        wanted = {"bytes": file.bytes, "mtime_ns": file.mtime_ns, "size": size, "resize": resize}
        response = self._ask("photo", Source(file.path, root, data), **wanted)
        values = response.values
        taken, *others = values["capture"]
        capture = Capture(datetime.fromisoformat(taken) if taken else None, *others)
        facts = values["width"], values["height"], values["format"], capture, values["is_blank"]
        perceptual_hash = bytes.fromhex(values["perceptual_hash"])
        return Square(*facts, perceptual_hash, values["sha256"], response.pixels)

    def view(self, source: Source, size: int, resize: str, crop: Box | None = None, *, longer: int = 0) -> View:
        """Return a picture, or the part `crop` of it, as a network with inputs of `size` pixels sees it.

        If `longer` is not 0, it has a grey picture, too, with so many pixels on the longer side. Raises ImageError,
        and OutsideError for the crop.
        """
        response = self._ask("view", source, size=size, resize=resize, crop=crop, longer=longer)
        aspect = response.values["width"] / response.values["height"]
        if not longer:
            return View(response.pixels, aspect)
        pixels, grey = np.split(response.pixels.ravel(), [3 * size**2])
        return View(pixels.reshape(size, size, 3), aspect, grey.reshape(response.values["grey"]))

    def picture(
        self, source: Source, at_least: int, *, of_longer: bool = False, crop: Box | None = None
    ) -> Image.Image:
        """Return a picture, or the part `crop` of it, as upright RGB, with about `at_least` pixels per side.

        With `of_longer`, the longer side alone has so many. It has at most IMAGE.picture_pixels in any case; a
        small picture is not enlarged. See resize.bounded. Raises ImageError, and OutsideError for the crop.
        """
        response = self._ask("picture", source, at_least=at_least, of_longer=of_longer, crop=crop)
        return Image.fromarray(response.pixels)

    def grey(self, source: Source, longer: int) -> NDArray[np.uint8]:
        """Return a picture in grey, uint8 (height, width), upright, with `longer` pixels on the longer side.

        See resize.small_grey. Raises ImageError.
        """
        return self._ask("grey", source, longer=longer).pixels[..., 0]

    def size(self, source: Source) -> tuple[int, int]:
        """Return width and height of the upright picture, in pixels. Raises ImageError."""
        values = self._ask("view", source, size=1, resize="squash", crop=None, longer=0).values
        return values["width"], values["height"]

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

    def holds_video(self, source: Source) -> bool:
        """Return whether a file is a motion photo; see motion_photo.holds_video. Raises ImageError."""
        return bool(self._ask("holds video", source).values["holds_video"])

    def _ask(self, wanted: str, source: Source, **values: Any) -> Response:
        """Return the response to a request; see decoder_worker.ANSWERS.

        Waits for an idle process. Raises ImageError, also for a file that ends its process. A file is blamed for a
        crash only if it crashes a second, fresh process, which no earlier file can have corrupted.
        """
        if self._owner != os.getpid():
            raise ForkError
        source = source.fetched()
        request = Request({"wanted": wanted, **source.place(), **values}, source.data)
        response = self._answered(request.with_memory(defaults.DECODER.usual_bytes))
        if response.needed is None:
            return response
        with self._memory.reserved(response.needed):
            return self._answered(request.with_memory(response.needed))

    def _answered(self, request: Request) -> Response:
        decoder = self._idle.get()
        try:
            try:
                return self._ask_once(decoder, request)
            except DiedError as died:
                if died.is_certain or not self._is_open:
                    raise
            return self._ask_once(decoder, request)
        except DiedError as died:
            raise ImageError(died.reason, died.kind) from died
        finally:
            self._idle.put(decoder)

    def _ask_once(self, decoder: DecoderProcess, request: Request) -> Response:
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


def _close_all(decoders: list[DecoderProcess], owner: int) -> None:
    """End the processes, unless this process was forked from the one that started them."""
    if owner == os.getpid():
        for decoder in decoders:
            decoder.close()
