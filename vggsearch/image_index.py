"""ImageIndex: all of vggsearch as one Python class. The command line calls it and prints the results."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.find import DuplicatesReport, duplicates
from vggsearch.duplicates.options import DuplicateOptions, named_photos, path_in_folder
from vggsearch.duplicates.removals import new_journal, plan_removals
from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.indexing.build import BuildReport, build_options, plan_build, rebuild
from vggsearch.indexing.info import Info, read_info
from vggsearch.indexing.integrity import VerifyReport, verify
from vggsearch.indexing.update import UpdateReport, photo_folder, update_index
from vggsearch.knn.recipes import BuildPlan
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import WhiteningOptions
from vggsearch.matching.rerank import Reranker
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.weights import WeightsFile, find_again
from vggsearch.photos.inputs import Box, ImageLike, read_image
from vggsearch.photos.resize import square
from vggsearch.photos.walk import SkippedFiles, check_folder
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.query.options import Images, Pick, QueryOptions, QueryResult, QueryResults, rules
from vggsearch.query.run import embed_squares, pick_random, run_queries, run_query
from vggsearch.query.searcher import Searcher
from vggsearch.query.snapshot import LatestSnapshot
from vggsearch.query.targets import Target
from vggsearch.removal.perform import RemovalReport, perform
from vggsearch.removal.plan import RemovalPlan
from vggsearch.store.contents import DECISIONS, MANIFEST
from vggsearch.store.decisions import (
    Decision,
    Judgement,
    add_decisions,
    decide,
    read_decisions,
)
from vggsearch.store.locate import directory_for
from vggsearch.store.store import Store
from vggsearch.tables import Table, Tabular

log = logging.getLogger(__name__)


class ImageIndex(Tabular):
    """An index of photos in one directory: their embeddings, and the search over them.

    >>> with ImageIndex.create("indexes/photos") as photos:
    ...     photos.update("photos")
    ...     photos.query("img.jpg", count=5).matches
    """

    def __init__(
        self,
        store: Store,
        *,
        weights: WeightsFile | None = None,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
        root: Path | None = None,
    ) -> None:
        self._store = store
        self._weights = weights
        self._engine = engine
        self._engine_options = engine_options or EngineOptions()
        self._root = root
        self._has_warned = False  # that photos are missing
        self._latest = LatestSnapshot(store)

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        options: EmbeddingOptions | None = None,
        *,
        engine: Engine | None = None,
        engine_options: EngineOptions | None = None,
    ) -> "ImageIndex":
        """Create an empty index; options that are not set have their defaults.

        `engine` replaces the network, for tests and for custom networks. Raises IndexExists, OptionError or
        WeightsError.
        """
        options = options or EmbeddingOptions()
        spec, weights = options.resolve()
        store = Store.create(Path(directory), spec, options.weights)
        return cls(store, weights=weights, engine=engine, engine_options=engine_options)

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
        """Open an index. `root` is the present photo folder, if the photos or the index were moved separately.

        Raises IndexMissing, IndexDamaged or IndexFormatError; SpecMismatch if `options` describe embeddings other
        than those in the index.
        """
        store = Store.open(Path(directory))
        options = options or EmbeddingOptions()
        options.check(store.spec, str(directory))
        where = Path(root) if root is not None else None
        opened = cls(store, engine=engine, engine_options=engine_options, root=where)
        if options.weights is not None:
            opened._weights = opened._find_weights(options.weights)
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
    ) -> "ImageIndex":
        """Open the index of a photo folder, or create it if it does not exist; the default is indexes/NAME.

        Raises PhotosError if the folder does not exist, and the errors of `open` and `create`.
        """
        photos = check_folder(Path(folder))
        where = Path(directory) if directory is not None else directory_for(photos)
        make = cls.open if (where / MANIFEST).exists() else cls.create
        return make(where, options, engine=engine, engine_options=engine_options)

    def __enter__(self) -> "ImageIndex":
        """Return the index itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the index."""
        self.close()

    def close(self) -> None:
        """Release the network and the memory-mapped files. All committed data is already on disk."""
        self._engine = None
        self._latest.close()

    def __len__(self) -> int:
        """Return the number of photos in the index."""
        return len(self._store)

    @property
    def directory(self) -> Path:
        """The directory of the index."""
        return self._store.directory

    @property
    def spec(self) -> EmbeddingSpec:
        """The specification of the embeddings: network, layer, pooling and image size."""
        return self._store.spec

    @property
    def root(self) -> Path | None:
        """The photo folder, None before the first update. Paths of matches are relative to it."""
        if self._root is not None or self._store.manifest.root is None:
            return self._root
        return Path(os.path.normpath(self.directory / self._store.manifest.root))

    @property
    def engine(self) -> Engine:
        """The inference backend, loaded on first use. Raises WeightsError, SpecMismatch, OptionError."""
        if self._engine is None:
            weights = self._weights or self._find_weights(None)
            self._engine = load_engine(self.spec, weights, self._engine_options)
        return self._engine

    def paths(self) -> list[str]:
        """Return the paths of all photos, in row order."""
        return list(self._store.read_consistently(self._store.paths))

    def skipped(self) -> SkippedFiles:
        """Return the files that could not be indexed, by path, each with the reason."""
        self._store.refresh()
        return SkippedFiles(self._store.read_consistently(self._store.skipped).values())

    def info(self) -> Info:
        """Return what the index holds and how it was made. Raises IndexDamaged."""
        self._store.refresh()
        return self._store.read_consistently(lambda: read_info(self._store, self.root))

    def update(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        workers: int | None = None,
        allow_empty: bool = False,
        moved: bool = False,
        retry_skipped: bool = False,
        compact: bool = False,
        whiten: bool | None = None,
        local_features: bool | None = None,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> UpdateReport:
        """Index new and changed photos of the photo folder, drop deleted ones, and update the FAISS index.

        `folder` may be omitted after the first update. `moved` confirms that `folder` is the new place of the same
        photos. `allow_empty` permits an update that drops every photo. `compact` merges small parts and removes
        dead rows even if that is not due yet. `whiten` sets whether whitened embeddings are searched; None keeps
        the present setting, initially True. `local_features` sets whether local features are stored as well, so
        that re-ranking need not read the photos again and `query(containing=True)` works; None keeps the present
        setting, initially False.

        Raises PhotosError if the folder is missing, is not the one that was indexed, or no longer holds any of the
        photos; IndexLocked while another process writes; IndexNotWritable if the disk is full or read-only;
        Stopped, with the report of what was done, if `stop` ended it early.
        """
        return update_index(
            self._store,
            photo_folder(self._store, self.root, folder, is_moved=moved),
            lambda: self.engine,
            workers=workers,
            allow_empty=allow_empty,
            retry_skipped=retry_skipped,
            compact=compact,
            whiten=whiten,
            local_features=local_features,
            monitor=Monitor(progress, stop),
        )

    def plan_build(
        self,
        *,
        recipe: str | None = None,
        memory: int | None = None,
        recall: float | None = None,
        metric: str | None = None,
    ) -> BuildPlan:
        """Return what `build` would do, without doing it. Raises OptionError if it is not possible."""
        return self._store.read_consistently(
            lambda: plan_build(self._store, build_options(self._store, recipe, memory, recall, metric))
        )

    def build(
        self,
        *,
        recipe: str | None = None,
        memory: int | None = None,
        recall: float | None = None,
        metric: str | None = None,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> BuildReport:
        """Rebuild the FAISS index from the stored embeddings. Later updates use the same options.

        `recipe` is auto, a name in knn.recipes.RECIPES, or a FAISS factory string; `memory` is the most bytes it
        may take; `recall` is the share of the ten nearest photos to find; `metric` is that of FAISS, cosine or
        euclidean: similarities are cosines in any case. Options that are omitted stay as in the last build. The old
        index stays in use until the new one is complete, and if the build is stopped.

        Raises OptionError before any work if the options are not possible, with the nearest possible ones;
        IndexLocked, IndexNotWritable; Stopped.
        """
        return rebuild(
            self._store, lambda: build_options(self._store, recipe, memory, recall, metric), Monitor(progress, stop)
        )

    def verify(
        self, *, repair: bool = False, progress: OnProgress | None = None, stop: Stop | None = None
    ) -> VerifyReport:
        """Check every byte of the index. With `repair`, drop what is damaged; `update` computes it again.

        `vggsearch.verify` also repairs an index whose manifest can no longer be opened.
        """
        report = verify(self.directory, repair=repair, progress=progress, stop=stop)
        self._store.refresh()
        return report

    def query(
        self,
        image: Images,
        count: int | None = None,
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
        """Return the photos most like `image`: a path, the bytes of a file, a PIL image, or uint8 (h, w, 3) RGB.

        Returns at most `count` photos, none below `min_similarity`. With `min_similarity` alone, returns all that
        reach it; with neither, SEARCH.count. A photo in the index finds itself at 1.0. Blank pictures are all
        alike, so a blank picture finds only itself, and no other picture finds it. The query sees what other
        processes have committed.

        With `rerank`, the best ALIGN.candidates are checked geometrically, if the photo folder is available, and
        the similarity of those that show the query is raised; `min_similarity` applies after that. `crop` is the
        part of the image to search with: left, top, width and height in pixels of the upright picture. With
        `containing`, photos that contain the image are searched, by the most similar region of each; this requires
        local features (see `update`). The similarity then combines those of the region and of the whole photo, and
        is below 1.0 even for the photo itself.

        Only photos that pass all `filters` are found; query.filters.parse_filter describes their syntax. With
        `exclude_same_folder`, photos in the folder of the image are not found. Neither shortens the result, as
        photos are excluded before the search.

        A list of several images is one query, their mean; each of `minus` is subtracted from it. Such a query is
        not re-ranked.

        The photos of `also_in`, other indexes of the same spec, are searched as well, and each match names its
        index. Similarities are on one scale: all indexes are searched with the whitening of the index with the
        most photos. The embeddings of the others are whitened with it in memory, once while the index is open.

        Raises ImageError if a picture cannot be used; OptionError for a crop outside the picture, an invalid
        filter, options that exclude each other, or `containing` without local features; SpecMismatch for `also_in`.
        """
        options = QueryOptions.of(
            count, min_similarity, rerank, crop, containing, filters, exclude_same_folder, minus
        )
        return run_query(self._targets(also_in), image, options)

    def query_many(
        self,
        images: Iterable[Images],
        count: int | None = None,
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
        """Yield a QueryResult for each image, or a Skipped for one that cannot be used, in order; see query.

        Without `rerank`, SEARCH.at_once images are read ahead and go through the network together, unless
        `containing`, `minus` or `exclude_same_folder` require a separate search for each.
        """
        options = QueryOptions.of(
            count, min_similarity, rerank, crop, containing, filters, exclude_same_folder, minus
        )
        return QueryResults(run_queries(self._targets(also_in), images, options))

    def random(
        self,
        count: int,
        *,
        filters: str | Iterable[str] = (),
        seed: int | None = None,
        also_in: Sequence["ImageIndex"] = (),
    ) -> tuple[Pick, ...]:
        """Return `count` random photos of those that pass all filters; all of these if there are fewer.

        The same `seed` picks the same photos. Raises OptionError for an invalid filter or a count below 1.
        """
        return pick_random(self._targets(also_in), count, rules(filters), seed)

    def _targets(self, also_in: Sequence["ImageIndex"]) -> list[Target]:
        return [index._target() for index in (self, *also_in)]

    def _target(self) -> Target:
        return Target(self.directory, self.root, self.spec, self._latest, lambda: self.engine, self._reranker)

    def duplicates(
        self,
        *,
        min_precision: float = DUPLICATES.min_precision,
        threshold: float | None = None,
        keep: str = DUPLICATES.keep,
        protect: Sequence[str] = (),
        min_size: int = 2,
        within_folder: bool = False,
        across_folders: bool = False,
        similar: bool = False,
        siblings: bool = False,
        confirm: bool = True,
        against: "ImageIndex | None" = None,
        progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> DuplicatesReport:
        """Find photos that are copies or edited copies of one another, and suggest which to keep. Changes nothing.

        At least the share `min_precision`, 0.5 to below 1, of the pairs is expected to be right, as calibrated on
        the folder's own photos; `threshold` uses a fixed similarity instead. `keep` lists the rules by which the
        photo to keep is chosen, first rule first; in the folders `protect` nothing may be removed. `min_size` is
        the smallest group to return. `within_folder` and `across_folders` restrict pairs to one folder, or to two.
        `similar` also returns other shots of the same subject, `siblings` treats burst shots as duplicates. With
        `confirm`, candidates are compared by keypoints, if the photos are available. `against` finds the photos
        that another index already has.

        Candidates, comparisons and the calibration are kept in the index, so the next call is quick. Raises
        OptionError, DecisionsDamaged, SpecMismatch where the two indexes hold different embeddings, and Stopped,
        with the report of the pairs compared until then, if `stop` ended it early.
        """
        root = self.root
        options = DuplicateOptions(
            min_precision=min_precision,
            threshold=threshold,
            keep=keep,
            protect=tuple(protect) if root is None else tuple(path_in_folder(root, folder) for folder in protect),
            min_size=min_size,
            within_folder=within_folder,
            across_folders=across_folders,
            similar=similar,
            siblings=siblings,
            confirm=confirm,
        )
        return self._store.read_consistently(
            lambda: duplicates(self._collection(against), options, self.embed_many, Monitor(progress, stop))
        )

    def plan_removal(
        self, report: DuplicatesReport, action: str, *, protect: Sequence[str] = (), raw_pairs: bool = False
    ) -> RemovalPlan:
        """Return what `remove` would do with the duplicates of a report, without doing it.

        `action` is "trash", "move:DIR", "hardlink", "symlink" or "delete". `protect` are folders in which nothing
        is changed. A photo with a RAW file beside it is left alone unless `raw_pairs`. Raises OptionError for an
        unknown action and for a report that must not be acted on, PhotosError if a folder is missing.
        """
        return plan_removals(self.root or Path(), report, action, protect, raw_pairs=raw_pairs)

    def remove(
        self, plan: RemovalPlan, *, progress: OnProgress | None = None, stop: Stop | None = None
    ) -> RemovalReport:
        """Carry out a plan, and record it in a journal inside the index; `vggsearch.undo` reverses it.

        A photo that has changed since is left alone, and the report states why. Raises JournalError if the journal
        cannot be written, and Stopped, with the report of what was done, if `stop` ended it early.
        """
        return perform(plan, new_journal(self.directory), progress=progress, stop=stop)

    def decide(self, judgement: Judgement, photos: Sequence[str]) -> Decision:
        """Store the user's decision on every pair of the given photos: "same", "different" or "undecided".

        Decisions are stored by content in INDEX/decisions.jsonl, so they survive moves and renames; "undecided"
        revokes an earlier one. Raises OptionError for a photo that is not in the index, IndexLocked,
        IndexNotWritable, DecisionsDamaged.
        """
        collection = self._collection()
        rows = {path: row for row, path in enumerate(collection.searcher.paths)}
        paths = named_photos(self.root or Path(), photos, rows)
        decision = decide(judgement, [(collection.key(rows[path]), path) for path in paths])
        add_decisions(self.directory, [decision])
        return decision

    def import_decisions(self, file: str | os.PathLike[str]) -> int:
        """Add the decisions of another decisions.jsonl; return how many are new. The latest on a pair applies.

        Raises OptionError if the file does not exist, IndexLocked, IndexNotWritable, DecisionsDamaged.
        """
        if not Path(file).is_file():
            raise OptionError(f"{file} is not a file. Name a file of decisions, such as INDEX/{DECISIONS}.")
        before = read_decisions(self.directory / DECISIONS)
        add_decisions(self.directory, read_decisions(Path(file)).made)
        return len(read_decisions(self.directory / DECISIONS).made) - len(before.made)

    def _collection(self, against: "ImageIndex | None" = None) -> Collection:
        if against is not None and against.spec != self.spec:
            raise SpecMismatch(
                f"{self.directory} holds {self.spec}; {against.directory} holds {against.spec}. Index both "
                "folders with the same embedding options."
            )
        others = against._collection() if against is not None else None
        return Collection(self._store, self._latest.searcher(), self.root, others)

    def to_arrow(self) -> Table:
        """Return one row per photo, with the columns of the Parquet files: path, sha256, width, ..., embedding.

        The embedding is a fixed-size list of float16, not whitened, of unit length before rounding.
        """
        return self._store.read_consistently(self._store.table)

    def embeddings(self) -> NDArray[np.float32]:
        """Return the embeddings of all photos as they are stored, not whitened: float32 (n, dim), unit rows."""
        blocks = self._store.read_consistently(lambda: list(self._store.embeddings()))
        return unit_rows(np.concatenate([np.empty((0, self.spec.dim), np.float16), *blocks]))

    def embed_many(self, images: Sequence[ImageLike]) -> NDArray[np.float32]:
        """Return the embeddings of several pictures, float32 (n, dim), unit rows. Raises ImageError."""
        if not images:
            return np.empty((0, self.spec.dim), np.float32)
        return embed_squares(self.engine, np.stack([self._pixels(image) for image in images]))

    def embed(self, image: ImageLike) -> NDArray[np.float32]:
        """Return the embedding of one picture, float32 (dim,), unit length. Raises ImageError."""
        vector: NDArray[np.float32] = unit_rows(self.engine.embed(self._pixels(image)[None]))[0]
        return vector

    def _pixels(self, image: ImageLike) -> NDArray[np.uint8]:
        return square(read_image(image, self.spec.size), self.spec.size, self.spec.resize)

    def _reranker(self, engine: Engine | None = None) -> Reranker | None:
        root = self.root if self.root is not None and self.root.is_dir() else None
        if root is None and not self._store.manifest.local:
            if self.root is not None and not self._has_warned:
                log.warning("The photos are not in %s, so results are not re-ranked.", self.root)
                self._has_warned = True
            return None
        return Reranker(root, self.spec, engine or self.engine, self._latest.kept_features)

    def _find_weights(self, named: Path | None) -> WeightsFile:
        spec, remembered = self.spec, self._store.manifest.weights_file
        last = Path(remembered) if remembered is not None else None
        return find_again(spec.model, spec.layer, spec.weights_sha256, named, last)


# For `evaluation`, which needs the internals of an index.


def searcher_of(index: ImageIndex, whitening: WhiteningOptions | None = None) -> Searcher:
    """Return the searcher over the last committed state of an index: its rows, paths and all similarities.

    With `whitening`, it is built in memory, with a new whitening learned with these options.
    """
    return index._latest.searcher(whitening)


def reranker_of(index: ImageIndex) -> Reranker | None:
    """Return the reranker of an index; None if the photos are not available, which is logged once."""
    return index._reranker()
