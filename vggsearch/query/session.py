"""What an open index keeps while it is used: the network, the decoder processes, and what was read last."""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count as numbers
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN, SEARCH
from vggsearch.errors import ImageError, InputError
from vggsearch.knn.vectors import unit_rows
from vggsearch.matching.recent import Recent
from vggsearch.matching.rerank import PhotoFeatures, Reranker
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import choose_engine, load_engine, without_own
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import WeightsFile, find_again
from vggsearch.photos.addresses import is_available
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.photos.inputs import ImageLike, name_of, naming_image, view_of
from vggsearch.query.options import Images, batch_of
from vggsearch.query.run import embed_squares
from vggsearch.query.snapshot import LatestSnapshot
from vggsearch.query.targets import IndexTarget
from vggsearch.store.store import Store
from vggsearch.system.forks import native_threads
from vggsearch.system.places import Place

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """How an index was opened: see ImageIndex.open. `weights` are None until they are looked for."""

    weights: WeightsFile | None = None
    engine: Engine | None = None
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    root: Place | None = None


class Embedder:
    """The network and the decoder processes of an open index, made when first needed and kept until `close`.

    `weights` finds the weights file. Threads share it.
    """

    def __init__(self, spec: EmbeddingSpec, opening: Opening, weights: Callable[[], WeightsFile]) -> None:
        self.spec, self.opening, self._weights = spec, opening, weights
        self._engines: dict[str, Engine] = {}  # loaded, by backend
        self._loading = Lock()
        self._decoders: Decoders | None = None  # for query images and the photos that are re-ranked
        self._starting = Lock()

    def close(self) -> None:
        """End the decoder processes, release the network."""
        with self._loading:
            self._engines.clear()
        with self._starting:
            if self._decoders is not None:
                self._decoders.close()
                self._decoders = None

    def engine(self, photos: int | None = None) -> Engine:
        """Return the inference backend for this number of photos; None for many. See choose_engine."""
        if self.opening.engine is not None:
            return self.opening.engine
        if self.spec.is_own:
            raise without_own(self.spec)
        native_threads.start()
        with self._loading:
            backend = choose_engine(self.opening.engine_options, photos)
            if backend not in self._engines:
                weights = self.opening.weights or self._weights()
                self._engines[backend] = load_engine(self.spec, weights, self.opening.engine_options, photos)
            return self._engines[backend]

    def decoders(self, photos: int | None = None) -> Decoders:
        """Return the decoder processes for this number of images; None for many. They start when first needed.

        A single image is not worth starting more than one, and a second one is the sign of many.
        """
        with self._starting:
            if self._decoders is None or not self._decoders.is_usable:
                self._decoders = Decoders(1)
            if photos != 1:
                self._decoders.grow(min(default_workers(), ALIGN.threads))
            return self._decoders

    def decoders_for(self, photos: int | None) -> Callable[[], Decoders]:
        """Return what starts the decoder processes for a query of this number of images; None for many."""
        return partial(self.decoders, photos if self._decoders is None else None)

    def embed(self, image: ImageLike) -> NDArray[np.float32]:
        """Return the embedding of an image; see ImageIndex.embed."""
        with naming_image(image):
            pixels = self._pixels(image, 1)
        vector: NDArray[np.float32] = unit_rows(self.engine(1).embed(pixels[None]))[0]
        return vector

    def embed_many(self, images: Iterable[Images]) -> NDArray[np.float32]:
        """Return the embeddings of images; see ImageIndex.embed_many."""
        source, pixels = iter(batch_of(images)), list[NDArray[np.uint8]]()
        with ThreadPoolExecutor(ALIGN.threads) as pool:
            while some := list(islice(source, SEARCH.at_once)):
                pixels += pool.map(self._numbered_pixels, numbers(len(pixels)), some)
        return self.embed_squares(np.stack(pixels)) if pixels else np.empty((0, self.spec.dim), np.float32)

    def embed_squares(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings of RGB pixels (n, size, size, 3), n above 0: float32 (n, dim), unit rows."""
        return embed_squares(self.engine(), squares)

    def _numbered_pixels(self, place: int, image: ImageLike) -> NDArray[np.uint8]:
        """Return the square of the image at a place of a batch. Raises ImageError and InputError, with its name."""
        try:
            return self._pixels(image)
        except ImageError as error:
            raise ImageError(f"image {place}, {name_of(image)}: {error.reason}", error.kind) from error
        except InputError as error:
            raise InputError(f"Image {place} of the batch: {error}") from error

    def _pixels(self, image: ImageLike, photos: int | None = None) -> NDArray[np.uint8]:
        return view_of(image, self.spec.size, self.spec.resize, partial(self.decoders, photos)).pixels


class Session(Embedder):
    """The parts of an open index, each made when it is first needed and kept until `close`. Threads share it."""

    def __init__(self, store: Store, opening: Opening) -> None:
        super().__init__(store.spec, opening, partial(weights_of, store))
        self.store = store
        self.latest = LatestSnapshot(store)
        self._has_warned = False  # that photos are missing
        self._recent: Recent[PhotoFeatures] = Recent(ALIGN.recent)

    def close(self) -> None:
        """End the decoder processes, release the network and the files."""
        super().close()
        self.latest.close()
        self._recent.clear()

    @property
    def root(self) -> Path | None:
        """The photo folder, None before the first update."""
        return self.opening.root.path if self.opening.root is not None else self.store.root

    def reranker(self, decoders: Callable[[], Decoders], engine: Engine) -> Reranker | None:
        """Return the reranker; None without photos and local features, of which a warning is logged once."""
        root = self.root if is_available(self.root) else None
        if root is None and not self.store.manifest.local:
            if self.root is not None and not self._has_warned:
                log.warning("The photos are not in %s, so results are not re-ranked.", self.root)
                self._has_warned = True
            return None
        return Reranker(root, self.store.spec, engine, self.latest.kept_features, decoders, self._recent)

    def target(self, photos: int | None) -> IndexTarget:
        """Return the index as queries of this number of images see it; None for many."""
        native_threads.check()
        engine, decoders = partial(self.engine, photos), self.decoders_for(photos)
        reranker = partial(self.reranker, decoders)
        return IndexTarget(self.store.directory, self.root, self.spec, engine, reranker, decoders, self.latest)


def weights_of(store: Store, named: Path | None = None) -> WeightsFile:
    """Return the weights file of an index: the `named` copy, or where it was last. Raises WeightsError."""
    spec, remembered = store.spec, store.manifest.weights_file
    last = Path(remembered) if remembered is not None else None
    return find_again(spec.model, spec.layer, spec.weights_sha256, named, last)
