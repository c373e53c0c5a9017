"""The process of a GPU: read, decode and embed JPEG files, and embed pixels that a CPU has decoded."""

import hashlib
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import ImageError
from vggsearch.model.decoding_engine import DecodingEngine, DeviceDecoder, DevicePixels, SquareFacts
from vggsearch.model.engine import no_embeddings
from vggsearch.photos.capture import Capture
from vggsearch.photos.jpeg_header import JpegHeader, jpeg_header
from vggsearch.photos.opening import open_regular
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import PhotoFile

READERS = 4  # threads: reading and hashing run outside the interpreter, parsing headers does not
FILES_PER_READ = 32  # read by one thread at a time
LARGEST_FILE = 1 << 28  # bytes to hold in memory; a CPU decodes larger files as it reads them
JPEG_START = b"\xff\xd8\xff"

Load = Callable[[int], DecodingEngine]


@dataclass(frozen=True)
class Files:
    """JPEG files below the folder `root`, to be embedded as squares of `size` pixels."""

    root: str
    size: int
    files: Sequence[PhotoFile]


@dataclass(frozen=True)
class EmbeddedFiles:
    """The embeddings of those Files that the GPU can decode, which are at the ascending positions `at`.

    A CPU decodes the others, or finds out what is wrong with them. All other fields are in the order of `at`:
    `width` to `capture` are those of JpegHeader, `facts` those of DeviceDecoder, `embeddings` is float32 (n, dim).
    Columns are several times as fast to send as headers.
    """

    at: Sequence[int]
    sha256: Sequence[str]
    width: Sequence[int]
    height: Sequence[int]
    capture: Sequence[Capture]
    facts: SquareFacts
    embeddings: NDArray[np.float32]


@dataclass(frozen=True)
class Ready:
    """The first response of the process: whether it takes Files."""

    decodes_jpeg: bool


Request: TypeAlias = "NDArray[np.uint8] | Files"
Response: TypeAlias = "NDArray[np.float32] | EmbeddedFiles"


def none_embedded() -> EmbeddedFiles:
    """Return the response that leaves all files to the CPU."""
    return EmbeddedFiles((), (), (), (), (), _no_facts(), no_embeddings())


def _no_facts() -> SquareFacts:
    return SquareFacts(np.empty(0, np.bool_), np.empty((0, BYTES), np.uint8))


def work() -> None:
    """Respond to requests in their order until the pipe closes.

    The first request is (load, gpu), the first response is Ready. A response that is text is the reason why the
    process ends.
    """
    requests, responses = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get into the pipe
    waiting: SimpleQueue[_Pixels | _Reading] = SimpleQueue()
    try:
        load, gpu = pickle.load(requests)  # noqa: S301 - from this program's own process
        Thread(target=_read_ahead, args=(requests, waiting)).start()
        engine = load(gpu)
        with ThreadPoolExecutor(1) as beside:
            loading = beside.submit(engine.square_decoder)
            engine.prepare()
            decoder = loading.result()
        send(Ready(decoder is not None), responses)
        while True:
            for response in _respond(engine, decoder, _available(waiting)):
                send(response, responses)
    except Exception as error:  # noqa: BLE001 - the parent reports whatever an engine raises
        with suppress(OSError):  # the parent may be gone
            send(f"{type(error).__name__}: {error}".partition("\n")[0], responses)


def send(message: object, pipe: IO[bytes]) -> None:
    """Write a message to a pipe."""
    pickle.dump(message, pipe, protocol=5)  # writes an array without copying it
    pipe.flush()


@dataclass(frozen=True, slots=True)
class _JpegFile:
    """A JPEG file in memory that the GPU may be able to decode."""

    data: bytes
    sha256: str
    header: JpegHeader


class _Pixels:
    """A request to embed pixels."""

    def __init__(self, squares: NDArray[np.uint8]) -> None:
        self._squares = squares

    def batch(self, _: DeviceDecoder | None) -> DevicePixels:
        return self._squares

    def response(self, embeddings: NDArray[np.float32]) -> Response:
        return embeddings


