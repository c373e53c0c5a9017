"""ImageIndex: all of vggsearch as one Python class. The command line calls it and prints the results."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES
from vggsearch.errors import (
    IndexDamaged,
    IndexNotReadable,
    OptionError,
    PathOutside,
    SpecMismatch,
    option,
)
from vggsearch.indexing.build import BuildReport, build_options, plan_build, rebuild
from vggsearch.knn.recipes import BuildPlan
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import WhiteningOptions
from vggsearch.matching.rerank import Reranker
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import (
    check_no_options,
    check_own,
    check_weights,
)
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.weights import WeightsFile
from vggsearch.photos.addresses import is_address, settled
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.photos.inputs import Box, ImageLike
from vggsearch.photos.sources import check_address
from vggsearch.photos.walk import SkippedFiles, check_folder
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.query.filters import Filter
from vggsearch.query.options import Images, Pick, QueryOptions, QueryResult, QueryResults, batch_of, rules
from vggsearch.query.run import pick_random, run_queries, run_query
from vggsearch.query.searcher import Searcher
from vggsearch.query.session import Opening, Session, weights_of
from vggsearch.query.snapshot import LatestSnapshot
from vggsearch.query.targets import IndexTarget
from vggsearch.store.contents import DECISIONS, MANIFEST
from vggsearch.store.locate import directory_for
from vggsearch.store.store import Store
from vggsearch.system.places import Place, from_home
from vggsearch.tables import Table, Tabular

if TYPE_CHECKING:  # what queries do not need, which takes time to import
    from vggsearch.cluster.extract import Cluster
    from vggsearch.duplicates.collection import Collection
    from vggsearch.duplicates.find import DuplicatesReport
    from vggsearch.duplicates.options import Folders
    from vggsearch.indexing.info import Info
    from vggsearch.indexing.integrity import VerifyReport
    from vggsearch.indexing.update import UpdateReport
    from vggsearch.learning.classify import ClassifyReport
    from vggsearch.learning.labelled import Labels
    from vggsearch.learning.learn import LearnReport
    from vggsearch.published.index import PublishedIndex
    from vggsearch.published.publish import PublishReport
    from vggsearch.removal.perform import RemovalReport
    from vggsearch.removal.plan import RemovalPlan
    from vggsearch.store.decisions import Decision, ImportedDecisions, Judgement

log = logging.getLogger(__name__)


class ImageIndex(Tabular):
    """An index of a photo folder: the embeddings of its photos, and the search over them.

    Open one with `for_photos`, `open` or `create`; it is a context manager. Paths of photos are relative to the
    photo folder and use forward slashes. One process may write to an index while others read it: every call sees
    what was committed last. Any number of threads may share an index.

    >>> with ImageIndex.for_photos("photos") as index:
    ...     report = index.update("photos")
    ...     result = index.query("photos/a.jpg", count=3)
    >>> result.matches[0].path
    'a.jpg'
    """

    def __init__(self, store: Store, opening: Opening) -> None:
        self._store = store
        self._session = Session(store, opening)

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        options: EmbeddingOptions | None = None,
        *,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
    ) -> "ImageIndex":
        """Create an empty index in `directory`, which must not hold one.

        `options` choose the embedding: VGG variant, feature layer, pooling, input size; each that is None takes its
        default. `engine_options` choose the inference backend, its device and its precision. `engine` replaces it
        with an object of your own; an OwnEngine is a network in place of the VGG, and takes no `options`.

        Raises IndexExists, OptionError and WeightsError; nothing is written then.

        >>> options = EmbeddingOptions(layer="pool5", size=224)
        >>> with ImageIndex.create("indexes/pool5", options) as index:
        ...     len(index), index.spec.layer
        (0, 'pool5')
        """
        if engine is not None and engine.spec is not None:
            check_no_options(options)
            return cls(Store.create(from_home(directory), engine.spec), Opening(engine=engine))
        options = options or EmbeddingOptions()
        spec, weights = options.resolve()
        if engine is None:
            check_weights(spec, weights)  # before the index is tied to the file
        store = Store.create(from_home(directory), spec, options.weights_file)
        return cls(store, Opening(weights, engine, engine_options or EngineOptions()))

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        options: EmbeddingOptions | None = None,
        *,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> "ImageIndex":
        """Open an existing index. `root` is where the photos are now, if they were moved apart from the index.

        `engine_options` and `engine` are those of `create`. Of `options`, those that are given must agree with the
        index; `weights` names a copy of the weights file the index was made with, if that has moved.

        Raises IndexMissing, IndexDamaged and IndexFormatError; IndexLinked for a symbolic link in place of a folder
        of the index, PathOutside for a path that leads out of the photo folder; SpecMismatch if `options` differ
        from the index.

        >>> with ImageIndex.open("indexes/photos") as index:
        ...     len(index)
        4
        """
        store = Store.open(from_home(directory))
        options = options or EmbeddingOptions()
        options.check(store.spec, str(directory))
        check_own(engine, store.spec, directory)
        weights = weights_of(store, options.weights_file) if options.weights_file is not None else None
        where = Place(from_home(root)) if root is not None else None
        opened = cls(store, Opening(weights, engine, engine_options or EngineOptions(), where))
        opened._check_paths()
        return opened

    @classmethod
    def for_photos(
        cls,
        folder: str | os.PathLike[str],
        directory: str | os.PathLike[str] | None = None,
        options: EmbeddingOptions | None = None,
        *,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
        files: str | os.PathLike[str] | None = None,
    ) -> "ImageIndex":
        """Open the index of a photo folder, or create it if none exists; `directory` defaults to indexes/NAME.

        `options`, `engine_options` and `engine` are those of `create`. Call `update` to index the photos. Raises
        PhotosError if there is no such folder, and what `open` and `create` raise; nothing is written then. An
        address of photos is listed to see that it is there, unless `update` is to be given `files`.

        >>> with ImageIndex.for_photos("photos") as index:
        ...     index.update("photos").photos
        4
        """
        photos = from_home(folder)
        photos = settled(photos) if is_address(photos) else check_folder(photos)
        where = from_home(directory) if directory is not None else directory_for(photos)
        is_there = (where / MANIFEST).exists()
        if is_address(photos) and not is_there:
            check_address(photos, is_listed=files is None)
        make = cls.open if is_there else cls.create
        return make(where, options, engine=engine, engine_options=engine_options)

    @staticmethod
    def at(
        url: str,
        options: EmbeddingOptions | None = None,
        *,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> "PublishedIndex":
        """Open an index that was published at a URL, for queries; neither the index nor photos are needed here.

        `options`, `engine_options` and `engine` are those of `open`. `root` is the photo folder, if it is here: a
        query image below it is then known as the photo that it is.

        Raises PublishError if the server cannot be reached, or nothing is published there; OptionError for a URL of
        another kind, InstallationError if the extra `postgres` or `lance` is missing, SpecMismatch if `options`
        differ from what is published.

        >>> with ImageIndex.at("postgresql://localhost/photos") as published:  # doctest: +SKIP
        ...     published.query("photos/a.jpg").matches[0].path
        'a.jpg'
        """
        from vggsearch.published.index import PublishedIndex

        return PublishedIndex.open(url, options, engine=engine, engine_options=engine_options, root=root)

    def __enter__(self) -> "ImageIndex":
        """Return the index itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the index."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to pickle the index: as its place, where the other process opens it anew."""
        opening = self._session.opening
        root = opening.root.path.absolute() if opening.root is not None else None
        reopen = partial(ImageIndex.open, engine=opening.engine, engine_options=opening.engine_options, root=root)
        return _reopened, (reopen, self.directory.absolute(), opening.weights)

    def close(self) -> None:
        """End the decoder processes, release the network and the files. Everything committed is already on disk.

        >>> index.close()
        """
        self._session.close()

    def __len__(self) -> int:
        """Return the number of photos."""
        return self._store.read_consistently(len)

    @property
    def directory(self) -> Path:
        """The folder of the index.

        >>> index.directory.name
        'photos'
        """
        return self._store.directory

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings are computed with: model, layer, pooling, sizes, weights.

        >>> index.spec.dim
        1024
        """
        return self._store.spec

    @property
    def root(self) -> Path | None:
        """The photo folder, None before the first update.

        >>> index.root.name
        'photos'
        """
        return self._session.root

    @property
    def engine(self) -> Engine:
        """The inference backend for many photos, loaded when it is first needed.

        Raises WeightsError, SpecMismatch and OptionError.

        >>> print(index.engine)  # doctest: +SKIP
        openvino, cpu (2 threads), int8
        """
        return self._session.engine()

    def paths(self) -> list[str]:
        """Return the paths of all photos, in row order: row i of `embeddings()` belongs to path i.

        >>> index.paths()
        ['a.jpg', 'b.jpg', 'copy of a.jpg', 'trips/c.jpg']
        """
        return self._store.read_consistently(lambda store: list(store.paths()))

    def skipped(self) -> SkippedFiles:
        """Return the files that could not be used, sorted by path, each with its reason.

        >>> [(file.path, file.kind) for file in index.skipped()]
        [('notes.txt', 'not a picture')]
        """
        return self._store.read_consistently(lambda store: SkippedFiles(store.skipped().values()))

    def info(self) -> "Info":
        """Return what the index holds and how it was made. Raises IndexDamaged.

        >>> index.info().photos
        4
        """
        from vggsearch.indexing.info import read_info

        return self._store.read_consistently(lambda store: read_info(store, self.root))

    def update(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        workers: int | None = None,
        allow_empty: bool = False,
        moved: bool = False,
        retry_skipped: bool = False,
        rehash: bool = False,
        compact: bool = False,
        whiten: bool | None = None,
        local_features: bool | None = None,
        slice: str | None = None,
        files: str | os.PathLike[str] | None = None,
        ray: str | None = None,
        ray_workers: int | None = None,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> "UpdateReport":
        """Index new and changed photos, drop those that are gone, and renew the FAISS index.

        `folder` is the photo folder; it can be omitted once the index has one. `moved=True` states that the same
        photos are now in `folder`. `workers` is the number of decoder processes, by default one per CPU.
        `allow_empty` permits an update that drops every photo. `retry_skipped` tries files again that could not be
        used before. `rehash` reads every photo, to find edits that kept size and modification time on a disk that
        does not record when a file was changed. `compact` merges small Parquet files even if that is not due yet.

        `whiten` and `local_features` are remembered by the index; None leaves them as they are, at first True.
        `whiten` decides whether embeddings are whitened for searching. `local_features` stores the local features
        of every photo, about 11 kB each: re-ranking is faster with them and works without the photos, and
        `query(containing=True)` needs them. At first they are False with more than 100,000 photos, an NVIDIA GPU,
        `slice`, `ray`, weights or layers that make them costly, or a network without any.

        `slice` indexes a part of the folder only: "3/64" is the third of 64. Each slice needs an index of its own;
        `merge` makes one of them all.

        `files` is a Parquet file that lists the photos in place of a walk, such as the inventory of a bucket: path,
        relative to the photo folder, bytes and mtime. What it does not list is gone. With a column etag, an object
        is unchanged while that is the same.

        `ray` has the machines of a Ray cluster read, decode and embed the photos, which have the same path on all
        of them: it is the address of the cluster, "auto" on one of its machines. `ray_workers` is the number of
        workers, by default one per GPU or, without GPUs, one per machine. They also encode the vectors for a FAISS
        index with inverted lists. This process writes the index.

        An update that is interrupted loses at most a minute of work; the next one continues. Raises PhotosError for
        a folder that is missing, another one, or suddenly empty; ClusterError; IndexLocked while another process
        writes; IndexNotWritable for a full or read-only disk; Stopped, with the report on what was done.

        >>> report = index.update()
        >>> report.indexed, report.unchanged
        (0, 4)
        """
        from vggsearch.cluster.tasks import tasks_on
        from vggsearch.indexing.extract import extract
        from vggsearch.indexing.update import photo_folder, update_index
        from vggsearch.photos.slices import Slice

        given = from_home(folder) if folder is not None else None
        with tasks_on(ray) as tasks:
            return update_index(
                self._store,
                photo_folder(self._store, self.root, given, is_moved=moved),
                self._session.engine,
                workers=workers,
                allow_empty=allow_empty,
                retry_skipped=retry_skipped,
                rehash=rehash,
                compact=compact,
                whiten=whiten,
                local_features=local_features,
                part=Slice.parse(slice) if slice is not None else None,
                inventory=from_home(files) if files is not None else None,
                embed=extract if ray is None else self._cluster(ray, ray_workers).extract,
                tasks=tasks,
                monitor=Monitor(progress, stop),
            )

    def _cluster(self, address: str, workers: int | None) -> "Cluster":
        from vggsearch.cluster.extract import Cluster

        if workers is not None and workers < 1:
            raise OptionError(option("ray_workers", workers), " is out of range: at least 1.")
        opening, remembered = self._session.opening, self._store.manifest.weights_file
        weights = Path(remembered) if opening.weights is None and remembered is not None else None
        named = opening.weights.path if opening.weights is not None else weights
        return Cluster(address, workers, named, opening.engine_options, opening.engine)

    def plan_build(
        self,
        *,
        recipe: str | None = None,
        memory: int | None = None,
        recall: float | None = None,
        metric: str | None = None,
    ) -> BuildPlan:
        """Return what `build` would do with these options, without doing it. Raises OptionError if it cannot.

        >>> index.plan_build(recipe="flat").recipe
        'flat'
        """
        return self._store.read_consistently(
            lambda store: plan_build(store, build_options(store, recipe, memory, recall, metric))
        )

    def build(
        self,
        *,
        recipe: str | None = None,
        memory: int | None = None,
        recall: float | None = None,
        metric: str | None = None,
        ray: str | None = None,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> BuildReport:
        """Rebuild the FAISS index from the stored embeddings; later updates keep to the same options.

        `recipe` is "auto", the name of a recipe such as "flat" or "ivf-pq", or a FAISS factory string; `memory` is
        how many bytes the index may take; `recall` is the share of the ten nearest photos to find, above 0 up to 1;
        `metric`, "cosine" or "euclidean", is how FAISS compares vectors (similarities are cosines either way).
        Options that are None stay as they were. `ray`, the address of a Ray cluster, has its machines encode the
        vectors, if they are in inverted lists; the files are the same.

        Until it is done, and if it is stopped, the previous index stays in use. Raises OptionError, which names the
        nearest possible options, ClusterError, IndexLocked, IndexNotWritable and Stopped.

        >>> index.build(recipe="flat").photos
        4
        """
        from vggsearch.cluster.tasks import tasks_on

        with tasks_on(ray) as tasks:
            return rebuild(
                self._store,
                lambda: build_options(self._store, recipe, memory, recall, metric),
                Monitor(progress, stop),
                tasks,
            )

    def verify(
        self, *, repair: bool = False, progress: OnProgress | None = None, stop: Stop | None = None
    ) -> "VerifyReport":
        """Check every byte of the index. With `repair`, drop what is damaged; the next `update` recreates it.

        `vggsearch.verify` does the same for an index that can no longer be opened. Raises IndexLocked and
        IndexNotWritable for a repair, and Stopped.

        >>> index.verify().is_whole
        True
        """
        from vggsearch.indexing.integrity import verify

        report = verify(self.directory, repair=repair, progress=progress, stop=stop)
        self._store.refresh()
        return report

    def learn(
        self,
        labels: "Labels | None" = None,
        *,
        even_if_worse: bool = False,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> "LearnReport":
        """Learn from labels which photos belong together, so that queries find more of them; `forget` reverts it.

        `labels` maps paths, relative to the photo folder, to labels, or is a file of both (`path<TAB>label`). If it
        is None, photos that `decide` made the "same" have one label. Two labels need at least four different photos
        each. Photos without a label are learned from, too: they show what else there is.

        Only queries change: of `query` and `query_many`, but for `containing`, and of `evaluate`. Embeddings,
        `duplicates` and its calibration do not. Later updates keep to what was learned.

        Raises TruthError for too few labels or photos, and for files of the same bytes with different labels;
        LearnedWorse, with the report, if less is found on labels that it was not learned from, or on photos held
        out, unless `even_if_worse`; IndexLocked, IndexNotWritable and Stopped. What was learned before stays then.

        >>> try:
        ...     index.learn({"a.jpg": "cat", "b.jpg": "dog"})
        ... except VggsearchError as error:
        ...     print(str(error)[:48])
        Two labels need at least 4 different photos each
        """
        from vggsearch.learning.learn import learn

        monitor = Monitor(progress, stop)
        return learn(self._store, self._session.latest, labels, even_if_worse=even_if_worse, monitor=monitor)

    def forget(self) -> bool:
        """Have queries search as if `learn` had not been called; return whether it had been.

        Raises IndexLocked and IndexNotWritable.

        >>> index.forget()
        False
        """
        from vggsearch.learning.learn import forget

        return forget(self._store)

    def classify(
        self, labels: "Labels", *, progress: OnProgress | None = None, stop: Stop | None = None
    ) -> "ClassifyReport":
        """Label the photos without a label from those that have one, and find wrong labels. Changes nothing.

        `labels` are those of `learn`. Each photo gets the most probable label, or none if it looks like none of the
        labelled ones, with a probability that is calibrated on labelled photos that were left out. Two labels need
        at least two different photos each. Raises TruthError, and Stopped, without a report.

        >>> labels = {"a.jpg": "cat", "copy of a.jpg": "cat", "b.jpg": "dog"}
        >>> try:
        ...     report = index.classify(labels)
        ... except VggsearchError as error:
        ...     print(str(error)[:48])
        Two labels need at least 2 different photos each
        """
        from vggsearch.learning.classify import classify

        return classify(self._store, self._session.latest, labels, Monitor(progress, stop))

    def query(
        self,
        image: Images,
        count: SupportsIndex | None = None,
        *,
        min_similarity: float | None = None,
        rerank: bool = True,
        crop: Box | None = None,
        containing: bool = False,
        filters: str | Iterable[str] = (),
        exclude_same_folder: bool = False,
        minus: Images = (),
        also_in: Sequence["ImageIndex"] = (),
    ) -> QueryResult:
        """Return the photos most similar to `image`, most similar first.

        `image` is a path or an address (s3://bucket/a.jpg), the bytes of an image file, a file open in binary mode,
        a PIL image, or an array or torch tensor: uint8, or float from 0 to 1; grey, RGB or RGBA; of shape (height,
        width), (height, width, channels) or (channels, height, width). A list of several, or an array of four
        dimensions, is one query, their mean; `minus`, one or several, is subtracted from it. `crop` searches with a
        region of the image: (left, top, width, height), in pixels of the upright image. `containing` finds photos
        that contain the image, by the most similar region of each; it needs `update(local_features=True)`.

        At most `count` photos are returned, and none with a similarity below `min_similarity`, -1 to 1. With the
        latter alone, all that reach it; with neither, ten. An indexed photo finds itself at 1.0, unless
        `containing`. Blank images are all alike, so a blank image only finds itself, and no other image finds it.

        `rerank` compares the best matches with the image geometrically, which finds crops, mirrored and rotated
        copies, and raises their similarity. It needs the photos, or local features, and does not apply to queries
        of several images.

        `filters` are rules that photos have to match, such as "2019/**", "folder:trips", "taken:2019-05..2020",
        "size:1000.." or "orientation:portrait"; `exclude_same_folder` excludes the photos next to the image. Both
        apply before the search, so they do not shorten the result.

        `also_in` are other open indexes with the same `spec`, searched as if all photos were in one index;
        `Match.index` says where a match is. All are searched with the whitening of the largest, so that
        similarities are comparable.

        Raises ImageError if an image cannot be read; InputError for a value that is no image; OptionError for
        invalid or incompatible options; SpecMismatch for `also_in`.

        >>> result = index.query("photos/a.jpg", count=2)
        >>> [(match.path, match.similarity) for match in result.matches]
        [('a.jpg', 1.0), ('copy of a.jpg', 1.0)]
        >>> index.query("photos/a.jpg", filters="trips/**").matches[0].path
        'trips/c.jpg'
        """
        options = QueryOptions.of(
            count, min_similarity, rerank, crop, containing, filters, exclude_same_folder, minus
        )
        return run_query(self._targets(also_in, photos=1), image, options)

    def query_many(
        self,
        images: Iterable[Images],
        count: SupportsIndex | None = None,
        *,
        min_similarity: float | None = None,
        rerank: bool = True,
        crop: Box | None = None,
        containing: bool = False,
        filters: str | Iterable[str] = (),
        exclude_same_folder: bool = False,
        minus: Images = (),
        also_in: Sequence["ImageIndex"] = (),
    ) -> QueryResults:
        """Yield a QueryResult for each image, in order, or a Skipped for one that cannot be used.

        `images` is any iterable of what `query` takes, such as a generator, a Series, or an array of four
        dimensions. The path of a Skipped is the name of its image, or its place from 0, as "[3]", if it has none.
        The options are those of `query`. Images are read ahead: three of them, which are answered at the same time.
        With `rerank=False`, and neither `containing`, `minus` nor `exclude_same_folder`, they are 64 and go through
        the network together, which is much faster.

        >>> results = index.query_many(["photos/a.jpg", "photos/b.jpg"], count=1, rerank=False)
        >>> [result.matches[0].path for result in results]
        ['a.jpg', 'b.jpg']
        """
        options = QueryOptions.of(
            count, min_similarity, rerank, crop, containing, filters, exclude_same_folder, minus
        )
        queries = batch_of(images)
        count_known = len(queries) if isinstance(queries, Sized) else None
        return QueryResults(run_queries(self._targets(also_in, photos=count_known), queries, options))

    def random(
        self,
        count: SupportsIndex,
        *,
        filters: str | Iterable[str] = (),
        seed: int | None = None,
        also_in: Sequence["ImageIndex"] = (),
    ) -> tuple[Pick, ...]:
        """Return `count` random photos that match all `filters`, or all of them if they are fewer.

        The same `seed` returns the same photos. Raises OptionError for an invalid filter or a count below 1.

        >>> len(index.random(2, seed=1))
        2
        """
        return pick_random(self._targets(also_in), count, rules(filters), seed)

    def _targets(self, also_in: Sequence["ImageIndex"], photos: int | None = None) -> list[IndexTarget]:
        """Return the indexes to search for this number of images; None for many."""
        return [index._session.target(photos) for index in (self, *also_in)]

    def duplicates(
        self,
        *,
        min_precision: float = DUPLICATES.min_precision,
        threshold: float | None = None,
        keep: str = DUPLICATES.keep,
        protect: "Folders" = (),
        min_size: int = 2,
        within_folder: bool = False,
        across_folders: bool = False,
        similar: bool = False,
        siblings: bool = False,
        confirm: bool = True,
        kinds: str | Iterable[str] = (),
        group_of: "Folders" = (),
        filters: str | Iterable[str] = (),
        against: "ImageIndex | None" = None,
        ray: str | None = None,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> "DuplicatesReport":
        """Find photos that are copies or edited copies of one another, and suggest which to keep. Changes nothing.

        `min_precision`, 0.5 to below 1, is the share of the returned pairs that should be right, as calibrated on
        the photos themselves; `threshold` uses a fixed similarity instead. `confirm` compares candidate pairs by
        keypoints, which needs the photos. `keep` are the rules by which to choose the photo to keep, first rule
        first, such as "oldest" or "resolution,path:best/**"; nothing in the folders `protect` is suggested for
        removal.

        `within_folder` and `across_folders` restrict pairs to one folder or to two different ones; `min_size` is
        the smallest group to return. `similar` also returns similar photos that are not duplicates, which are never
        removed; `siblings` treats the shots of a burst as duplicates. `against` finds the photos that another open
        index already holds.

        The report may be restricted: to members of some `kinds`, such as "exact"; to the groups of some photos,
        `group_of`; and to groups with a photo that matches all `filters`, as in `query`.

        `ray`, the address of a Ray cluster, has its machines compare the vectors of more than 400,000 photos, where
        this machine has no GPU; the duplicates are the same.

        Candidates, comparisons and the calibration are stored in the index, so the next call is fast. Raises
        ClusterError; OptionError, also for a protected folder that does not exist; SpecMismatch if the two indexes
        hold different embeddings; Stopped, with a report on the pairs compared so far.

        >>> for group in index.duplicates().groups:
        ...     print("keep", group.keeper.path, "of", [member.photo.path for member in group.members])
        keep a.jpg of ['copy of a.jpg']
        """
        from vggsearch.cluster.tasks import tasks_on
        from vggsearch.duplicates.find import duplicates
        from vggsearch.duplicates.options import DuplicateOptions, protected_folders

        options = DuplicateOptions(
            min_precision=min_precision,
            threshold=threshold,
            keep=keep,
            protect=protected_folders(self.root, protect, self._store.read_consistently(Store.paths)),
            min_size=min_size,
            within_folder=within_folder,
            across_folders=across_folders,
            similar=similar,
            siblings=siblings,
            confirm=confirm,
            kinds=(kinds,) if isinstance(kinds, str) else tuple(kinds),
            group_of=self._members(group_of),
            filters=rules(filters),
        )
        passing, monitor = self._passing(options.filters), Monitor(progress, stop)
        with tasks_on(ray) as tasks:
            return self._store.read_consistently(
                lambda _: duplicates(
                    replace(self._collection(against), tasks=tasks),
                    options,
                    self._session.embed_squares,
                    monitor,
                    passing,
                )
            )

    def _members(self, named: "Folders") -> tuple[str, ...]:
        """Return the paths of photos that a user names, relative to the photo folder. Raises OptionError."""
        from vggsearch.duplicates.options import check_named, named_photos

        photos = [named] if isinstance(named, str | os.PathLike) else list(named)
        root = self.root or Path()
        paths = named_photos(root, [str(each) for each in photos])
        check_named(root, paths, self._store.read_consistently(lambda store: store.sha256s(paths)), 0)
        return tuple(paths)

    def _passing(self, filters: Sequence[Filter]) -> frozenset[str] | None:
        """Return the paths of the photos that pass all filters; None if there are no filters."""
        paths, selection = self._session.latest.read(lambda state: (state.paths, state.wanted(filters)))
        return None if selection is None else frozenset(paths[row] for row in selection.rows.tolist())

    def plan_removal(
        self, report: "DuplicatesReport", action: str, *, protect: "Folders" = (), raw_pairs: bool = False
    ) -> "RemovalPlan":
        """Return what `remove` would do with the duplicates of a report, without doing it.

        `action` is "trash", "move:DIR", "hardlink", "symlink" or "delete". Nothing in the folders `protect` is
        touched. `raw_pairs` allows removing photos that have a RAW file next to them. Raises OptionError for an
        unknown action, and for a report that must not be acted on: of a stopped search, against another index, or
        by similarity alone unless with a `threshold`; PhotosError if a folder is missing.

        >>> plan = index.plan_removal(index.duplicates(), "move:duplicates")
        >>> [planned.path for planned in plan.removals]
        ['copy of a.jpg']
        """
        from vggsearch.duplicates.removals import plan_removals

        return plan_removals(self.root or Path(), report, action, protect, raw_pairs=raw_pairs)

    def remove(
        self, plan: "RemovalPlan", *, progress: OnProgress | None = None, stop: Stop | None = None
    ) -> "RemovalReport":
        """Perform a plan, and record it in a journal inside the index, with which `vggsearch.undo` reverts it.

        Every photo and the copy that is kept are read first; a photo that has changed is left alone, and the report
        says why. Raises JournalError if the journal cannot be written; Stopped, with the report on what was done.

        >>> plan = index.plan_removal(index.duplicates(), "move:duplicates")
        >>> done = index.remove(plan)
        >>> len(done.done), undo(done.journal).restored
        (1, ('copy of a.jpg',))
        """
        from vggsearch.duplicates.removals import new_journal
        from vggsearch.removal.perform import perform

        return perform(plan, new_journal(self.directory), progress=progress, stop=stop)

    def decide(self, judgement: "Judgement", photos: Sequence[str]) -> "Decision":
        """Remember that some photos are the "same", "different", or "undecided" again: every pair of them.

        "keep" is about each photo: it is the keeper of its group and is not removed, until it is "undecided".
        `photos` are paths, at most 1,000, relative to the photo folder or to the current folder: two or more, or
        one for "keep" and "undecided". Decisions are stored by content, so they survive moves and renames; that two
        files with the same bytes are "different", and which of them to keep, is stored by path. Raises OptionError
        for a photo that is not in the index, IndexLocked and IndexNotWritable.

        >>> index.decide("same", ["a.jpg", "b.jpg"]).judgement
        'same'
        >>> len(index.duplicates().groups[0].members)
        2
        """
        from vggsearch.duplicates.options import check_named, named_photos
        from vggsearch.store.decisions import add_decisions, decide

        root = self.root or Path()
        paths = named_photos(root, photos)
        keys = self._store.read_consistently(lambda store: store.sha256s(paths))
        check_named(root, paths, keys, 1 if judgement in ("keep", "undecided") else 2)
        decision = decide(judgement, [(keys[path], path) for path in paths])
        add_decisions(self.directory, [decision])
        return decision

    def import_decisions(self, file: str | os.PathLike[str]) -> "ImportedDecisions":
        """Add the decisions of another index's decisions.jsonl; return how many are new, and what was in conflict.

        Both files keep their order, and of two decisions about a pair the later line counts. Where the files
        disagree about a pair and nothing shows which decision is later, the photos are not duplicates. Lines that
        cannot be read are left out and returned. Raises OptionError if there is no such file, IndexLocked and
        IndexNotWritable.

        >>> decision = index.decide("same", ["a.jpg", "b.jpg"])
        >>> index.import_decisions(index.directory / "decisions.jsonl").added
        0
        """
        from vggsearch.store.decisions import import_decisions

        given = from_home(file)
        if not given.is_file():
            raise OptionError(f"{file} is not a file. Name a file of decisions, such as INDEX/{DECISIONS}.")
        return import_decisions(self.directory, given)

    def _check_paths(self) -> None:
        """Raise PathOutside. Other damage is reported by the call that it affects."""
        try:
            self._session.latest.read(lambda state: state.paths)
        except PathOutside:
            raise
        except (IndexDamaged, IndexNotReadable):
            return

    def _collection(self, against: "ImageIndex | None" = None) -> "Collection":
        from vggsearch.duplicates.collection import Collection

        if against is not None and against.spec != self.spec:
            raise SpecMismatch(
                f"{self.directory} holds {self.spec}; {against.directory} holds {against.spec}. Index both "
                "folders with the same embedding options."
            )
        others = against._collection() if against is not None else None
        return self._session.latest.read(lambda state: Collection(state.store, state.searcher, self.root, others))

    def to_arrow(self) -> Table:
        """Return one row per photo, in row order, with the columns of the Parquet files.

        They are path, bytes, mtime_ns, sha256, width, height, format, taken, taken_kind, camera,
        camera_serial, is_blank, perceptual_hash and
        embedding, which is a fixed-size list of float16, unit vectors that are not whitened.

        >>> index.to_arrow().select(["path", "width"]).to_pylist()[0]
        {'path': 'a.jpg', 'width': 320}
        """
        return self._store.read_consistently(Store.table)

    def export(
        self,
        file: str | os.PathLike[str],
        *,
        raw: bool = False,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> int:
        """Write the vectors of all photos to one Parquet file for other programs; return their dimensions.

        Its columns are id, int64, the row; path; and embedding, a list of float32, a unit vector. They are the
        vectors that queries compare, so that the dot product of two is their similarity: whitened, if the index has
        at least 100 photos. With `raw`, they are the embeddings, as `embeddings()` returns them.

        The file is replaced only if vggsearch wrote it. Raises OptionError for any other, IndexNotWritable if it
        cannot be written, IndexDamaged and Stopped; then an earlier file stays as it was.

        >>> index.export("photos.parquet")
        1024
        """
        from vggsearch.published.export import export

        monitor = Monitor(progress, stop)
        return self._apart().read(lambda state: export(state, from_home(file), monitor, raw=raw))

    def publish(
        self,
        url: str,
        *,
        replace: bool = False,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> "PublishReport":
        """Publish the photos of the index in a database, where `ImageIndex.at` finds them from any machine.

        `url` is postgresql://SERVER/DATABASE, with the extra `postgres` and pgvector on the server; several indexes
        in one database have a #NAME at its end. Or it is lance+s3://BUCKET/NAME or lance+file:///FOLDER/NAME, with
        the extra `lance` and no server. What queries need goes there: the vectors that they compare, with
        the whitening; paths, dates and sizes for filters; no photos, local features or decisions.

        Only what changed since the last time is sent, except after a new whitening. Readers see all of it at once,
        or nothing: a publish that is stopped or killed changes nothing. `replace` allows to replace embeddings of
        another spec, and an index most of whose photos are not in this one.

        Raises PublishError, also while another process publishes there; SpecMismatch, OptionError,
        InstallationError, IndexDamaged and Stopped.

        >>> index.publish("postgresql://localhost/photos").added  # doctest: +SKIP
        4
        """
        from vggsearch.published.publish import publish
        from vggsearch.published.table import open_table

        monitor = Monitor(progress, stop)
        with closing(open_table(url)) as table:
            return self._apart().read(lambda state: publish(state, table, monitor, replace=replace))

    def _apart(self) -> LatestSnapshot:
        """Return the last committed state for long work, during which other threads go on reading theirs."""
        return LatestSnapshot(self._store.at_this_state())

    def embeddings(self) -> NDArray[np.float32]:
        """Return the embeddings of all photos, float32 (photos, dimensions): unit vectors, not whitened.

        >>> index.embeddings().shape
        (4, 1024)
        """
        none = np.empty((0, self.spec.dim), np.float16)
        return self._store.read_consistently(lambda store: unit_rows(np.concatenate([none, *store.embeddings()])))

    def embed_many(self, images: Iterable[ImageLike]) -> NDArray[np.float32]:
        """Return the embeddings of images, float32 (images, dimensions): unit vectors.

        Raises ImageError and InputError, which tell the path of the unusable image, and its place from 0.

        >>> index.embed_many(["photos/a.jpg", "photos/b.jpg"]).shape
        (2, 1024)
        """
        return self._session.embed_many(images)

    def embed(self, image: ImageLike) -> NDArray[np.float32]:
        """Return the embedding of an image, float32 (dimensions,): a unit vector. Raises ImageError and InputError.

        >>> index.embed("photos/a.jpg").shape
        (1024,)
        """
        return self._session.embed(image)


def _reopened(open: Callable[[Path], ImageIndex], directory: Path, weights: WeightsFile | None) -> ImageIndex:
    index = open(directory)
    index._session.opening = replace(index._session.opening, weights=weights)
    return index


# For `evaluation` and `serve`, which need the internals of an index.


def latest_of(index: ImageIndex) -> LatestSnapshot:
    """Return the last committed state of an index, which is read again after each commit."""
    return index._session.latest


def searcher_of(index: ImageIndex, whitening: WhiteningOptions | None = None) -> Searcher:
    """Return the searcher over the last committed state of an index: its rows, paths and all similarities.

    With `whitening`, it is built in memory, with a new whitening learned with these options.
    """
    return index._session.latest.searcher(whitening)


def targets_of(indexes: Sequence[ImageIndex]) -> list[IndexTarget]:
    """Return indexes as run_queries searches them, with the network and the decoder processes for many images."""
    return [index._session.target(None) for index in indexes]


def reranker_of(index: ImageIndex, engine: Engine | None = None) -> Reranker | None:
    """Return the reranker of an index; None if the photos are not available, which is logged once.

    `engine` is used instead of the network of the index, which is then not loaded.
    """
    return index._session.reranker(partial(decoders_of, index), engine or index.engine)


def decoders_of(index: ImageIndex) -> Decoders:
    """Return the decoder processes of an index, which it ends when it is closed."""
    return index._session.decoders()
