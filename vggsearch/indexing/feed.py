"""Embed many files in a pool of GPU processes, which also decode JPEG; the CPU decodes other files, and helps."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np

from vggsearch.defaults import EXTRACT
from vggsearch.indexing.decoding import Decoded, DecodedItem
from vggsearch.model.gpu_pool import JOBS_PER_PROCESS, GpuPool
from vggsearch.model.gpu_worker import EmbeddedFiles
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.addresses import is_address
from vggsearch.photos.jpeg_header import JpegHeader
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.records import Embedded, EngineInfo

CPU_BATCHES = 2  # that the CPU decodes at once: all its processes have work while the end of one is awaited

StartDecoding = Callable[[PhotoFile], "Future[DecodedItem]"]


class Feed:
    """Embeds files in batches, many at a time, and yields the results in order.

    A batch of files is given to whoever is free first: a GPU process, or the CPU, where `decode` starts decoding a
    file. Call `close` in the end.
    """

    def __init__(
        self,
        pool: GpuPool,
        decode: StartDecoding,
        root: Path,
        spec: EmbeddingSpec,
        made_by: EngineInfo,
        batch_size: int,
    ) -> None:
        self._pool, self._decode, self._root, self._spec = pool, decode, root, spec
        self._made_by, self._batch_size = made_by, batch_size
        waiting = EXTRACT.decoded_bytes // (batch_size * spec.size**2 * 3)  # for a GPU, while it starts
        self._ahead = max(JOBS_PER_PROCESS * pool.processes + CPU_BATCHES, waiting)
        self._batches = ThreadPoolExecutor(self._ahead, thread_name_prefix="feed")
        self._helpers = [Thread(target=self._decode_for_gpus, daemon=True) for _ in range(CPU_BATCHES)]

    def run(self, begun: list["Future[DecodedItem]"], files: Iterator[PhotoFile]) -> Iterator[Embedded | Skipped]:
        """Yield an Embedded or a Skipped for each file: those that the CPU has `begun` to decode, then `files`."""
        for helper in self._helpers:
            helper.start()
        pending = deque([self._batches.submit(self._embed_decoded, begun)])
        self._begin(pending, files, self._ahead)
        while pending:
            items = pending.popleft().result()
            self._begin(pending, files, 1)
            yield from items

    def close(self) -> None:
        """End the processes and threads, without what is in progress. `decode` must no longer start anything."""
        self._batches.shutdown(wait=False, cancel_futures=True)
        self._pool.close()
        self._batches.shutdown()
        for helper in self._helpers:
            if helper.ident is not None:
                helper.join()

    def _begin(
        self, pending: "deque[Future[list[Embedded | Skipped]]]", files: Iterator[PhotoFile], count: int
    ) -> None:
        for _ in range(count):
            if batch := self._next_batch(files):
                pending.append(self._batches.submit(self._embed, batch))

    def _next_batch(self, files: Iterator[PhotoFile]) -> list[PhotoFile]:
        """Return as many files as the network takes at once; fewer if they are large, since all are read."""
        batch, size = list[PhotoFile](), 0
        for file in files:
            batch.append(file)
            size += file.bytes
            if len(batch) == self._batch_size or size >= EXTRACT.batch_bytes:
                break
        return batch

    def _embed(self, files: list[PhotoFile]) -> list[Embedded | Skipped]:
        """Embed one batch of files; wait for it. Files that are not on a disk are read and decoded by the CPU."""
        if is_address(self._root):
            return self._embed_decoded([self._decode(file) for file in files])
        response = self._pool.embed_files(self._root, self._spec.size, files).result()
        if isinstance(response, EmbeddedFiles):
            return self._with_others(files, response)
        return self._embed_decoded(response)

    def _with_others(self, files: list[PhotoFile], embedded: EmbeddedFiles) -> list[Embedded | Skipped]:
        """Return what the GPU embedded, and have the CPU decode the other files."""
        found = dict(zip(embedded.at, self._records(files, embedded), strict=True))
        others = [file for position, file in enumerate(files) if position not in found]
        rest = iter(self._embed_decoded([self._decode(file) for file in others]))
        return [found[position] if position in found else next(rest) for position in range(len(files))]

    def _records(self, files: list[PhotoFile], embedded: EmbeddedFiles) -> Iterator[Embedded]:
        columns = embedded.at, embedded.sha256, embedded.width, embedded.height, embedded.capture
        seen = embedded.facts
        rows = zip(*columns, seen.is_blank.tolist(), seen.perceptual_hash, embedded.embeddings, strict=True)
        for position, sha256, width, height, capture, is_blank, perceptual_hash, embedding in rows:
            facts = width, height, JpegHeader.format, capture, is_blank, perceptual_hash.tobytes()
            yield Embedded(files[position], sha256, *facts, embedding, self._made_by)

    def _embed_decoded(self, decoding: list["Future[DecodedItem]"]) -> list[Embedded | Skipped]:
        """Wait for files that the CPU decodes, and embed them. The list is emptied, to free the pixels early."""
        items = [each.result() for each in decoding]
        decoding.clear()
        squares = [item.square.pixels for item in items if isinstance(item, Decoded)]
        embedding = self._pool.embed(np.stack(squares)) if squares else None
        del squares
        items = [item.without_pixels() if isinstance(item, Decoded) else item for item in items]
        rows = iter(() if embedding is None else embedding.result())
        return [item.embedded(next(rows), self._made_by) if isinstance(item, Decoded) else item for item in items]

    def _decode_for_gpus(self) -> None:
        """Decode files on the CPU while the GPUs start, and large ones as long as some wait for a GPU process."""
        while (taken := self._pool.take_files(EXTRACT.large_bytes)) is not None:
            files, response = taken
            decoding = [self._decode(file) for file in files]
            with suppress(CancelledError):
                for each in decoding:
                    each.exception()  # waits; whoever needs the result raises it
            response.set_result(decoding)