class _Reading:
    """A request to embed files, which are being read by threads."""

    def __init__(self, request: Files, readers: ThreadPoolExecutor) -> None:
        files, root = request.files, Path(request.root)
        groups = (files[start : start + FILES_PER_READ] for start in range(0, len(files), FILES_PER_READ))
        self._reading = [readers.submit(_read_all, root, request.size, group) for group in groups]
        self._decoded: list[tuple[int, str, int, int, Capture]] = []  # see EmbeddedFiles
        self._facts: Callable[[], SquareFacts] = _no_facts

    def batch(self, decoder: DeviceDecoder | None) -> DevicePixels:
        """Return the pixels of the files that the GPU can decode."""
        assert decoder is not None, "files for a GPU that does not decode them"  # noqa: S101
        reading, self._reading = self._reading, []  # so that the files are freed once they are decoded
        read = enumerate(file for group in reading for file in group.result())
        files = [(position, file) for position, file in read if file is not None]
        if not files:
            return np.empty((0, 0, 0, 3), np.uint8)
        squares, is_decoded, facts = decoder.squares(
            [file.data for _, file in files], [file.header for _, file in files]
        )
        rows = np.flatnonzero(is_decoded)
        for position, file in (files[row] for row in rows):
            header = file.header
            self._decoded.append((position, file.sha256, header.width, header.height, header.capture))
        self._facts = lambda: _facts_of(facts(), rows)
        return squares if len(rows) == len(files) else squares[rows]

    def response(self, embeddings: NDArray[np.float32]) -> Response:
        if not self._decoded:
            return none_embedded()
        at, sha256, width, height, capture = zip(*self._decoded, strict=True)
        return EmbeddedFiles(at, sha256, width, height, capture, self._facts(), embeddings)


def _facts_of(facts: SquareFacts, rows: NDArray[np.int64]) -> SquareFacts:
    return SquareFacts(facts.is_blank[rows], facts.perceptual_hash[rows])


def _read_all(root: Path, size: int, files: Sequence[PhotoFile]) -> list[_JpegFile | None]:
    return [_read(root / file.path, size, file) for file in files]


def _read(path: Path, size: int, file: PhotoFile) -> _JpegFile | None:
    """Return None for a file that is left to the CPU: unreadable, changed since the walk, or not for the GPU."""
    try:
        with open_regular(path) as opened:
            data = opened.peek(len(JPEG_START))[: len(JPEG_START)]
            if data != JPEG_START or file.bytes > LARGEST_FILE:  # do not read the rest of a video
                return None
            data = opened.read()
            status = os.fstat(opened.fileno())
    except (OSError, ImageError):
        return None
    if (len(data), status.st_mtime_ns) != (file.bytes, file.mtime_ns):
        return None
    header = jpeg_header(data, size)
    return None if header is None else _JpegFile(data, hashlib.sha256(data).hexdigest(), header)


def _respond(
    engine: DecodingEngine, decoder: DeviceDecoder | None, requests: "Iterator[_Pixels | _Reading]"
) -> Iterator[Response]:
    """Respond to some requests, in order; files are decoded while the batch before them is embedded."""
    taken: deque[_Pixels | _Reading] = deque()

    def batches() -> Iterator[DevicePixels]:
        for request in requests:
            taken.append(request)
            yield request.batch(decoder)

    for embeddings in engine.embed_stream(batches()):
        yield taken.popleft().response(embeddings)


def _available(waiting: "SimpleQueue[_Pixels | _Reading]") -> "Iterator[_Pixels | _Reading]":
    """Yield requests while any are waiting, so that an engine never holds one back until the next arrives."""
    yield waiting.get()
    while not waiting.empty():
        yield waiting.get()


def _read_ahead(requests: IO[bytes], waiting: "SimpleQueue[_Pixels | _Reading]") -> None:
    """Take each request from the pipe as it arrives, and exit the process when the pipe closes.

    This needs a thread of its own: otherwise a parent that sends pixels and a process that sends embeddings could
    wait for each other. And when the parent closes the pipe or dies, the current batch is no longer wanted.
    """
    readers = ThreadPoolExecutor(READERS)
    try:
        while True:
            request = pickle.load(requests)  # noqa: S301 - from this program's own process
            waiting.put(_Reading(request, readers) if isinstance(request, Files) else _Pixels(request))
    finally:
        os._exit(1)
