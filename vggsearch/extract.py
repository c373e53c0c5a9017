"""Stream photos through decoders and the network, in order, with a bounded look-ahead."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.decoders.pool import Decoders, Square
from vggsearch.defaults import EXTRACT
from vggsearch.errors import ImageError
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos import PhotoFile, Skipped


@dataclass(frozen=True, slots=True)
class Embedded:
    """A photo and its embedding.

    `width` and `height` are the file's own, upright, in pixels; `sha256` is of its bytes; `taken` is the
    camera's local time; `embedding` is float32 of shape (dim,) and unit length.
    """

    file: PhotoFile
    sha256: str
    width: int
    height: int
    format: str
    taken: datetime | None
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A photo before the network: its file, the sha256 of its bytes, and what the network is to see."""

    file: PhotoFile
    sha256: str
    square: Square

    def with_embedding(self, embedding: NDArray[np.float32]) -> Embedded:
        """Return it as the network's answer makes it."""
        seen = self.square
        return Embedded(self.file, self.sha256, seen.width, seen.height, seen.format, seen.taken, embedding)


def default_workers() -> int:
    """Return how many decoders to use: one a processor, up to a limit."""
    return min(EXTRACT.max_workers, os.cpu_count() or 1)


def extract(
    files: Iterable[PhotoFile],
    root: Path,
    spec: EmbeddingSpec,
    load_engine: Callable[[], Engine],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Generator[Embedded | Skipped, None, None]:
    """Yield an Embedded or a Skipped for each file, in the order of `files`.

    The first photos are decoded while the network loads, and each batch is embedded while the next is decoded.
    At most two batches and one file a worker are ahead of what was yielded, and what the engine takes in advance
    (Engine.embed_stream), so memory does not grow with the folder.
    """
    with closing(_LookAhead(files, root, spec, workers or default_workers())) as source:
        engine = load_engine()
        at_once = batch_size or engine.batch_size
        source.deepen(at_once)
        yield from _embedded(source, spec, engine, at_once)


def decoded(
    files: Iterable[PhotoFile], root: Path, spec: EmbeddingSpec, *, ahead: int, workers: int | None = None
) -> Generator[Decoded | Skipped, None, None]:
    """Yield a Decoded or a Skipped for each file, in order: all that `extract` does but the network."""
    with closing(_LookAhead(files, root, spec, workers or default_workers())) as source:
        source.deepen(ahead)
        yield from source


def _embedded(
    source: Iterator[Decoded | Skipped], spec: EmbeddingSpec, engine: Engine, at_once: int
) -> Iterator[Embedded | Skipped]:
    taken: deque[list[Decoded | Skipped]] = deque()  # given to the engine, their embeddings not yet back

    def pixels() -> Iterator[NDArray[np.uint8]]:
        while held := list(islice(source, at_once)):
            taken.append(held)
            squares = [item.square.pixels for item in held if isinstance(item, Decoded)]
            yield np.stack(squares) if squares else np.empty((0, spec.size, spec.size, 3), np.uint8)

    for embeddings in engine.embed_stream(pixels()):
        rows = iter(embeddings)
        for item in taken.popleft():
            yield item if isinstance(item, Skipped) else item.with_embedding(next(rows))


class _LookAhead:
    """Decodes files in advance, at first one a worker, and yields them in their order."""

    def __init__(self, files: Iterable[PhotoFile], root: Path, spec: EmbeddingSpec, workers: int) -> None:
        self._files, self._root, self._spec = iter(files), root, spec
        self._pending: deque[Future[Decoded | Skipped]] = deque()
        self._decoders = Decoders(workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self.deepen(workers)

    def __iter__(self) -> Iterator[Decoded | Skipped]:
        return self

    def __next__(self) -> Decoded | Skipped:
        if not self._pending:
            raise StopIteration
        done = self._pending.popleft().result()
        self.deepen(1)
        return done

    def deepen(self, count: int) -> None:
        """Have so many more files decoded in advance."""
        files = islice(self._files, count)
        self._pending.extend(
            self._pool.submit(_decode, file, self._root, self._spec, self._decoders) for file in files
        )

    def close(self) -> None:
        """Break off what is being decoded."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._decoders.close()
        self._pool.shutdown()


def _decode(file: PhotoFile, root: Path, spec: EmbeddingSpec, decoders: Decoders) -> Decoded | Skipped:
    try:
        square = decoders.decode(root, file.path, spec.size, spec.resize)
        # After decoding, so that of a film only the start is read; a photo is in the system's memory by now.
        sha256 = _hash_unchanged(file, root)
    except ImageError as error:
        return Skipped(file.path, error.reason, error.kind, file.bytes, file.mtime_ns)
    return Decoded(file, sha256, square)


def _hash_unchanged(file: PhotoFile, root: Path) -> str:
    """Return the sha256 of the file that was decoded. Raises ImageError where it is no longer what was walked."""
    try:
        with (root / file.path).open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            status = os.fstat(opened.fileno())
    except OSError as error:
        raise ImageError(error.strerror or str(error), "unreadable") from error
    if (status.st_size, status.st_mtime_ns) != (file.bytes, file.mtime_ns):
        raise ImageError("changed while it was read; the next update takes it", "unreadable")
    return sha256
