"""One worker of a cluster: reads, decodes and embeds chunks of files with what an update on one machine uses."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import vggsearch
from vggsearch.cluster.rows import Rows
from vggsearch.errors import ImageError, PhotosError, VggsearchError
from vggsearch.indexing.extract import extract
from vggsearch.indexing.hashing import hash_files
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.addresses import address_of, is_address
from vggsearch.photos.sources import read_photo
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.progress import SILENT
from vggsearch.store.records import Embedded

IDLE_S = 1.0  # to wait for another chunk before the pipeline is emptied, and the processes of a GPU end
FEW = 8  # files; if as many are all unreadable, it is their place that cannot be read


@dataclass(frozen=True)
class Refusal:
    """Why a worker cannot work: the message of an error that its user can act on."""

    message: str


@dataclass
class _Chunk:
    files: Sequence[PhotoFile]
    rows: "Future[Rows]" = field(default_factory=Future)
    items: list[Embedded | Skipped] = field(default_factory=list)


class Worker:
    """Embeds the photos of a chunk; `root` is where they are. `load_engine` loads the network.

    Chunks that are asked for at once go through one pipeline, one after the other, so that decoders, network and
    GPU always have work. `sample` are some of the files. With `may_need_none`, the network is loaded only when a
    file has to be embedded.
    """

    def __init__(
        self,
        root: Path,
        spec: EmbeddingSpec,
        load_engine: Callable[[], Engine],
        decoders: int | None,
        sample: Sequence[PhotoFile],
        *,
        may_need_none: bool = False,
    ) -> None:
        self._root, self._spec, self._load_engine = root, spec, load_engine
        self._may_need_none = may_need_none
        self._decoders, self._sample = decoders, sample
        self._engine: Engine | None = None
        self._waiting: SimpleQueue[_Chunk] = SimpleQueue()
        self._under_way: deque[_Chunk] = deque()
        self._thread = Thread(target=self._run, daemon=True)

    def ready(self, version: str) -> Refusal | None:
        """Get ready; return why that is not possible: another version, no photos, no network."""
        if version != vggsearch.__version__:
            return Refusal(f"{_here()} has vggsearch {vggsearch.__version__}, not {version}: install that one.")
        try:
            self._check_photos()
            if not self._may_need_none:
                self._loaded()
        except VggsearchError as error:
            return Refusal(f"{_here()}: {error}")
        self._thread.start()
        return None

    def hash(self, files: Sequence[PhotoFile]) -> list[str | None]:
        """Return the SHA-256 of files, None for one that cannot be read."""
        return [sha256 for _, sha256 in hash_files(files, self._root, self._decoders, SILENT)]

    def embed(self, files: Sequence[PhotoFile]) -> Rows | Refusal:
        """Return what is found in some files. Several threads may call this."""
        chunk = _Chunk(files)
        self._waiting.put(chunk)
        rows = chunk.rows.result()
        if len(rows.skipped) == len(files) >= FEW and all(each.kind == "unreadable" for each in rows.skipped):
            try:
                self._check_photos()
            except PhotosError as error:
                return Refusal(f"{_here()}: {error}")
        return rows

    def _check_photos(self) -> None:
        """Raise PhotosError unless one of the sample is there: a folder may not be mounted on this machine."""
        if self._sample and not any(map(self._sees, self._sample)):
            raise PhotosError(
                f"none of {len(self._sample)} photos can be read in {address_of(self._root)}. The photos must have "
                "the same path on every machine of the cluster."
            )

    def _sees(self, file: PhotoFile) -> bool:
        if not is_address(self._root):
            return os.path.lexists(self._root / file.path)
        with suppress(ImageError):
            read_photo(self._root, file.path)
            return True
        return False

    def _run(self) -> None:
        """Embed chunks as they come."""
        while True:
            files = self._files(self._waiting.get())
            try:
                with closing(extract(files, self._root, self._spec, self._loaded, workers=self._decoders)) as found:
                    for item in found:
                        self._take(item)
            except BaseException as error:  # noqa: BLE001 - whoever waits for a chunk raises it
                while self._under_way:
                    self._under_way.popleft().rows.set_exception(error)

    def _files(self, chunk: _Chunk) -> Iterator[PhotoFile]:
        with suppress(Empty):
            while True:
                self._under_way.append(chunk)
                yield from chunk.files
                chunk = self._waiting.get(timeout=IDLE_S)

    def _take(self, item: Embedded | Skipped) -> None:
        chunk = self._under_way[0]
        chunk.items.append(item)
        if len(chunk.items) == len(chunk.files):
            self._under_way.popleft()
            chunk.rows.set_result(Rows.of(chunk.items, self._spec.dim))

    def _loaded(self) -> Engine:
        if self._engine is None:
            self._engine = self._load_engine()
        return self._engine


def _here() -> str:
    return f"The worker on {socket.gethostname()}"
