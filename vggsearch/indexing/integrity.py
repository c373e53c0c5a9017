"""Check every byte of an index, and drop what is damaged so that the next update makes it again."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged, IndexMissing
from vggsearch.indexing.build import build_vector_index
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.photos.walk import Skipped
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.store.contents import EMBEDDINGS, LOCAL, MANIFEST, SEARCH, SKIPPED
from vggsearch.store.local_features import LocalPart
from vggsearch.store.lock import only_writer
from vggsearch.store.manifest import Manifest, Part, write_manifest
from vggsearch.store.parts import Table, embeddings_in, read_columns, read_origin
from vggsearch.store.recovery import rebuild_manifest
from vggsearch.store.store import Store, size_of
from vggsearch.store.writer import StoreWriter

NORM_ERROR = 2e-3  # float16 keeps eleven bits: rounding moves the length of a unit vector by less than 5e-4

DROP_PHOTOS = (
    "vggsearch verify --repair drops these photos, and vggsearch index takes them in again",
    "these photos were dropped; vggsearch index takes them in again",
)
DROP_LOCAL = (
    "vggsearch verify --repair drops them, and vggsearch index makes them again",
    "they were dropped; vggsearch index makes them again",
)
RENEW_SEARCH = ("vggsearch verify --repair makes it anew", "it was made anew")
DROP_SKIPPED = (
    "vggsearch verify --repair drops the list, and vggsearch index tries those files again",
    "the list was dropped; vggsearch index tries those files again",
)
LIVE_AGAIN = (
    "photos deleted since live again until vggsearch index, which has to name photo folder and --weights again"
)
REBUILD = (
    f"vggsearch verify --repair rebuilds it from the parts; {LIVE_AGAIN}",
    f"it was rebuilt from the parts; {LIVE_AGAIN}",
)

Remedy = tuple[str, str]  # what --repair would do, and what it did


@dataclass(frozen=True)
class Finding:
    """One thing that is damaged: which file of the index, what is wrong, the way out.

    `photos` are the paths that are lost with it, where they can still be read.
    """

    file: str
    problem: str
    way_out: str
    photos: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """What a check found: nothing, if the index is whole. `notes` are no damage, `bytes` is what was read."""

    directory: Path
    photos: int
    parts: int
    bytes: int
    seconds: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    is_repaired: bool

    @property
    def is_whole(self) -> bool:
        """Whether the index is whole now: nothing was damaged, or all of it was repaired."""
        return self.is_repaired or not self.findings


def verify(
    directory: str | os.PathLike[str],
    *,
    repair: bool = False,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> VerifyReport:
    """Check every byte of the index in `directory`; with `repair`, drop what is damaged and renew what is derived.

    Raises IndexMissing, IndexFormatError, and, for a repair, IndexLocked and IndexNotWritable; IndexDamaged where
    nothing is left that a repair could start from; Stopped where `stop` ended it, before anything was repaired.
    """
    directory = Path(directory)
    monitor = Monitor(progress, stop)

    def read(done: int, total: int) -> None:
        monitor.step("checking", done, total, "bytes")

    if repair:
        if not (directory / EMBEDDINGS).is_dir():
            Store.open(directory)  # says what there is instead
        with only_writer(directory):
            return _verify(directory, True, read)[0]
    while True:
        report, is_current = _verify(directory, False, read)
        if is_current or not report.findings:
            return report


def _verify(directory: Path, repair: bool, progress: Callable[[int, int], None]) -> tuple[VerifyReport, bool]:
    """Return what was found, and whether no writer had come in between."""
    started = time.monotonic()
    findings, store = _open(directory, repair)
    if store is None:
        return VerifyReport(directory, 0, 0, 0, time.monotonic() - started, findings, (), False), True
    check = _Check(store, repair, progress, list(findings))
    check.all()
    is_current = store.is_current
    if repair:
        check.repair()
    report = VerifyReport(
        directory=directory,
        photos=len(store),
        parts=len(store.manifest.parts),
        bytes=check.done,
        seconds=time.monotonic() - started,
        findings=tuple(check.findings),
        notes=() if repair else tuple(check.notes()),
        is_repaired=repair and bool(check.findings),
    )
    return report, is_current


def _open(directory: Path, repair: bool) -> tuple[tuple[Finding, ...], Store | None]:
    """Open the store, with a rebuilt manifest if it is to be repaired; None where that has to be done first."""
    try:
        return (), Store.open(directory)
    except IndexMissing:
        if not any((directory / EMBEDDINGS).glob("part-*.parquet")):
            raise
        problem = "is missing"
    except IndexDamaged as error:
        problem = error.problem
    finding = Finding(MANIFEST, problem, REBUILD[repair])
    if not repair:
        return (finding,), None
    manifest, damaged = rebuild_manifest(directory)
    write_manifest(directory, manifest)
    lost = [Finding(_relative(error.file, directory), error.problem, DROP_PHOTOS[True]) for error in damaged]
    return (finding, *lost), Store.open(directory)


@dataclass
class _Check:
    """A check at work: what was found, and what a repair has to leave out of the manifest."""

    store: Store
    is_repair: bool
    progress: Callable[[int, int], None]
    findings: list[Finding]
    done: int = 0
    lost_parts: set[str] = field(default_factory=set)
    dead: dict[str, set[int]] = field(default_factory=dict)
    is_skipped_lost: bool = False
    is_search_lost: bool = False
    lost_local: set[str] = field(default_factory=set)
    rows: dict[str, tuple[Part, int]] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        return self.store.manifest

    def all(self) -> None:
        side, skipped = self.manifest.fresh_vector_index, self.manifest.skipped
        local = [file for part in self.manifest.local for file in part.files]
        files = [*self.manifest.parts, *(side.files if side else ()), *([skipped] if skipped else ()), *local]
        total = sum(file.bytes for file in files)
        self.progress(0, total)
        self.read_skipped()
        self.read(skipped.bytes if skipped else 0, total)
        for part in self.manifest.parts:
            self.check_part(part)
            self.read(part.bytes, total)
        if side is not None:
            self.check_search()
            self.read(sum(file.bytes for file in side.files), total)
        for kept in self.manifest.local:
            self.check_local(kept)
            self.read(sum(file.bytes for file in kept.files), total)

    def read(self, count: int, total: int) -> None:
        self.done += count
        self.progress(self.done, total)

    def tell(self, error: IndexDamaged, remedy: Remedy, photos: tuple[str, ...] = ()) -> None:
        file = _relative(error.file, self.store.directory)
        self.findings.append(Finding(file, error.problem, remedy[self.is_repair], photos))

    def check_part(self, part: Part) -> None:
        path = self.store.directory / EMBEDDINGS / part.name
        try:
            part.check(path.parent)
            table = self.store.read_part(part)
            origin = read_origin(path)
            if origin is not None and origin.embedding != self.store.spec:
                raise IndexDamaged(path, f"holds embeddings of {origin.embedding}, not of {self.store.spec}")
            if not set(part.dead) <= set(range(part.rows)):
                raise IndexDamaged(path, f"has {part.rows:,} rows, but row {max(part.dead):,} is listed as dead")
        except IndexDamaged as error:
            self.lost_parts.add(part.name)
            photos = self.salvaged(path, part)
            which = f"{part.rows - len(part.dead):,} photos" + ("" if photos else ", which cannot be named")
            self.tell(IndexDamaged(path, f"{error.problem}; it holds {which}"), DROP_PHOTOS, photos)
            return
        paths = table.column("path").to_pylist()
        self.check_lengths(path, part, paths, embeddings_in(table))
        self.check_twice(path, part, paths)
        self.check_both(part, paths, table)

    def salvaged(self, path: Path, part: Part) -> tuple[str, ...]:
        """Return the photos of a damaged part, if the pages with their paths are whole; else none."""
        try:
            paths = read_columns(path, ["path"]).column("path").to_pylist()
        except (IndexDamaged, ValueError):
            return ()
        dead = set(part.dead)
        return tuple(photo for row, photo in enumerate(paths) if row not in dead)

    def check_lengths(self, path: Path, part: Part, paths: list[str], numbers: NDArray[np.float16]) -> None:
        norms = np.sqrt(np.einsum("ij,ij->i", numbers, numbers, dtype=np.float32))  # no float32 copy of all
        wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_ERROR))  # NaN and inf too
        dead = set(part.dead)
        rows = [int(row) for row in wrong if row not in dead]
        if rows:
            shown = f"row {rows[0]:,}: {norms[rows[0]]:.4g}"
            problem = f"has {len(rows):,} embeddings that are not of unit length ({shown})"
            self.tell(IndexDamaged(path, problem), DROP_PHOTOS, tuple(paths[row] for row in rows))
            self.dead.setdefault(part.name, set()).update(rows)

    def check_twice(self, path: Path, part: Part, paths: list[str]) -> None:
        """Find paths that live twice; the newest row is the one to keep."""
        twice = []
        for row in self.store.live_rows(part):
            if paths[row] in self.rows:
                before, old = self.rows[paths[row]]
                self.dead.setdefault(before.name, set()).add(old)
                twice.append(paths[row])
            self.rows[paths[row]] = part, row
        if twice:
            problem = f"holds {len(twice):,} photos that are in the index twice"
            keeps = ("vggsearch verify --repair keeps the newest row", "the newest row was kept")
            self.tell(IndexDamaged(path, problem), keeps, tuple(twice))

    def read_skipped(self) -> None:
        try:
            self.skipped = self.store.skipped()
        except IndexDamaged as error:
            self.is_skipped_lost = True
            self.tell(error, DROP_SKIPPED)

    def check_both(self, part: Part, paths: list[str], table: Table) -> None:
        """Find files that are both live and skipped.

        A photo may be both for a while: its folder cannot be read, or it changed and the run that drops it has
        not ended. But one and the same file is one or the other.
        """
        both = []
        for row in self.store.live_rows(part):
            skipped = self.skipped.get(paths[row])
            if skipped is None or skipped.kind == "unreadable":
                continue
            if (table["bytes"][row].as_py(), table["mtime_ns"][row].as_py()) == (skipped.bytes, skipped.mtime_ns):
                self.dead.setdefault(part.name, set()).add(row)
                both.append(paths[row])
        if both:
            problem = f"lists {len(both):,} photos that are in {part.name} too"
            self.tell(IndexDamaged(self.store.directory / SKIPPED, problem), DROP_PHOTOS, tuple(both))

    def check_search(self) -> None:
        side = self.manifest.fresh_vector_index
        if side is None or self.lost_parts:
            return  # it is made anew with its rows
        directory = self.store.directory / SEARCH / side.name
        try:
            for file in side.files:
                file.check(directory)
            opened = VectorIndex.open(directory, len(self.store), self.store.spec.dim)
            wrong = opened.first_difference(self.store.embeddings())
            if wrong is not None:
                raise IndexDamaged(directory, f"differs from the embeddings of the parts from row {wrong:,} on")
        except IndexDamaged as error:
            self.is_search_lost = True
            self.tell(error, RENEW_SEARCH)

    def check_local(self, part: LocalPart) -> None:
        directory = self.store.directory / LOCAL / part.name
        try:
            for file in part.files:
                file.check(directory)
            keys = self.store.local().keys(part)
            if (keys[1:] <= keys[:-1]).any():
                raise IndexDamaged(directory, "holds keys that do not ascend")
        except IndexDamaged as error:
            self.lost_local.add(part.name)
            self.tell(error, DROP_LOCAL)

    def notes(self) -> Iterator[str]:
        """Yield what is not as it will be, but no damage."""
        if self.manifest.fresh_vector_index is None and self.manifest.rows:
            yield "the search side is out of date: queries read the parts, vggsearch index renews it"
        leftovers = self.store.leftovers()
        if leftovers:
            size = sum(map(_size_below, leftovers))
            yield f"{len(leftovers):,} leftover files, {size:,} bytes: the next vggsearch index removes them"
        root = self.store.directory / (self.manifest.root or "no folder yet")
        if root.is_dir():
            gone = sum(not os.path.lexists(root / path) for path in self.skipped)
            if gone:
                yield f"{gone:,} skipped files are no longer there: the next vggsearch index forgets them"

    def repair(self) -> None:
        """Leave what is damaged out of the manifest, then make the search side anew if its rows changed."""
        manifest = replace(
            self.manifest,
            parts=tuple(part for part in self.manifest.parts if part.name not in self.lost_parts),
            skipped=None if self.is_skipped_lost else self.manifest.skipped,
            search=None if self.is_search_lost else self.manifest.search,
            local=tuple(part for part in self.manifest.local if part.name not in self.lost_local),
        ).without_rows(self.dead)
        if manifest != self.manifest:
            self.store.replace_manifest(manifest)
        writer = StoreWriter(self.store)
        if self.manifest.fresh_vector_index is None:
            build_vector_index(self.store, writer)


def _relative(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix() or "."


def _size_below(path: Path) -> int:
    """Return the bytes of a file, or of all below a folder, which a writer may be removing meanwhile."""
    below = sum(size_of(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)
    return below + size_of(path)
