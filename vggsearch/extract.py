"""Stream photos through decoding threads and the network, in order, with a bounded look-ahead."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.errors import ImageError
from vggsearch.images import JPEG_START, decode, decoder_errors, jpeg_header
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos import PhotoFile, Skipped
from vggsearch.preprocess import square

if TYPE_CHECKING:
    from vggsearch.model.engine import SquareJpeg


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
class _Prepared:
    file: PhotoFile
    sha256: str
    width: int
    height: int
    format: str
    taken: datetime | None
    pixels: NDArray[np.uint8]

    def with_embedding(self, embedding: NDArray[np.float32]) -> Embedded:
        return Embedded(self.file, self.sha256, self.width, self.height, self.format, self.taken, embedding)


def default_workers() -> int:
    """Return how many decoding threads to use: one a processor, up to a limit."""
    return min(EXTRACT.max_workers, os.cpu_count() or 1)


def extract(
    files: Iterable[PhotoFile],
    root: Path,
    spec: EmbeddingSpec,
    engine: Engine,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[Embedded | Skipped]:
    """Yield an Embedded or a Skipped for each file, in the order of `files`.

    A batch is embedded while the next is decoded. At most two batches and one file a worker are ahead of what was
    yielded, and what the engine takes in advance (Engine.embed_stream), so memory does not grow with the folder.
    """
    prepare = partial(_prepare, root=root, spec=spec, square_jpeg=engine.square_jpeg())
    source = _prepared(files, prepare, workers or default_workers(), ahead=batch_size or engine.batch_size)
    taken: deque[list[_Prepared | Skipped]] = deque()  # given to the engine, their embeddings not yet back

    def pixels() -> Iterator[NDArray[np.uint8]]:
        while held := list(islice(source, batch_size or engine.batch_size)):
            taken.append(held)
            prepared = [item.pixels for item in held if isinstance(item, _Prepared)]
            yield np.stack(prepared) if prepared else np.empty((0, spec.size, spec.size, 3), np.uint8)

    with closing(source):
        for embeddings in engine.embed_stream(pixels()):
            rows = iter(embeddings)
            for item in taken.popleft():
                yield item if isinstance(item, Skipped) else item.with_embedding(next(rows))


def _prepared(
    files: Iterable[PhotoFile], prepare: Callable[[PhotoFile], _Prepared | Skipped], workers: int, ahead: int
) -> Generator[_Prepared | Skipped, None, None]:
    """Decode in threads, at most `ahead` + `workers` files in advance, and keep the order."""
    source = iter(files)
    pending: deque[Future[_Prepared | Skipped]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        pending.extend(pool.submit(prepare, file) for file in islice(source, ahead + workers))
        while pending:
            done = pending.popleft().result()
            pending.extend(pool.submit(prepare, file) for file in islice(source, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(
    file: PhotoFile, root: Path, spec: EmbeddingSpec, square_jpeg: "SquareJpeg | None"
) -> _Prepared | Skipped:
    if square_jpeg is not None and (prepared := _prepare_on_card(file, root, spec, square_jpeg)) is not None:
        return prepared
    try:
        with decoder_errors(), (root / file.path).open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            opened.seek(0)
            photo = decode(opened, file.path, at_least=spec.size)
    except ImageError as error:
        return Skipped(file.path, error.reason, error.kind, file.bytes, file.mtime_ns)
    pixels = square(photo.image, spec.size, spec.resize)  # outside: a mistake in it is no fault of the file
    return _Prepared(file, sha256, photo.width, photo.height, photo.format, photo.taken, pixels)


def _prepare_on_card(
    file: PhotoFile, root: Path, spec: EmbeddingSpec, square_jpeg: "SquareJpeg"
) -> _Prepared | None:
    """Return None for what is no JPEG, or not for the card: the CPU decodes it, or says what is wrong with it."""
    try:
        with decoder_errors(), (root / file.path).open("rb") as opened:
            start = opened.read(len(JPEG_START))
            if start != JPEG_START:  # of a film, the rest would be read in vain
                return None
            data = start + opened.read()
            photo = jpeg_header(data)
    except ImageError:
        return None
    pixels = square_jpeg(data, spec.size, spec.resize, photo.orientation)
    if pixels is None:
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    return _Prepared(file, sha256, photo.width, photo.height, photo.format, photo.taken, pixels)
