"""The indexes that a query searches: each in one committed state, with similarities on one scale."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError, SpecMismatch, Spelled
from vggsearch.knn.vector_index import Selection
from vggsearch.matching.rerank import Reranker
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.photos.inputs import ImageLike, name_of
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import Match, Searcher
from vggsearch.query.snapshot import LatestSnapshot, Snapshot, folder_of
from vggsearch.system.places import from_home

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """An index that can be searched. `root` is its photo folder, `engine` loads the network.

    `reranker` returns the reranker for a network, None if neither photos nor local features are available, and
    `decoders` the decoder processes.
    """

    directory: Path
    root: Path | None
    spec: EmbeddingSpec
    present: LatestSnapshot
    engine: Callable[[], Engine]
    reranker: Callable[[Engine], Reranker | None]
    decoders: Callable[[], Decoders]

    def path_of(self, image: ImageLike) -> str | None:
        """Return the path of a file below the photo folder as the index would name it, None for anything else."""
        if not isinstance(image, str | os.PathLike) or self.root is None or "\0" in os.fspath(image):
            return None
        file, root = (Path(os.path.realpath(each)) for each in (from_home(image), self.root))  # of a loop, too
        return file.relative_to(root).as_posix() if file.is_relative_to(root) else None


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
        return [_view_of(targets[0], images, options, None)]
    searchers = [target.present.read(lambda state: _searcher(state, options)) for target in targets]
    reference = max(searchers, key=lambda searcher: len(searcher.paths))
    return [_view_of(target, images, options, reference) for target in targets]


def looked_at(indexes: Sequence[TargetView]) -> int:
    """Return the number of photos that a query searches."""
    return sum(len(each.searcher.paths) if each.wanted is None else each.wanted.count for each in indexes)


def folders_of(targets: Sequence[Target]) -> dict[str | None, Path | None]:
    """Return the photo folder of each index, by its name in matches: None if there is only one."""
    return {str(each.directory) if len(targets) > 1 else None: each.root for each in targets}


def own_path_in(target: Target, image: ImageLike, options: QueryOptions) -> str | None:
    """Return the path of the query image in an index, None if it is not in it, or is cropped."""
    return target.path_of(image) if options.crop is None else None


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


def _view_of(
    target: Target, images: Sequence[ImageLike], options: QueryOptions, reference: Searcher | None
) -> TargetView:
    paths = [path for path in map(target.path_of, images) if path is not None]
    without = {folder_of(path) for path in paths} if options.exclude_same_folder else ()
    own_path = own_path_in(target, images[0], options) if len(images) == 1 else None
    name = str(target.directory) if reference is not None else None

    def read(state: Snapshot) -> TargetView:
        searcher = state.with_whitening_of(reference) if reference is not None else _searcher(state, options)
        contents = _contents(state, target) if options.containing else np.empty(0, object)
        return TargetView(name, target, searcher, state.wanted(options.filters, without), own_path, contents)

    return target.present.read(read)


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
