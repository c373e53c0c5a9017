"""Merge indexes of slices of one photo folder into one index, without running the network."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vggsearch.errors import IndexExists, OptionError, PhotosError, SpecMismatch, Spelled
from vggsearch.indexing.build import renew_vector_index
from vggsearch.indexing.update import is_same_folder
from vggsearch.photos.addresses import is_address
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.store.contents import DECISIONS, JOURNALS, MANIFEST
from vggsearch.store.decisions import import_decisions
from vggsearch.store.paths import Paths
from vggsearch.store.stamps import read_stamps, write_stamps
from vggsearch.store.store import Store
from vggsearch.store.writer import writing
from vggsearch.system.places import from_home

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergeReport:
    """What a merge made: an index in `directory` with `photos` and `skipped` files, from so many `indexes`.

    >>> report = merge(["indexes/photos"], "indexes/merged")
    >>> report.indexes, report.photos
    (1, 4)
    """

    directory: Path
    indexes: int
    photos: int
    skipped: int


def merge(
    indexes: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> MergeReport:
    """Merge `indexes` of the same photo folder, made with the same options, into a new index in `directory`.

    The rows are those of the indexes, one after the other; their files are hard-linked, or copied to another disk.
    Photos, local features, skipped files and decisions are taken over; the FAISS index is built anew, without what
    was learned from labels. The indexes stay as they are. All is committed in one step: after an interruption,
    merge again.

    Raises PhotosError if the indexes are of different folders or hold a photo twice, SpecMismatch if embeddings
    differ, IndexExists unless `directory` is new or what an interrupted merge left, IndexMissing, IndexDamaged,
    IndexLocked, IndexNotWritable, and Stopped, after which an update builds the FAISS index.

    >>> for number in (1, 2):
    ...     with ImageIndex.for_photos("photos", f"slices/{number}") as part:
    ...         report = part.update("photos", slice=f"{number}/2")
    >>> merge(["slices/1", "slices/2"], "indexes/merged").photos
    4
    """
    sources = [Store.open(from_home(each)) for each in indexes]
    root = _check_fit(sources)
    store = _empty_store(from_home(directory), sources[0])
    for source in sources:
        _take_decisions(source, store)
    with writing(store) as writer:
        _check_empty(store)
        writer.set_root(root)
        writer.adopt(sources)
        write_stamps(store.directory, read_stamps(*(source.directory for source in sources)))
        renew_vector_index(store, writer, Monitor(progress, stop))
    for source in sources:
        if not source.is_up_to_date:
            log.warning("%s was updated while it was merged: update the merged index.", source.directory)
    return MergeReport(store.directory, len(sources), len(store), len(store.skipped()))


def _check_fit(sources: Sequence[Store]) -> Path:
    """Return the photo folder that indexes have in common.

    Raises PhotosError for different folders and for a photo in two of them, SpecMismatch for different embeddings.
    """
    if not sources:
        raise OptionError("There is nothing to merge: name the indexes.")
    first, root = sources[0], _root(sources[0])
    for other in sources[1:]:
        if other.spec != first.spec:
            raise SpecMismatch(
                f"{first.directory} contains embeddings of {first.spec}, which cannot be compared with those of "
                f"{other.spec} in {other.directory}."
            )
        if not is_same_folder(_root(other), root):
            raise PhotosError(f"{first.directory} is the index of {root}, but {other.directory} of {_root(other)}.")
    twice = Paths.joined(source.paths() for source in sources).repeated()
    if twice:
        both = [source.directory for source in sources if twice[0] in source.paths()]
        raise PhotosError(
            f"{len(twice):,} photos are in several of the indexes: {twice[0]} is in {both[0]} and {both[-1]}. "
            "If the folder changed between their runs, update each of them.",
        )
    return root


def _root(store: Store) -> Path:
    if store.root is None:
        raise PhotosError(f"{store.directory} holds no photos yet.")
    return store.root if is_address(store.root) else store.root.resolve()


def _empty_store(directory: Path, like: Store) -> Store:
    """Return an index without photos in `directory`: a new one, or what an interrupted merge left."""
    if not (directory / MANIFEST).exists():
        weights_file = like.manifest.weights_file
        return Store.create(directory, like.spec, Path(weights_file) if weights_file is not None else None)
    store = Store.open(directory)
    _check_empty(store)
    if store.spec != like.spec:
        raise IndexExists(f"{directory} is already an index, of {store.spec}: merge into a new one.")
    return store


def _check_empty(store: Store) -> None:
    if len(store) or store.skipped():
        raise IndexExists(
            f"{store.directory} is already an index, with {len(store):,} photos. Merge into a new one",
            Spelled(".", ": --index FOLDER."),
        )


def _take_decisions(source: Store, into: Store) -> None:
    if (source.directory / DECISIONS).exists():
        import_decisions(into.directory, source.directory / DECISIONS)
    if any((source.directory / JOURNALS).glob("*.jsonl")):
        log.warning("Removals that can be undone are still listed in %s.", source.directory / JOURNALS)
