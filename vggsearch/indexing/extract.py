"""Stream photos through decoders and the network, in order, with a bounded look-ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggsearch.indexing.decoding import Decoded, DecodedItem, LookAhead
from vggsearch.indexing.feed import Feed
from vggsearch.indexing.local_features import to_store
from vggsearch.model.engine import Engine
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.local_features import StoredFeatures
from vggsearch.store.records import ContentLookup, Embedded, EngineInfo


def extract(
    files: Iterable[PhotoFile],
    root: Path,
    spec: EmbeddingSpec,
    load_engine: Callable[[], Engine],
    *,
    known: ContentLookup | None = None,
    workers: int | None = None,
    with_features: bool = False,
) -> Generator[Embedded | Skipped, None, None]:
    """Yield an Embedded or a Skipped for each file, in the order of `files`.

    Content that is `known`, or occurs a second time, gets the embedding it already has. The first photos are
    decoded while the network loads, and each batch is embedded while the next is decoded. Memory does not grow with
    the folder, since a bounded number of photos is read ahead: with an engine in this process two batches and one
    file per worker, plus what the engine takes in advance (Engine.embed_stream); with a pool of GPUs see Feed.

    `with_features` has the network compute local features in the same pass, unless it runs on a pool of GPUs.
    """
    with closing(LookAhead(files, root, spec, known, workers)) as source:
        if known is not None and known.may_know_all:
            for item in source:
                if isinstance(item, Decoded):
                    source.put_back(item)
                    break
                yield item
            else:
                return
        engine = load_engine()
        if isinstance(engine, GpuEngine):
            yield from _on_gpus(engine, source, root, spec, known)
            return
        source.deepen(engine.batch_size)
        yield from _Network(engine, spec, known, with_features=with_features).run(source)


def _on_gpus(
    engine: GpuEngine, source: LookAhead, root: Path, spec: EmbeddingSpec, known: ContentLookup | None
) -> Iterator[Embedded | Skipped]:
    """Embed in GPU processes. Copies are found afterwards: decoding them costs little more than hashing."""
    feed = Feed(
        engine.pool(), source.decode, root, spec, EngineInfo(engine.name, engine.precision), engine.batch_size
    )
    try:
        for item in feed.run(*source.hand_over()):
            yield unless_known(item, known)
    finally:
        source.close()
        feed.close()


def unless_known(item: Embedded | Skipped, known: ContentLookup | None) -> Embedded | Skipped:
    """Return the photo that is known if it has the same bytes, for the file of `item`; else `item`."""
    if known is None or isinstance(item, Skipped) or item.is_reused or not known.may_know(item.file):
        return item
    same = known.find(item.sha256)
    return item if same is None else same.for_file(item.file)


_Row: TypeAlias = tuple[NDArray[np.float32], StoredFeatures | None]  # the embedding of a photo, and its features


@dataclass(frozen=True, slots=True)
class _Copy:
    """A photo with the same bytes as one that is already in the network."""

    file: PhotoFile
    sha256: str


class _Network:
    """Runs decoded photos through an engine, in order. If `known` is given, each content only once."""

    def __init__(
        self, engine: Engine, spec: EmbeddingSpec, known: ContentLookup | None, *, with_features: bool
    ) -> None:
        self._engine, self._spec, self._known, self._with_features = engine, spec, known, with_features
        self._made_by = EngineInfo(engine.name, engine.precision)
        self._taken: deque[list[_Copy | DecodedItem]] = deque()  # not yet returned by the engine
        self._under_way: dict[str, Embedded | None] = {}  # contents in `_taken`, None until they are embedded

    def run(self, source: Iterator[DecodedItem]) -> Iterator[Embedded | Skipped]:
        embed = self._described if self._with_features else self._embedded
        for rows in embed(self._batches(source)):
            for item in self._taken.popleft():
                if isinstance(item, Decoded):
                    embedding, features = next(rows)
                    item = replace(item.embedded(embedding, self._made_by), features=features)
                    self._under_way[item.sha256] = item
                elif isinstance(item, _Copy):
                    first = self._under_way[item.sha256]
                    assert first is not None, "a copy came before its original"  # noqa: S101
                    item = first.for_file(item.file)
                yield item
            self._forget()

    def _embedded(self, batches: Iterator[NDArray[np.uint8]]) -> Iterator[Iterator[_Row]]:
        for embeddings in self._engine.embed_stream(batches):
            yield ((embedding, None) for embedding in embeddings)

    def _described(self, batches: Iterator[NDArray[np.uint8]]) -> Iterator[Iterator[_Row]]:
        for batch in batches:
            if not len(batch):
                yield iter(())
                continue
            found = self._engine.describe(batch, levels=1)
            yield zip(found.embeddings, map(to_store, found.levels[0]), strict=True)

    def _batches(self, source: Iterator[DecodedItem]) -> Iterator[NDArray[np.uint8]]:
        size, at_once = self._spec.size, self._engine.batch_size
        while items := list(islice(source, at_once)):
            self._taken.append([self._unless_known(item) for item in items])
            squares = [item.square.pixels for item in self._taken[-1] if isinstance(item, Decoded)]
            yield np.stack(squares) if squares else np.empty((0, size, size, 3), np.uint8)

    def _unless_known(self, item: DecodedItem) -> _Copy | DecodedItem:
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
