"""Update a store to match its photo folder: new, changed, deleted and unchanged photos."""

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from vggsearch.defaults import EXTRACT
from vggsearch.errors import OptionError, PhotosError, Stopped, option
from vggsearch.indexing.build import renew_vector_index
from vggsearch.indexing.extract import extract
from vggsearch.indexing.hashing import hash_files
from vggsearch.indexing.head_start import HeadStart
from vggsearch.indexing.local_features import keep_local_features, most_by_default
from vggsearch.indexing.update_plan import UpdatePlan, plan_update
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.model.engine import Engine
from vggsearch.photos.addresses import address_of, is_address, settled
from vggsearch.photos.slices import Slice
from vggsearch.photos.sources import holds_nothing, walk_photos
from vggsearch.photos.walk import PhotoFile, Skipped, SkippedFiles
from vggsearch.progress import SILENT, Monitor
from vggsearch.removal.interrupted import warn_of_interrupted
from vggsearch.store.contents import JOURNALS
from vggsearch.store.known_files import known_files
from vggsearch.store.local_features import ROWS, StoredFeatures
from vggsearch.store.parts import BYTES_PER_DIMENSION
from vggsearch.store.records import Embedded
from vggsearch.store.reuse import KnownContent
from vggsearch.store.stamps import forget_stamps, renew_stamps
from vggsearch.store.store import Store
from vggsearch.store.writer import StoreWriter, writing
from vggsearch.system.gpus import cuda_gpus

log = logging.getLogger(__name__)

