"""Decode photos on the CPU, in order, with a bounded look-ahead."""

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.errors import ImageError
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.addresses import is_address
from vggsearch.photos.decoder_pool import Decoders, Square, default_workers
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.sources import read_unchanged
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.records import ContentLookup, Embedded, EngineInfo


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded photo: its file, the sha256 of its bytes, and the input of the network."""

    file: PhotoFile
    sha256: str
    square: Square

    def without_pixels(self) -> "Decoded":
        """Return the photo without the input of the network, which takes most of its memory."""
        return replace(self, square=replace(self.square, pixels=np.empty((0, 0, 3), np.uint8)))

    def embedded(self, embedding: NDArray[np.float32], made_by: EngineInfo) -> Embedded:
        """Return the photo with its embedding."""
        seen = self.square
        facts = (seen.width, seen.height, seen.format, seen.capture, seen.is_blank, seen.perceptual_hash)
        return Embedded(self.file, self.sha256, *facts, embedding, made_by)


DecodedItem: TypeAlias = Decoded | Embedded | Skipped  # Embedded if a photo with the same bytes is known


def decoded(
    files: Iterable[PhotoFile], root: Path, spec: EmbeddingSpec, *, ahead: int, workers: int | None = None
) -> Generator[DecodedItem, None, None]:
    """Yield a Decoded or a Skipped for each file, in order: as extract.extract, but without the network."""
    with closing(LookAhead(files, root, spec, None, workers)) as source:
        source.deepen(ahead)
        yield from source


class LookAhead:
    """Decodes files in advance, initially one per worker, and yields them in order."""

    def __init__(
        self,
        files: Iterable[PhotoFile],
        root: Path,
        spec: EmbeddingSpec,
        known: ContentLookup | None,
        workers: int | None,
    ) -> None:
        workers = workers or default_workers()
        source = iter(files)
        first = list(islice(source, workers))
        self._files, self._root, self._spec, self._known = chain(first, source), root, spec, known
        self._pending: deque[Future[DecodedItem]] = deque()
        self._decoders = Decoders(len(first))
        self._is_remote = is_address(root)
        reading = EXTRACT.remote_reads if self._is_remote else 0  # that wait for the network, not for a processor
        self._threads = ThreadPoolExecutor(workers + reading, thread_name_prefix="decode")
        self._is_open, self._closing = True, Lock()
        self.deepen(workers)

    def __iter__(self) -> Iterator[DecodedItem]:
        return self

    def __next__(self) -> DecodedItem:
        if not self._pending:
            raise StopIteration
        done = self._pending.popleft().result()
        self.deepen(1)
        return done

    def deepen(self, count: int) -> None:
        """Decode `count` more files in advance."""
        self._pending.extend(map(self.decode, islice(self._files, count)))

    def put_back(self, item: DecodedItem) -> None:
        """Let `item` be the next one again."""
        self._pending.appendleft(Future())
        self._pending[0].set_result(item)

    def hand_over(self) -> tuple[list[Future[DecodedItem]], Iterator[PhotoFile]]:
        """Return the files that are being decoded in advance and those that are not yet, which `decode` takes.

        From then on, known content is no longer looked up before decoding, and GPU processes have the CPU first.
        """
        self._decoders.lower_priority()
        begun, self._known = list(self._pending), None
        self._pending.clear()
        return begun, self._files

    def decode(self, file: PhotoFile) -> Future[DecodedItem]:
        """Begin to decode a file; any thread may call this. Once closed, the result is cancelled."""
        with self._closing:
            if self._is_open:
                return self._threads.submit(self._decode, file)
        cancelled: Future[DecodedItem] = Future()
        cancelled.cancel()
        return cancelled

    def close(self) -> None:
        """Stop decoding."""
        with self._closing:
            self._is_open = False
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._decoders.close()
        self._threads.shutdown()

    def _decode(self, file: PhotoFile) -> DecodedItem:
        try:
            data = read_unchanged(self._root, file) if self._is_remote else None
            if self._known is not None:
                same = self._known.look_up(file, partial(self._hash, file, data))
                if same is not None:
                    return same.for_file(file)
            square = self._decoders.decode(self._root, file, self._spec.size, self._spec.resize, data)
        except ImageError as error:
            return Skipped(file.path, error.reason, error.kind, file.bytes, file.mtime_ns)
        return Decoded(file, square.sha256, square)

    def _hash(self, file: PhotoFile, data: bytes | None) -> str:
        return hash_unchanged(self._root, file) if data is None else hashlib.sha256(data).hexdigest()
