"""Check every byte of an index. A repair drops damaged derived data, and keeps what only the user can supply."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import UPDATE, IndexDamaged, IndexMissing, Spelled, spelled
from vggsearch.indexing.build import build_vector_index
from vggsearch.indexing.findings import (
    DROP_CACHE,
    DROP_LOCAL,
    DROP_PHOTOS,
    DROP_SKIPPED,
    DROP_STAMPS,
    FORGET_LEARNED,
    KEEP_NEWEST,
    REBUILD_MANIFEST,
    REBUILD_SEARCH,
    RESTORE_DEAD,
    Finding,
    Remedy,
)
from vggsearch.indexing.user_files import check_user_files, notes_on_user_files
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.photos.walk import Skipped
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.store.caches import caches
from vggsearch.store.contents import (
    EMBEDDINGS,
    LOCAL,
    MANIFEST,
    SEARCH_FOLDER,
    SKIPPED,
    STAMPS,
    derived_files,
    has_parts,
    user_files,
)
from vggsearch.store.dead_rows import is_dead_file
from vggsearch.store.files import writing_to
from vggsearch.store.local_features import LocalPart
from vggsearch.store.lock import only_writer
from vggsearch.store.manifest import ROLES, Manifest, Part, Role, write_manifest
from vggsearch.store.own_files import check_links, delete, followed
from vggsearch.store.parts import Table, embeddings_in, read_columns, read_origin
from vggsearch.store.recovery import cannot_rebuild, rebuild_manifest, restored_manifest
from vggsearch.store.store import Store, size_of
from vggsearch.store.writer import StoreWriter
from vggsearch.system.places import from_home

NORM_ERROR = 2e-3  # float16 has 11 bits of precision: rounding changes a unit vector's length by less than 5e-4


@dataclass(frozen=True)
class VerifyReport:
    """What a check found: no `findings` if the index is intact.

    `notes` do not concern damage. `bytes` is the amount of data read.

    >>> report = index.verify()
    >>> report.is_whole, report.photos, report.findings
    (True, 4, ())
    """

    directory: Path
    photos: int
    parts: int
    bytes: int
    seconds: float
    findings: tuple[Finding, ...]
    notes: tuple[Spelled, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the index is intact now: nothing was damaged, or all of it was repaired."""
        return all(finding.is_repaired for finding in self.findings)

    @property
    def is_repaired(self) -> bool:
        """Whether something was damaged and all of it was repaired."""
        return bool(self.findings) and self.is_whole