LoadEngine = Callable[[int], Engine]  # for a number of photos
Extract = Callable[..., Generator[Embedded | Skipped, None, None]]  # as extract.extract
CHECKED_AT_ONCE = 256  # files of a walk between two looks at whether to stop


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    `indexed` photos were embedded; `reused` photos, such as renamed, moved and copied ones, took the embedding of a
    photo with the same bytes; `unchanged` were kept, `gone` dropped. `skipped` lists every file that could not be
    indexed, including those of earlier runs, by path; `newly_skipped` those of this run. `photos` is the number of
    photos now in the index.

    >>> report = index.update()
    >>> report.indexed, report.reused, report.unchanged, report.gone
    (0, 0, 4, 0)
    """

    indexed: int
    reused: int
    unchanged: int
    gone: int
    skipped: SkippedFiles
    newly_skipped: SkippedFiles
    photos: int
    seconds: float


@dataclass
class _Part:
    """What is not yet committed: embedded photos, and indexed paths whose file is no longer a usable photo."""

    dim: int
    photos: list[Embedded] = field(default_factory=list)
    features: dict[str, StoredFeatures] = field(default_factory=dict)  # by the SHA-256 of a photo
    lost: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        size = len(self.photos) * self.dim * BYTES_PER_DIMENSION
        is_large = size >= EXTRACT.part_bytes or len(self.features) >= ROWS
        return is_large or time.monotonic() - self.started >= EXTRACT.part_seconds


class _Update:
    """A running update: `skipped` are the unusable files, by path; `part` is what is committed next.

    `todo` are the files to embed. `settled` are the paths of suspects and of files to embed that are dealt with.
    """

    def __init__(
        self, store: Store, writer: StoreWriter, plan: UpdatePlan, thread: ThreadPoolExecutor, extract: Extract
    ) -> None:
        self.store, self.writer, self.plan = store, writer, plan
        self._extract = extract
        self.todo, self.settled = list(plan.todo), set[str]()
        self._thread = thread  # writes a part while the photos of the next are embedded
        self._writing: Future[None] | None = None
        self.started, self.photos_before = time.monotonic(), len(store)
        self.skipped: dict[str, Skipped] = dict(plan.skipped)
        self.newly_skipped: list[Skipped] = []
        self.indexed = self.reused = self.gone = 0
        self.unchanged = plan.unchanged
        self.part = _Part(store.spec.dim)

    def reread(self, root: Path, workers: int | None, monitor: Monitor) -> bool:
        """Read the suspects; those with other bytes have to be embedded. Return whether all of them were read."""
        keys = self.store.sha256s({file.path for file in self.plan.suspects})
        try:
            for file, sha256 in hash_files(self.plan.suspects, root, workers, monitor):
                if sha256 == keys[file.path]:
                    self.settled.add(file.path)
                    self.unchanged += 1
                else:
                    self.todo.append(file)
        except Stopped:
            return False
        return True

    def embed(self, root: Path, load_engine: LoadEngine, workers: int | None, monitor: Monitor) -> bool:
        """Embed the files to do and commit them part by part; return whether all of them were embedded.

        The network is loaded only if there is something to embed. If the index stores local features, they are
        computed in the same pass.
        """
        engine: Engine | None = None
        has_local = self.store.manifest.has_local
        self.known = KnownContent(self.store, self.todo)

        def show(done: int) -> None:
            note = str(engine or "")
            if engine is not None and self.newly_skipped:
                note += f", {len(self.newly_skipped):,} skipped"
            monitor.show("embedding photos", done, len(self.todo), note=note)

        def loaded() -> Engine:
            nonlocal engine
            engine = load_engine(len(self.todo))
            engine.prepare(levels=int(has_local))
            show(0)
            return engine

        items = self._extract(
            self.todo,
            root,
            self.store.spec,
            loaded,
            known=self.known,
            workers=workers,
            with_features=has_local,
        )
        with closing(items):
            try:
                for done, item in enumerate(items, start=1):
                    self._take(item)
                    show(done)
                    is_last = done == len(self.todo) and not self.plan.gone  # while GPU processes end
                    if self.part.is_full or is_last:
                        self._commit()
                    monitor.check()
            except Stopped:
                self._commit()
                self._wait()
                return False
        return True

    def finish(self, root: Path, *, allow_empty: bool) -> None:
        """Commit the rest, and drop deleted photos.

        They are dropped last: until then, their embeddings may be needed for renamed files. Unless `allow_empty`,
        raises PhotosError if none of the photos is left, under its old name or another.
        """
        if not allow_empty and self.plan.loses_too_many(self.photos_before, self.reused, root):
            self._commit()
            self._wait()
            raise too_many_gone(self.photos_before, len(self.plan.gone) - self.reused, self.store, root)
        self._commit(self.plan.gone)
        self._wait()
        self.gone = len(self.plan.gone)

    def keep_stamps(self) -> None:
        """Record the stamps of all files whose bytes are known; that of any other stays as it was recorded."""
        if self.plan.are_stamps_current:
            return
        unsettled = {file.path for file in (*self.plan.suspects, *self.plan.todo)} - self.settled
        new = {path: stamp for path, stamp in self.plan.stamps.items() if path not in unsettled}
        renew_stamps(self.store.directory, new, self.store.paths(), self.skipped)

    def report(self) -> UpdateReport:
        return UpdateReport(
            indexed=self.indexed,
            reused=self.reused,
            unchanged=self.unchanged,
            gone=self.gone,
            skipped=SkippedFiles(self.skipped[path] for path in sorted(self.skipped)),
            newly_skipped=SkippedFiles(self.newly_skipped),
            photos=len(self.store),
            seconds=time.monotonic() - self.started,
        )

    def _take(self, item: Embedded | Skipped) -> None:
        if isinstance(item, Embedded):
            self.indexed += not item.is_reused
            self.reused += item.is_reused
            if item.features is not None:
                self.part.features[item.sha256] = item.features
                item = replace(item, features=None)
            self.known.remember(item)
            self.part.photos.append(item)
            self.settled.add(item.file.path)
            return
        self.newly_skipped.append(item)
        self.skipped[item.path] = item
        if item.kind != "unreadable":
            self.part.lost.append(item.path)
            self.settled.add(item.path)

    def _commit(self, gone: Sequence[str] = ()) -> None:
        """Begin to commit the part, once the one before is committed."""
        self._wait()
        part, self.part = self.part, _Part(self.store.spec.dim)
        self._writing = self._thread.submit(self._write, part, gone, dict(self.skipped))

    def _write(self, part: _Part, gone: Sequence[str], skipped: dict[str, Skipped]) -> None:
        self.writer.commit(part.photos, [*part.lost, *gone], skipped)
        self.writer.add_local(part.features)

    def _wait(self) -> None:
        """Wait until what was begun is committed. Raises the errors of StoreWriter.commit."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def update_index(
    store: Store,
    root: Path,
    load_engine: LoadEngine,
    *,
    workers: int | None = None,
    allow_empty: bool = False,
    retry_skipped: bool = False,
    rehash: bool = False,
    compact: bool = False,
    whiten: bool | None = None,
    local_features: bool | None = None,
    part: Slice | None = None,
    inventory: Path | None = None,
    embed: Extract = extract,
    tasks: Tasks = HERE,
    monitor: Monitor = SILENT,
) -> UpdateReport:
    """Embed new and changed photos below `root`, drop deleted ones, then update all derived data.

    `embed` does the work, and `tasks` some of that for the FAISS index, on this machine by default. See
    ImageIndex.update. Raises PhotosError, IndexLocked, IndexNotWritable; InstallationError without FAISS, and
    Stopped, with the report of what was done, both after committing the embeddings. The FAISS index is also updated
    after a stop, unless the stop came while it was being built.
    """
    if workers is not None and workers < 1:
        raise OptionError(option("workers", workers), " is out of range: at least 1.")
    if local_features and not store.spec.has_cells:
        raise OptionError(
            f"{store.spec.network} has no local features, only VGG has: leave out ", option("local_features"), "."
        )
    with (
        writing(store) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="commit") as thread,
        HeadStart(load_engine) as start,
    ):
        found: Iterable[PhotoFile | Skipped] = _checked(walk_photos(root, store.directory, inventory), monitor)
        if not len(store) and embed is extract:
            found = start.during(found)
        if part is not None:
            found = _in_slice(found, part, store, root)
        plan = plan_update(
            found,
            known_files(store),
            store.skipped(),
            retry_skipped=retry_skipped,
            rehash=rehash,
            are_versions=is_address(root),
        )
        if not allow_empty:
            refuse_to_empty(plan, store, root)
        is_new = store.manifest.root is None
        writer.set_root(root)
        warn_of_interrupted(store.directory / JOURNALS, root)
        if whiten is not None:
            writer.set_whitened(whiten)
        if local_features is None and is_new and part is None and embed is extract:
            local_features = len(plan.todo) <= most_by_default(store.spec) and not cuda_gpus()
        if local_features is not None:
            writer.set_local(local_features)
        if is_address(root):  # a stamp alone says there that a photo is as it was, so none may outlive its row
            forget_stamps(store.directory, [file.path for file in plan.todo])
        update = _Update(store, writer, plan, thread, embed)
        try:
            is_whole = update.reread(root, workers, monitor) and update.embed(root, load_engine, workers, monitor)
            if is_whole:
                update.finish(root, allow_empty=allow_empty)
            update.keep_stamps()
            renew_vector_index(store, writer, monitor if is_whole else SILENT, tasks)
            if not is_whole:
                raise Stopped
            if store.manifest.has_local:
                keep_local_features(store, writer, root, load_engine, workers=workers, monitor=monitor)
            _compact(writer, only_if_due=not compact)
        except Stopped as stopped:
            raise Stopped(report=update.report()) from stopped
    return update.report()


