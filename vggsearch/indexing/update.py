"""Bring a store in line with its photo folder: what is new, what changed, what is gone, what stays."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vggsearch.defaults import EXTRACT
from vggsearch.errors import PhotosError, option
from vggsearch.indexing.extract import extract
from vggsearch.model.engine import Engine
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.progress import OnProgress, Progress, Stop
from vggsearch.store.records import Embedded
from vggsearch.store.reuse import KnownContent
from vggsearch.store.store import Store
from vggsearch.store.writer import StoreWriter

BYTES_PER_NUMBER = 2  # float16, as the store keeps them


@dataclass(frozen=True)
class UpdatePlan:
    """What an update has to do.

    `todo` are the files to embed, in walk order; `gone` the paths to drop; `skipped` the files already known
    to be unusable, by path; `unchanged` counts the photos that stay as they are.
    """

    todo: tuple[PhotoFile, ...]
    gone: tuple[str, ...]
    skipped: Mapping[str, Skipped]
    unchanged: int

    def empties(self, photos: int) -> bool:
        """Whether none of the `photos` there are would be left of a store."""
        return 0 < photos == len(self.gone)


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    `indexed` photos were embedded; `reused` took the embedding of a photo with the same bytes, as renamed, moved
    and copied ones do; `unchanged` were kept, `gone` dropped; `skipped` lists every file that could not
    be used, those of earlier runs too, by path, and `newly_skipped` the ones found in this run. `photos` is how
    many the index now holds. `stopped` says that it was asked to end early and kept what was done.
    """

    indexed: int
    reused: int
    unchanged: int
    gone: int
    skipped: tuple[Skipped, ...]
    newly_skipped: tuple[Skipped, ...]
    photos: int
    seconds: float
    stopped: bool


def plan_update(
    found: Iterable[PhotoFile | Skipped],
    known: Mapping[str, PhotoFile],
    known_skipped: Mapping[str, Skipped],
    *,
    retry_skipped: bool = False,
) -> UpdatePlan:
    """Compare what the walk found with what the store knows; a file is unchanged if its size and time are.

    What lies at or below an unreadable path is neither gone nor changed: it stays.
    """
    todo: list[PhotoFile] = []
    skipped: dict[str, Skipped] = {}
    seen: set[str] = set()
    unreadable: list[str] = []
    for file in found:
        if isinstance(file, Skipped):
            skipped[file.path] = file
            if file.kind == "unreadable":
                unreadable.append(file.path)
            continue
        seen.add(file.path)
        before = known_skipped.get(file.path)
        if known.get(file.path) == file:
            continue
        if before is not None and not retry_skipped and _is_same_failure(before, file):
            skipped[file.path] = before
            continue
        todo.append(file)
    unseen = (path for path in known if path not in seen)
    dropped = [path for path in skipped if path in known and path in seen]
    gone = [path for path in unseen if not _is_below(path, unreadable)] + dropped
    changed = sum(file.path in known for file in todo)
    return UpdatePlan(tuple(todo), tuple(gone), skipped, len(known) - len(gone) - changed)


def _is_same_failure(before: Skipped, file: PhotoFile) -> bool:
    same_file = (before.bytes, before.mtime_ns) == (file.bytes, file.mtime_ns)
    return same_file and before.kind != "unreadable"


def _is_below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


@dataclass
class _Part:
    """What was worked on and is not yet committed: photos embedded, and paths whose file no longer is a photo."""

    dim: int
    photos: list[Embedded] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        size = len(self.photos) * self.dim * BYTES_PER_NUMBER
        return size >= EXTRACT.part_bytes or time.monotonic() - self.started >= EXTRACT.part_seconds


@dataclass
class _Run:
    """An update at work: `skipped` is all that cannot be used, by path; `part` is what the next commit takes."""

    writer: StoreWriter
    dim: int
    known: KnownContent
    skipped: dict[str, Skipped]
    newly_skipped: list[Skipped] = field(default_factory=list)
    indexed: int = 0
    reused: int = 0
    part: _Part = field(init=False)

    def __post_init__(self) -> None:
        self.part = _Part(self.dim)

    def take(self, item: Embedded | Skipped) -> None:
        if isinstance(item, Embedded):
            self.indexed += not item.is_reused
            self.reused += item.is_reused
            self.known.remember(item)
            self.part.photos.append(item)
            return
        self.newly_skipped.append(item)
        self.skipped[item.path] = item
        if item.kind != "unreadable":
            self.part.lost.append(item.path)

    def commit(self, gone: Sequence[str] = ()) -> None:
        self.writer.commit(self.part.photos, [*self.part.lost, *gone], self.skipped)
        self.part = _Part(self.dim)


def run_update(
    store: Store,
    writer: StoreWriter,
    plan: UpdatePlan,
    known: KnownContent,
    root: Path,
    load_engine: Callable[[], Engine],
    *,
    workers: int | None = None,
    allow_empty: bool = False,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> UpdateReport:
    """Embed what `plan` lists and commit it part by part; drop what is gone with the last part.

    The network is loaded only if there is something to embed. `progress` is called when it is loaded and after
    each file; when `stop` returns True the part in hand is committed and the update ends.

    Unless `allow_empty`, PhotosError is raised where not one of the photos is left, under its name or another.
    """
    started = time.monotonic()
    before = len(store)
    run = _Run(writer, store.spec.dim, known, dict(plan.skipped))
    engine: Engine | None = None
    stopped = False

    def loaded() -> Engine:
        nonlocal engine
        engine = load_engine()
        tell(0)
        return engine

    def tell(done: int) -> None:
        if progress is not None:
            skipped = f"{len(run.newly_skipped):,} skipped" if run.newly_skipped else ""
            note = ", ".join(filter(None, [str(engine) if engine else "", skipped]))
            progress(Progress("embedding photos", done, len(plan.todo), note=note))

    items = extract(plan.todo, root, store.spec, loaded, known=known, workers=workers)
    for done, item in enumerate(items, start=1):
        run.take(item)
        tell(done)
        if run.part.is_full:
            run.commit()
        if stop is not None and stop():
            stopped = True
            break
    # The gone go last and only when all else is done: until then their embeddings may be wanted for a new name.
    gone = () if stopped else plan.gone
    if not allow_empty and plan.empties(before) and not stopped and not run.reused:
        run.commit()
        raise nothing_left(before, store, root)
    run.commit(gone)
    return UpdateReport(
        indexed=run.indexed,
        reused=run.reused,
        unchanged=plan.unchanged,
        gone=len(gone),
        skipped=tuple(run.skipped[path] for path in sorted(run.skipped)),
        newly_skipped=tuple(run.newly_skipped),
        photos=len(store),
        seconds=time.monotonic() - started,
        stopped=stopped,
    )


def refuse_to_empty(plan: UpdatePlan, known: KnownContent, store: Store, root: Path) -> None:
    """Raise PhotosError where an update would drop every photo: an unmounted disk looks just like that.

    Other files may lie there all the same, in the folder the disk is mounted on; only if one has the size of a
    photo may the photos have been renamed, which then shows.
    """
    if plan.empties(len(store)) and not any(map(known.may_hold, plan.todo)):
        raise nothing_left(len(store), store, root)


def nothing_left(before: int, store: Store, root: Path) -> PhotosError:
    """Return the error for a folder in which none of the `before` photos of a store was found."""
    return PhotosError(
        f"{root} holds none of the {before:,} photos in {store.directory}. "
        "Is its disk mounted? If they were really deleted, pass ",
        option("allow_empty"),
        ".",
    )
