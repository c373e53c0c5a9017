"""The indexes that one query asks: each in one committed state, their similarities on one scale."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.knn.vector_index import Selection
from vggsearch.matching.rerank import Reranker
from vggsearch.model.engine import Engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.inputs import ImageLike, name_of
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import Match, Searcher
from vggsearch.query.snapshot import LatestSnapshot, Snapshot, folder_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """An index that can be asked. `root` is its photo folder, `engine` loads the network.

    `aligner` gives what checks answers with a network, None where there are no photos to look at.
    """

    directory: Path
    root: Path | None
    spec: EmbeddingSpec
    present: LatestSnapshot
    engine: Callable[[], Engine]
    reranker: Callable[[Engine], Reranker | None]

    def path_of(self, image: ImageLike) -> str | None:
        """Return the path of a file below the photo folder as the index would name it, None for all else."""
        if not isinstance(image, str | os.PathLike) or self.root is None:
            return None
        file, root = Path(image).resolve(), self.root.resolve()
        return file.relative_to(root).as_posix() if file.is_relative_to(root) else None


@dataclass(frozen=True)
class TargetView:
    """An index as one query sees it: the search, and the photos that are wanted, None for all.

    `name` is told with each match where several indexes are asked, else None. `own_path` is the photo that the
    query is, if it is one of these. `contents` is the sha256 of each photo by row, where parts are looked for, else
    empty.
    """

    name: str | None
    target: Target
    searcher: Searcher
    wanted: Selection | None
    own_path: str | None
    contents: NDArray[Any]

    def labelled(self, matches: Iterable[Match]) -> list[Match]:
        """Return matches with the name of the index."""
        return [replace(match, index=self.name) for match in matches]


def views_of(targets: Sequence[Target], images: Sequence[ImageLike], options: QueryOptions) -> list[TargetView]:
    """Return each index as a query of some pictures sees it, in order; see ImageIndex.query.

    Of several, all are searched with the whitening of the one with the most photos, of equals the first.
    """
    check_targets(targets)
    if options.exclude_same_folder:
        _tell_outside(targets, images)
    if len(targets) == 1:
        return [_view_of(targets[0], images, options, None)]
    reference = max((target.present.searcher() for target in targets), key=lambda searcher: len(searcher.paths))
    return [_view_of(target, images, options, reference) for target in targets]


def folders_of(targets: Sequence[Target]) -> dict[str | None, Path | None]:
    """Return the photo folder of each index, by the name that matches give it: None where there is but one."""
    return {str(each.directory) if len(targets) > 1 else None: each.root for each in targets}


def own_path_in(target: Target, image: ImageLike, options: QueryOptions) -> str | None:
    """Return which photo of an index a query is, None where it is none, or a part of one."""
    return target.path_of(image) if options.crop is None else None


def check_targets(targets: Sequence[Target]) -> None:
    """Raise OptionError where one index is named twice, SpecMismatch where two hold different embeddings."""
    places = [target.directory.resolve() for target in targets]
    for place, target in zip(places, targets, strict=True):
        if places.count(place) > 1:
            raise OptionError(f"{target.directory} is named twice. Name each index once.")
    first = targets[0]
    for other in targets:
        if other.spec != first.spec:
            raise SpecMismatch(
                f"{first.directory} holds embeddings of {first.spec}, {other.directory} of {other.spec}: they "
                "cannot be compared. Ask them one by one."
            )


def _view_of(
    target: Target, images: Sequence[ImageLike], options: QueryOptions, reference: Searcher | None
) -> TargetView:
    paths = [path for path in map(target.path_of, images) if path is not None]
    without = {folder_of(path) for path in paths} if options.exclude_same_folder else ()
    own_path = own_path_in(target, images[0], options) if len(images) == 1 else None
    name = str(target.directory) if reference is not None else None

    def read(state: Snapshot) -> TargetView:
        searcher = state.with_whitening_of(reference) if reference is not None else state.searcher
        contents = _contents(state, target) if options.containing else np.empty(0, object)
        return TargetView(name, target, searcher, state.wanted(options.filters, without), own_path, contents)

    return target.present.read(read)


def _contents(state: Snapshot, target: Target) -> NDArray[Any]:
    if state.local is None:
        raise OptionError(
            f"{target.directory} keeps no local features, by which parts are found. Make them: "
            f"vggsearch index PHOTOS --index {target.directory} --local-features"
        )
    return state.column("sha256")


def _tell_outside(targets: Sequence[Target], images: Sequence[ImageLike]) -> None:
    """Log which pictures lie in no photo folder, so that there is none to leave out."""
    for image in images:
        if all(target.path_of(image) is None for target in targets):
            folders = ", ".join(str(target.root) for target in targets)
            log.warning("%s is not in %s: no folder is left out for it.", name_of(image), folders)