def photo_folder(
    store: Store, known: Path | None, folder: str | os.PathLike[str] | None, *, is_moved: bool = False
) -> Path:
    """Return the photo folder to update an index from: `folder`, or the `known` one.

    Raises PhotosError if there is neither, or if `folder` is not the known one, unless `is_moved`.
    """
    if folder is None:
        if known is None:
            raise PhotosError(f"{store.directory} has no photo folder yet: name one.")
        return known
    root = settled(Path(folder))
    if known is not None and not is_moved and not is_same_folder(root, known):
        raise PhotosError(
            f"{store.directory} is the index of {address_of(known)}, not of {address_of(root)}: updating it would "
            f"drop its {len(store):,} photos. Use another index or, if these are the same photos elsewhere, pass ",
            option("moved"),
            ".",
        )
    return root


def is_same_folder(one: Path, other: Path) -> bool:
    """Return whether two paths are the same folder, as Photos and photos on a case-insensitive file system."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


def _in_slice(
    found: Iterable[PhotoFile | Skipped], part: Slice, store: Store, root: Path
) -> Iterable[PhotoFile | Skipped]:
    """Return what is in a slice of the photo folder. Raises PhotosError for the index of another slice."""
    inside = list(part.of(found))
    if len(store) and {file.path for file in inside}.isdisjoint(store.paths()):
        raise PhotosError(
            f"None of the {len(store):,} photos in {store.directory} is in slice {part} of {root}: updating it "
            "would drop them all. Use an index for each slice."
        )
    return inside


def _checked(found: Iterable[PhotoFile | Skipped], monitor: Monitor) -> Iterator[PhotoFile | Skipped]:
    source = iter(found)
    while some := list(islice(source, CHECKED_AT_ONCE)):
        monitor.check()
        yield from some


def _compact(writer: StoreWriter, *, only_if_due: bool) -> None:
    """Merge small parts. Call it after the FAISS index is updated: merging prevents extending the previous one."""
    before, after = writer.compact(only_if_due=only_if_due)
    if after < before:
        log.info("%d parts were merged into %d.", before, after)


def refuse_to_empty(plan: UpdatePlan, store: Store, root: Path) -> None:
    """Raise PhotosError if an update would drop every photo, as it would if the disk is not mounted.

    The mount point may contain other files. Only if one of them has the size of an indexed photo, the photos may
    have been renamed; the update then finds out. See also UpdatePlan.loses_too_many.
    """
    if is_address(root) and not (len(store) or plan.todo or plan.skipped):
        raise holds_nothing(root)
    if not plan.loses_too_many(len(store), 0, root):
        return
    known = KnownContent(store, plan.todo)
    found = sum(map(known.may_know, plan.todo))
    if plan.loses_too_many(len(store), found, root):
        raise too_many_gone(len(store), len(plan.gone) - found, store, root)


def too_many_gone(before: int, gone: int, store: Store, root: Path) -> PhotosError:
    """Return the error for a place that lacks `gone` of the `before` photos of a store; a folder, all of them."""
    if is_address(root):
        return PhotosError(
            f"{address_of(root)} lists {gone:,} of the {before:,} photos in {store.directory} no longer. "
            "Is the list complete? If they were really deleted, pass ",
            option("allow_empty"),
            ".",
        )
    return PhotosError(
        f"{root} holds none of the {before:,} photos in {store.directory}. "
        "Is its disk mounted? If they were really deleted, pass ",
        option("allow_empty"),
        ".",
    )
