"""Stream photos through decoders and the network, in order, with a bounded look-ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import ImageError
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.decode import JPEG_START, decoder_errors
from vggsearch.photos.decoder_pool import Decoders, Square, default_workers
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.jpeg_header import jpeg_header
from vggsearch.photos.resize import is_blank
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.records import ContentLookup, Embedded, EngineInfo

if TYPE_CHECKING:
    from vggsearch.model.engine import SquareJpeg


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded photo: its file, the sha256 of its bytes, and the input of the network."""

    file: PhotoFile
    sha256: str
    square: Square

    def embedded(self, embedding: NDArray[np.float32], made_by: EngineInfo) -> Embedded:
        """Return the photo with its embedding."""
        seen = self.square
        facts = (seen.width, seen.height, seen.format, seen.taken, seen.is_blank)
        return Embedded(self.file, self.sha256, *facts, embedding, made_by)


def extract(
    files: Iterable[PhotoFile],
    root: Path,
    spec: EmbeddingSpec,
    load_engine: Callable[[], Engine],
    *,
    known: ContentLookup | None = None,
    workers: int | None = None,
) -> Generator[Embedded | Skipped, None, None]:
    """Yield an Embedded or a Skipped for each file, in the order of `files`.

    Content that is `known`, or occurs a second time, does not go through the network. The first photos are decoded
    while the network loads, and each batch is embedded while the next is decoded. At most two batches and one file
    per worker are read ahead, plus what the engine takes in advance (Engine.embed_stream), so memory does not grow
    with the folder.
    """
    with closing(_LookAhead(files, root, spec, known, workers or default_workers())) as source:
        first: list[Decoded] = []
        if known is not None and known.may_know_all:
            for item in source:
                if isinstance(item, Decoded):
                    first = [item]
                    break
                yield item
            else:
                return
        engine = load_engine()
        source.square_jpeg = engine.square_jpeg()
        source.deepen(engine.batch_size)
        yield from _Network(engine, spec, known).run(chain(first, source))


def decoded(
    files: Iterable[PhotoFile], root: Path, spec: EmbeddingSpec, *, ahead: int, workers: int | None = None
) -> Generator[Decoded | Embedded | Skipped, None, None]:
    """Yield a Decoded or a Skipped for each file, in order: as `extract`, but without the network."""
    with closing(_LookAhead(files, root, spec, None, workers or default_workers())) as source:
        source.deepen(ahead)
        yield from source


@dataclass(frozen=True, slots=True)
class _Copy:
    """A photo with the same bytes as one that is already in the network."""

    file: PhotoFile
    sha256: str


class _Network:
    """Runs decoded photos through an engine, in order. If `known` is given, each content only once."""

    def __init__(self, engine: Engine, spec: EmbeddingSpec, known: ContentLookup | None) -> None:
        self._engine, self._spec, self._known = engine, spec, known
        self._made_by = EngineInfo(engine.name, engine.precision)
        self._taken: deque[list[Decoded | _Copy | Embedded | Skipped]] = deque()  # not yet returned by the engine
        self._under_way: dict[str, Embedded | None] = {}  # contents in `_taken`, None until they are embedded

    def run(self, source: Iterator[Decoded | Embedded | Skipped]) -> Iterator[Embedded | Skipped]:
        for embeddings in self._engine.embed_stream(self._batches(source)):
            rows = iter(embeddings)
            for item in self._taken.popleft():
                if isinstance(item, Decoded):
                    item = item.embedded(next(rows), self._made_by)
                    self._under_way[item.sha256] = item
                elif isinstance(item, _Copy):
                    first = self._under_way[item.sha256]
                    assert first is not None, "a copy came before its original"  # noqa: S101
                    item = first.for_file(item.file)
                yield item
            self._forget()

    def _batches(self, source: Iterator[Decoded | Embedded | Skipped]) -> Iterator[NDArray[np.uint8]]:
        size, at_once = self._spec.size, self._engine.batch_size
        while items := list(islice(source, at_once)):
            self._taken.append([self._unless_known(item) for item in items])
            squares = [item.square.pixels for item in self._taken[-1] if isinstance(item, Decoded)]
            yield np.stack(squares) if squares else np.empty((0, size, size, 3), np.uint8)

    def _unless_known(self, item: Decoded | Embedded | Skipped) -> Decoded | _Copy | Embedded | Skipped:
        """Check again, as a photo with the same bytes may have been embedded since this one was decoded."""
        if self._known is None or not isinstance(item, Decoded):
            return item
        if item.sha256 in self._under_way:
            return _Copy(item.file, item.sha256)
        if self._known.may_know(item.file) and (same := self._known.find(item.sha256)) is not None:
            return same.for_file(item.file)
        self._under_way[item.sha256] = None
        return item

    def _forget(self) -> None:
        still = {item.sha256 for items in self._taken for item in items if isinstance(item, Decoded | _Copy)}
        self._under_way = {sha256: first for sha256, first in self._under_way.items() if sha256 in still}


