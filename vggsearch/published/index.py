"""PublishedIndex: queries of an index that is published in a database, from any machine."""

import logging
import os
from collections.abc import Iterable, Iterator, Sized
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import SpecMismatch, Spelled
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import check_own
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.weights import find_again
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.photos.inputs import Box, ImageLike
from vggsearch.published.known import run_published
from vggsearch.published.searcher import Published, PublishedTarget
from vggsearch.published.table import open_table
from vggsearch.query.options import Answer, Images, QueryOptions, QueryResult, QueryResults, batch_of
from vggsearch.query.run import run_queries, run_query
from vggsearch.query.session import Embedder, Opening
from vggsearch.system.forks import native_threads
from vggsearch.system.places import Place, from_home

log = logging.getLogger(__name__)


class PublishedIndex:
    """An index that `ImageIndex.publish` has published; `ImageIndex.at` opens it. It is a context manager.

    The network runs here, and the search in the database. Answers are those of the index without re-ranking, which
    needs the photos. Each query sees what was published last. Any number of threads may share it.

    >>> with ImageIndex.at("postgresql://localhost/photos") as published:  # doctest: +SKIP
    ...     result = published.query("photos/a.jpg", count=3)
    """

    def __init__(self, published: Published, embedder: Embedder, root: Place | None) -> None:
        self._published, self._embedder, self._root = published, embedder, root

    @classmethod
    def open(
        cls,
        url: str,
        options: EmbeddingOptions | None = None,
        *,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> "PublishedIndex":
        """Open what is published; see ImageIndex.at.

        >>> published = PublishedIndex.open("postgresql://localhost/photos")  # doctest: +SKIP
        """
        table, options = open_table(url), options or EmbeddingOptions()
        try:
            published = Published(table)
            spec = published.now().state.spec
            options.check(spec, table.shown)
            check_own(engine, spec, table.shown)
            find = partial(find_again, spec.model, spec.layer, spec.weights_sha256, None, None)
            weights = (
                find_again(spec.model, spec.layer, spec.weights_sha256, options.weights_file, None)
                if options.weights_file is not None
                else None
            )
            opening = Opening(weights, engine, engine_options or EngineOptions())
        except BaseException:
            table.close()
            raise
        return cls(published, Embedder(spec, opening, find), Place(from_home(root)) if root is not None else None)

    def __enter__(self) -> "PublishedIndex":
        """Return the index itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the index."""
        self.close()

    def close(self) -> None:
        """End the decoder processes, release the network and close the connection.

        >>> published.close()  # doctest: +SKIP
        """
        self._embedder.close()
        self._published.table.close()

    def __len__(self) -> int:
        """Return the number of photos."""
        return self._published.now().state.rows

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings are computed with.

        >>> published.spec.dim  # doctest: +SKIP
        1024
        """
        return self._embedder.spec

    @property
    def root(self) -> Path | None:
        """The photo folder, if it was named.

        >>> published.root  # doctest: +SKIP
        """
        return self._root.path if self._root is not None else None

    @property
    def place(self) -> str:
        """The URL, without what is secret in it.

        >>> published.place  # doctest: +SKIP
        'postgresql://localhost/photos#photos'
        """
        return self._published.table.shown

    def query(
        self,
        image: Images,
        count: SupportsIndex | None = None,
        *,
        min_similarity: float | None = None,
        crop: Box | None = None,
        filters: str | Iterable[str] = (),
        exclude_same_folder: bool = False,
        minus: Images = (),
    ) -> QueryResult:
        """Return the photos most similar to `image`; see ImageIndex.query, whose options these are.

        An image below `root` is known as the photo that it is: it ranks before its exact copies. Raises what
        ImageIndex.query does, and PublishError.

        >>> published.query("photos/a.jpg", count=1).matches[0].similarity  # doctest: +SKIP
        1.0
        """
        options = QueryOptions.of(count, min_similarity, False, crop, False, filters, exclude_same_folder, minus)
        return run_query([self._target(1)], image, options)

    def query_many(
        self,
        images: Iterable[Images],
        count: SupportsIndex | None = None,
        *,
        min_similarity: float | None = None,
        crop: Box | None = None,
        filters: str | Iterable[str] = (),
        exclude_same_folder: bool = False,
        minus: Images = (),
    ) -> QueryResults:
        """Yield a QueryResult for each image, or a Skipped for one that cannot be used; see ImageIndex.query_many.

        >>> results = published.query_many(["photos/a.jpg", "photos/b.jpg"])  # doctest: +SKIP
        """
        options = QueryOptions.of(count, min_similarity, False, crop, False, filters, exclude_same_folder, minus)
        queries = batch_of(images)
        count_known = len(queries) if isinstance(queries, Sized) else None
        return QueryResults(run_queries([self._target(count_known)], queries, options))

    def embed(self, image: ImageLike) -> NDArray[np.float32]:
        """Return the embedding of an image, float32 (dimensions,): a unit vector, not whitened.

        >>> published.embed("photos/a.jpg").shape  # doctest: +SKIP
        (1024,)
        """
        return self._embedder.embed(image)

    def _target(self, photos: int | None) -> PublishedTarget:
        native_threads.check()
        seen = self._published.now()
        self._check_spec(seen.state.spec)
        engine, decoders = partial(self._embedder.engine, photos), self._embedder.decoders_for(photos)
        place = from_home(self.place)
        return PublishedTarget(place, self.root, self.spec, engine, lambda _: None, decoders, self._published)

    def _check_spec(self, spec: EmbeddingSpec) -> None:
        """Raise SpecMismatch if an index with other embeddings was published meanwhile."""
        if spec != self.spec:
            raise SpecMismatch(
                f"{self.place} was published anew: it held embeddings of {self.spec}, now of {spec}. ",
                Spelled("Open it again.", "Run the same command again."),
            )


# For `serve`, which needs the internals of a published index.


def published_of(index: PublishedIndex) -> Published:
    """Return the state of what is published, which is read again after each publish."""
    return index._published


def answers_of(index: PublishedIndex, queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
    """Yield the result of each query, in order; pictures may be PublishedPhotos."""
    return run_published(index._target(None), queries, options)


def decoders_at(index: PublishedIndex) -> Decoders:
    """Return the decoder processes for query images, which the index ends when it is closed."""
    return index._embedder.decoders()


def prepare(index: PublishedIndex) -> None:
    """Load the network and start the decoder processes, so that the first query does not wait for them."""
    decoders_at(index)
    index._embedder.engine()
