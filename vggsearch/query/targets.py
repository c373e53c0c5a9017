"""The indexes that a query searches: each in one committed state, with similarities on one scale."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError, SpecMismatch, Spelled
from vggsearch.knn.vector_index import Selection
from vggsearch.matching.regions import best_similarities
from vggsearch.matching.rerank import Reranker
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.addresses import is_address, settled
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.photos.inputs import ImageLike, name_of
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import Match, Searcher
from vggsearch.query.snapshot import LatestSnapshot, Snapshot, folder_of
from vggsearch.system.places import from_home

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target(ABC):
    """What can be searched. `root` is the photo folder, `engine` loads the network.

    `reranker` returns the reranker for a network, None if neither photos nor local features are available, and
    `decoders` the decoder processes.
    """

    directory: Path
    root: Path | None
    spec: EmbeddingSpec
    engine: Callable[[], Engine]
    reranker: Callable[[Engine], Reranker | None]
    decoders: Callable[[], Decoders]

    def path_of(self, image: ImageLike) -> str | None:
        """Return the path of a file below the photo folder as the index would name it, None for anything else."""
        if not isinstance(image, str | os.PathLike) or self.root is None or "\0" in os.fspath(image):
            return None
        file, root = settled(from_home(image)), self.root
        if is_address(file) or is_address(root):
            return file.relative_to(root).as_posix() if file.is_relative_to(root) else None
        file, root = (Path(os.path.realpath(each)) for each in (file, root))  # of a loop, too
        return file.relative_to(root).as_posix() if file.is_relative_to(root) else None

    @abstractmethod
    def searcher(self, options: QueryOptions) -> Searcher:
        """Return the searcher for such a query."""

    @abstractmethod
    def view(self, images: Sequence[ImageLike], options: QueryOptions, reference: Searcher | None) -> "TargetView":
        """Return it as a query of these pictures sees it; of several, with the whitening of `reference`."""

    @abstractmethod
    def similarities_of_regions(self, parts: NDArray[np.float32]) -> dict[str, float]:
        """Return the similarity of the best region of each photo to any of the vectors (m, d), by sha256."""

    def folders_without(self, images: Sequence[ImageLike], options: QueryOptions) -> set[str]:
        """Return the folders whose photos are not wanted."""
        paths = [path for path in map(self.path_of, images) if path is not None]
        return {folder_of(path) for path in paths} if options.exclude_same_folder else set()

    def own_path(self, images: Sequence[ImageLike], options: QueryOptions) -> str | None:
        """Return the path of the query image in the index, None if it is not in it, cropped, or one of several."""
        return self.path_of(images[0]) if len(images) == 1 and options.crop is None else None


@dataclass(frozen=True)
class IndexTarget(Target):
    """An index on this machine; `present` is its last committed state."""

    present: LatestSnapshot

    def searcher(self, options: QueryOptions) -> Searcher:
        """Return the searcher for such a query."""
        return self.present.read(lambda state: _searcher(state, options))

    def view(self, images: Sequence[ImageLike], options: QueryOptions, reference: Searcher | None) -> "TargetView":
        """Return it as a query of these pictures sees it; of several, with the whitening of `reference`."""
        without, own_path = self.folders_without(images, options), self.own_path(images, options)
        name = str(self.directory) if reference is not None else None

        def read(state: Snapshot) -> TargetView:
            searcher = state.with_whitening_of(reference) if reference is not None else _searcher(state, options)
            contents = _contents(state, self) if options.containing else np.empty(0, object)
            return TargetView(name, self, searcher, state.wanted(options.filters, without), own_path, contents)

        return self.present.read(read)

    def similarities_of_regions(self, parts: NDArray[np.float32]) -> dict[str, float]:
        """Return the similarity of the best region of each photo to any of the vectors (m, d), by sha256."""

        def read(state: Snapshot) -> dict[str, float]:
            kept = state.local.regions() if state.local is not None else ()
            return {
                key: similarity
                for keys, regions in kept
                for key, similarity in zip(keys, best_similarities(parts, regions).tolist(), strict=True)
            }

        return self.present.read(read)


@dataclass(frozen=True)
class TargetView:
    """An index as one query sees it: the searcher, and the wanted photos, None for all.

    `name` is the name of the index in matches, None unless several indexes are searched. `own_path` is the path of
    the query image, if it is in the index. `contents` is the sha256 of each photo by row for a containment query,
    else empty.
    """

    name: str | None
    target: Target
    searcher: Searcher
    wanted: Selection | None
    own_path: str | None
    contents: NDArray[Any]

    def labelled(self, matches: Iterable[Match]) -> list[Match]:
        """Return the matches with the name of the index."""
        return [replace(match, index=self.name) for match in matches]


def views_of(targets: Sequence[Target], images: Sequence[ImageLike], options: QueryOptions) -> list[TargetView]:
    """Return the view of each index for a query of the given pictures, in order; see ImageIndex.query.

    Several indexes are all searched with the whitening of the one with the most photos, the first if tied. What was
    learned from labels does not apply to `containing`: parts of photos have none.
    """
    check_targets(targets)
    if options.exclude_same_folder:
        _warn_of_outside(targets, images)
    if len(targets) == 1:
        return [targets[0].view(images, options, None)]
    reference = max((target.searcher(options) for target in targets), key=len)
    return [target.view(images, options, reference) for target in targets]


def looked_at(indexes: Sequence[TargetView]) -> int:
    """Return the number of photos that a query searches."""
    return sum(len(each.searcher) if each.wanted is None else each.wanted.count for each in indexes)


def folders_of(targets: Sequence[Target]) -> dict[str | None, Path | None]:
    """Return the photo folder of each index, by its name in matches: None if there is only one."""
    return {str(each.directory) if len(targets) > 1 else None: each.root for each in targets}


class Searchable(Protocol):
    """Anything that stands for an index."""

    @property
    def directory(self) -> Path:
        """The folder of the index."""

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings are computed with."""


def check_targets(targets: Sequence[Searchable]) -> None:
    """Raise OptionError if an index is named twice, SpecMismatch if two hold different embeddings."""
    places = [target.directory.resolve() for target in targets]
    for place, target in zip(places, targets, strict=True):
        if places.count(place) > 1:
            raise OptionError(f"{target.directory} is named twice. Name each index once.")
    first = targets[0]
    for other in targets:
        if other.spec != first.spec:
            raise SpecMismatch(
                f"{first.directory} holds embeddings of {first.spec}, {other.directory} of {other.spec}: they "
                "cannot be compared. Search them one by one."
            )


def _searcher(state: Snapshot, options: QueryOptions) -> Searcher:
    return state.searcher if options.containing else state.query_searcher


def _contents(state: Snapshot, target: Target) -> NDArray[Any]:
    if not state.store.spec.has_cells:
        raise OptionError(f"This search needs local features, which {state.store.spec.network} does not have.")
    if state.local is None:
        raise OptionError(
            f"{target.directory} has no local features, which this search needs. Create them: ",
            Spelled(
                "index.update(local_features=True)",
                f"vggsearch index PHOTOS --index {target.directory} --local-features",
            ),
        )
    return state.column("sha256")


def _warn_of_outside(targets: Sequence[Target], images: Sequence[ImageLike]) -> None:
    """Warn of pictures outside all photo folders, for which no folder can be excluded."""
    for image in images:
        if all(target.path_of(image) is None for target in targets):
            folders = ", ".join(str(target.root) for target in targets)
            log.warning("%s is not in %s: no folder is excluded for it.", name_of(image), folders)