def verify(
    directory: str | os.PathLike[str],
    *,
    repair: bool = False,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> VerifyReport:
    """Check every byte of the index in `directory`; with `repair`, drop what is damaged, rebuild what is derived.

    A repair never drops the user's decisions and undo journals. If nothing else is left, it leaves an empty index,
    which the next update fills.

    Raises IndexMissing, IndexFormatError and, for a repair, IndexLocked and IndexNotWritable; IndexDamaged if the
    manifest is lost and no part records its spec: the message names the files to delete and those to keep; Stopped
    if `stop` ended it early.

    >>> verify("indexes/photos").is_whole
    True
    """
    directory = followed(from_home(directory))
    monitor = Monitor(progress, stop)
    _check_is_index(directory)
    if repair:
        with only_writer(directory):
            return _verify(directory, True, monitor)[0]
    while True:
        report, is_current = _verify(directory, False, monitor)
        if is_current or not report.findings:
            return report


def _check_is_index(directory: Path) -> None:
    """Raise IndexMissing if there is no index, or IndexDamaged if it lost both its manifest and all embeddings.

    Raises IndexLinked for a link in it: no repair touches what it leads to.
    """
    check_links(directory)
    if (directory / MANIFEST).exists() or has_parts(directory):
        return
    if user_files(directory) and derived_files(directory):
        raise cannot_rebuild(directory)
    Store.open(directory)


def _verify(directory: Path, repair: bool, monitor: Monitor) -> tuple[VerifyReport, bool]:
    """Return what was found, and whether the state is still the current one: no writer came in between."""
    started = time.monotonic()
    findings, store = _open(directory, repair)
    if store is None:
        findings += check_user_files(directory, repair)
        return VerifyReport(directory, 0, 0, 0, time.monotonic() - started, tuple(findings), ()), True
    check = _IndexCheck(store, repair, monitor, findings)
    check.run()
    is_current = store.is_up_to_date
    if repair:
        check.repair()
    check.findings += check_user_files(directory, repair)
    report = VerifyReport(
        directory=directory,
        photos=len(store),
        parts=len(store.manifest.parts),
        bytes=check.done,
        seconds=time.monotonic() - started,
        findings=tuple(check.findings),
        notes=(*(() if repair else check.notes()), *notes_on_user_files(directory)),
    )
    return report, is_current


def _open(directory: Path, repair: bool) -> tuple[list[Finding], Store | None]:
    """Open the store, for a repair with a rebuilt manifest if need be; return None if that has to be done first."""
    try:
        return [], Store.open(directory)
    except IndexMissing:
        problem = "is missing"
    except IndexDamaged as error:
        if is_dead_file(error.file):
            return _open_restored(directory, repair)
        problem = error.problem
    finding = REBUILD_MANIFEST.finding(repair, MANIFEST, problem)
    if not repair:
        return [finding], None
    manifest, damaged = rebuild_manifest(directory)
    write_manifest(directory, manifest)
    dropped = [DROP_PHOTOS.finding(True, _relative(error.file, directory), error.problem) for error in damaged]
    return [finding, *dropped], Store.open(directory)


def _open_restored(directory: Path, repair: bool) -> tuple[list[Finding], Store | None]:
    """Do the same as `_open` for an index that lost files of dead rows."""
    manifest, lost = restored_manifest(directory)
    problems = {_relative(error.file, directory): error.problem for error in lost}
    findings = [RESTORE_DEAD.finding(repair, *each) for each in problems.items()]
    if not repair:
        return findings, None
    write_manifest(directory, manifest)
    return findings, Store.open(directory)


@dataclass
class _IndexCheck:
    """A check of an index: what it has found, and what a repair has to leave out of the manifest.

    `dead` holds rows by part name, `rows` where each path was last seen, `outside` whether each folder leads out of
    the photo folder.
    """

    store: Store
    is_repair: bool
    monitor: Monitor
    findings: list[Finding]
    done: int = 0
    lost_parts: set[str] = field(default_factory=set)
    dead: dict[str, set[int]] = field(default_factory=dict)
    is_skipped_lost: bool = False
    lost_roles: set[Role] = field(default_factory=set)
    lost_local: set[str] = field(default_factory=set)
    lost_caches: list[Path] = field(default_factory=list)
    rows: dict[str, tuple[Part, int]] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    outside: dict[str, bool] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        return self.store.manifest

    def run(self) -> None:
        """Check all files that the manifest lists, and those that only save time."""
        skipped = self.manifest.skipped
        sides = {role: fresh.files for role in ROLES if (fresh := self.manifest.fresh(role)) is not None}
        local = [file for part in self.manifest.local for file in part.files]
        dead = {dead.file for dead in self.manifest.dead_rows if dead.file is not None}  # they were read with it
        files = [*self.manifest.parts, *chain(*sides.values()), *([skipped] if skipped else ()), *local, *dead]
        extra = [(path, size_of(path), check) for path, check in caches(self.store.directory)]
        total = sum(file.bytes for file in files) + sum(size for _, size, _ in extra)
        self.advance(sum(file.bytes for file in dead), total)
        self.check_skipped()
        self.advance(skipped.bytes if skipped else 0, total)
        for part in self.manifest.parts:
            self.check_part(part)
            self.advance(part.bytes, total)
        for role, stored in sides.items():
            self.check_vector_index(role)
            self.advance(sum(file.bytes for file in stored), total)
        for kept in self.manifest.local:
            self.check_local(kept)
            self.advance(sum(file.bytes for file in kept.files), total)
        for path, size, check in extra:
            self.check_cache(path, check)
            self.advance(size, total)

    def advance(self, count: int, total: int) -> None:
        """Count bytes as read. Raises Stopped."""
        self.done += count
        self.monitor.step("checking", self.done, total, "bytes")

    def add(self, error: IndexDamaged, remedy: Remedy, photos: tuple[str, ...] = ()) -> None:
        """Add a finding."""
        file = _relative(error.file, self.store.directory)
        self.findings.append(remedy.finding(self.is_repair, file, error.problem, photos))

    def check_part(self, part: Part) -> None:
        path = self.store.directory / EMBEDDINGS / part.name
        try:
            part.check(path.parent)
            table = self.store.read_part(part)
            origin = read_origin(path)
            if origin is not None and origin.embedding != self.store.spec:
                raise IndexDamaged(path, f"holds embeddings of {origin.embedding}, not of {self.store.spec}")
            if part.dead.last >= part.rows:
                raise IndexDamaged(path, f"has {part.rows:,} rows, but row {part.dead.last:,} is listed as dead")
        except IndexDamaged as error:
            self.lost_parts.add(part.name)
            photos = self.readable_paths(path, part)
            which = f"{part.rows - len(part.dead):,} photos" + ("" if photos else ", which cannot be named")
            self.add(IndexDamaged(path, f"{error.problem}; it holds {which}"), DROP_PHOTOS, photos)
            return
        paths = table.column("path").to_pylist()
        self.check_unit_length(path, part, paths, embeddings_in(table))
        self.check_paths_once(path, part, paths)
        self.check_not_skipped(part, paths, table)
        self.check_inside(path, part, paths)

    def readable_paths(self, path: Path, part: Part) -> tuple[str, ...]:
        """Return the photos of a damaged part if the pages that hold their paths are intact, else none."""
        try:
            paths = read_columns(path, ["path"]).column("path").to_pylist()
        except (IndexDamaged, ValueError):
            return ()
        is_live = part.dead.live(len(paths))
        return tuple(photo for photo, is_kept in zip(paths, is_live, strict=True) if is_kept)

    def check_unit_length(self, path: Path, part: Part, paths: list[str], embeddings: NDArray[np.float16]) -> None:
        norms = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float32))  # without a float32 copy
        is_wrong = ~(np.abs(norms - 1.0) <= NORM_ERROR)  # NaN and inf too
        rows = np.flatnonzero(is_wrong & part.dead.live(part.rows)).tolist()
        if rows:
            shown = f"row {rows[0]:,}: {norms[rows[0]]:.4g}"
            problem = f"has {len(rows):,} embeddings that are not of unit length ({shown})"
            self.add(IndexDamaged(path, problem), DROP_PHOTOS, tuple(paths[row] for row in rows))
            self.dead.setdefault(part.name, set()).update(rows)

    def check_paths_once(self, path: Path, part: Part, paths: list[str]) -> None:
        """Find paths that are in the index twice; the newest row is the one to keep."""
        twice = []
        for row in self.store.live_rows(part).tolist():
            if paths[row] in self.rows:
                before, old = self.rows[paths[row]]
                self.dead.setdefault(before.name, set()).add(old)
                twice.append(paths[row])
            self.rows[paths[row]] = part, row
        if twice:
            problem = f"holds {len(twice):,} photos that are in the index twice"
            self.add(IndexDamaged(path, problem), KEEP_NEWEST, tuple(twice))

    def check_inside(self, path: Path, part: Part, paths: list[str]) -> None:
        """Find photos that a symbolic link leads out of the photo folder: no update indexes such files."""
        root = self.store.directory / (self.manifest.root or "no folder yet")
        if not root.is_dir():
            return
        folder, rows = os.path.realpath(root), self.store.live_rows(part).tolist()
        outside = [row for row in rows if self.leads_out(root, folder, paths[row])]
        if outside:
            self.dead.setdefault(part.name, set()).update(outside)
            problem = f"holds {len(outside):,} photos that a link leads out of {root} (row {outside[0]:,})"
            self.add(IndexDamaged(path, problem), DROP_PHOTOS, tuple(paths[row] for row in outside))

    def leads_out(self, root: Path, folder: str, photo: str) -> bool:
        """Return whether a link leads a photo out of the photo folder, whose real path is `folder`."""
        parent = photo.rpartition("/")[0]
        if parent not in self.outside:
            self.outside[parent] = not Path(os.path.realpath(root / parent)).is_relative_to(folder)
        if self.outside[parent] or not (root / photo).is_symlink():
            return self.outside[parent]
        return not Path(os.path.realpath(root / photo)).is_relative_to(folder)

    def check_skipped(self) -> None:
        try:
            self.skipped = self.store.skipped()
        except IndexDamaged as error:
            self.is_skipped_lost = True
            self.add(error, DROP_SKIPPED)

    def check_not_skipped(self, part: Part, paths: list[str], table: Table) -> None:
        """Find files that are both indexed and skipped.

        A path may be both for a while: its folder cannot be read, or it changed and the run that drops it has not
        ended. But one version of a file, by size and modification time, is one or the other.
        """
        both = []
        for row in self.store.live_rows(part).tolist():
            skipped = self.skipped.get(paths[row])
            if skipped is None or skipped.kind == "unreadable":
                continue
            if (table["bytes"][row].as_py(), table["mtime_ns"][row].as_py()) == (skipped.bytes, skipped.mtime_ns):
                self.dead.setdefault(part.name, set()).add(row)
                both.append(paths[row])
        if both:
            problem = f"lists {len(both):,} photos that are in {part.name} too"
            self.add(IndexDamaged(self.store.directory / SKIPPED, problem), DROP_PHOTOS, tuple(both))

    def check_vector_index(self, role: Role) -> None:
        side = self.manifest.fresh(role)
        if side is None or self.lost_parts:
            return  # it is rebuilt with its rows
        directory = self.store.directory / SEARCH_FOLDER / side.name
        try:
            for file in side.files:
                file.check(directory)
            opened = VectorIndex.open(directory, len(self.store), self.store.spec.dim)
            wrong = opened.first_difference(self.store.embeddings())
            if wrong is not None:
                raise IndexDamaged(directory, f"differs from the embeddings of the parts from row {wrong:,} on")
        except IndexDamaged as error:
            self.lost_roles.add(role)
            self.add(error, REBUILD_SEARCH if role == "search" else FORGET_LEARNED)

    def check_local(self, part: LocalPart) -> None:
        directory = self.store.directory / LOCAL / part.name
        try:
            for file in part.files:
                file.check(directory)
            keys = self.store.local().keys(part)
            if (keys[1:] <= keys[:-1]).any():
                raise IndexDamaged(directory, "holds keys that are not in ascending order")
        except IndexDamaged as error:
            self.lost_local.add(part.name)
            self.add(error, DROP_LOCAL)

    def check_cache(self, path: Path, check: Callable[[Path], object]) -> None:
        try:
            check(path)
        except IndexDamaged as error:
            self.lost_caches.append(path)
            self.add(error, DROP_STAMPS if path.name == STAMPS else DROP_CACHE)

    def notes(self) -> Iterator[Spelled]:
        """Yield what the next update changes, although it is no damage."""
        if self.manifest.fresh_vector_index is None and self.manifest.rows:
            yield spelled("the vector index is out of date: queries read the parts; ", UPDATE, " updates it")
        leftovers = self.store.leftovers()
        if leftovers:
            size = sum(map(_size_below, leftovers))
            yield spelled(f"{len(leftovers):,} leftover files, {size:,} bytes: the next ", UPDATE, " removes them")
        root = self.store.directory / (self.manifest.root or "no folder yet")
        if root.is_dir():
            gone = sum(not os.path.lexists(root / path) for path in self.skipped)
            if gone:
                yield spelled(f"{gone:,} skipped files no longer exist: the next ", UPDATE, " forgets them")

    def repair(self) -> None:
        """Leave what is damaged out of the manifest, then rebuild the vector index if its rows changed."""
        manifest = replace(
            self.manifest,
            parts=tuple(part for part in self.manifest.parts if part.name not in self.lost_parts),
            skipped=None if self.is_skipped_lost else self.manifest.skipped,
            search=None if "search" in self.lost_roles else self.manifest.search,
            learned=None if "learned" in self.lost_roles else self.manifest.learned,
            local=tuple(part for part in self.manifest.local if part.name not in self.lost_local),
        ).without_rows(self.dead)
        if manifest != self.manifest:
            self.store.replace_manifest(manifest)
        for path in self.lost_caches:
            with writing_to(path):
                delete(self.store.directory, path)
        for folder in (EMBEDDINGS, SEARCH_FOLDER):
            with writing_to(self.store.directory / folder):
                (self.store.directory / folder).mkdir(exist_ok=True)
        writer = StoreWriter(self.store)
        if self.manifest.fresh_vector_index is None:
            build_vector_index(self.store, writer)


def _relative(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix() or "."


def _size_below(path: Path) -> int:
    """Return the size in bytes of a file, or of all below a folder, from which a writer may be removing files."""
    below = sum(size_of(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)
    return below + size_of(path)