class _LookAhead:
    """Decodes files in advance, initially one per worker, and yields them in order.

    Once `square_jpeg` is set, it decodes JPEG files; not every engine has it.
    """

    def __init__(
        self, files: Iterable[PhotoFile], root: Path, spec: EmbeddingSpec, known: ContentLookup | None, workers: int
    ) -> None:
        source = iter(files)
        first = list(islice(source, workers))
        self._files, self._root, self._spec, self._known = chain(first, source), root, spec, known
        self.square_jpeg: SquareJpeg | None = None
        self._pending: deque[Future[Decoded | Embedded | Skipped]] = deque()
        self._decoders = Decoders(len(first))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self.deepen(workers)

    def __iter__(self) -> Iterator[Decoded | Embedded | Skipped]:
        return self

    def __next__(self) -> Decoded | Embedded | Skipped:
        if not self._pending:
            raise StopIteration
        done = self._pending.popleft().result()
        self.deepen(1)
        return done

    def deepen(self, count: int) -> None:
        """Decode `count` more files in advance."""
        self._pending.extend(self._pool.submit(self._decode, file) for file in islice(self._files, count))

    def close(self) -> None:
        """Stop decoding."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._decoders.close()
        self._pool.shutdown()

    def _decode(self, file: PhotoFile) -> Decoded | Embedded | Skipped:
        try:
            if self._known is not None and self._known.may_know(file):
                same = self._known.find(hash_unchanged(self._root, file))
                if same is not None:
                    return same.for_file(file)
            square = self._square(file)
        except ImageError as error:
            return Skipped(file.path, error.reason, error.kind, file.bytes, file.mtime_ns)
        return Decoded(file, square.sha256, square)

    def _square(self, file: PhotoFile) -> Square:
        if self.square_jpeg is not None and (square := self._square_on_gpu(file, self.square_jpeg)) is not None:
            return square
        return self._decoders.decode(self._root, file, self._spec.size, self._spec.resize)

    def _square_on_gpu(self, file: PhotoFile, square_jpeg: "SquareJpeg") -> Square | None:
        """Return None for a file the GPU cannot decode: a decoder process then decodes it or reports the error."""
        try:
            with decoder_errors(), (self._root / file.path).open("rb") as opened:
                start = opened.read(len(JPEG_START))
                if start != JPEG_START:  # do not read the rest of a video
                    return None
                data = start + opened.read()
        except ImageError:
            return None
        if (photo := jpeg_header(data, self._spec.size)) is None:
            return None
        pixels = square_jpeg(data, self._spec.size, self._spec.resize, photo.orientation)
        if pixels is None:
            return None
        facts = (photo.width, photo.height, photo.format, photo.taken, is_blank(pixels))
        return Square(*facts, hash_unchanged(self._root, file), pixels)
