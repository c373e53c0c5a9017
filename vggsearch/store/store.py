"""The store: live photos and their embeddings, read by anyone, changed by one writer at a time."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vggsearch.defaults import COMPACT
from vggsearch.errors import IndexDamaged, IndexExists, SpecMismatch
from vggsearch.extract import Embedded, MadeBy
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos import PhotoFile, Skipped
from vggsearch.places import MANIFEST
from vggsearch.store.compaction import Group, is_due, is_kept, plan_groups
from vggsearch.store.files import (
    TEMPORARY,
    FileHash,
    flush_directory,
    reading_from,
    write_folder_atomically,
    writing_to,
)
from vggsearch.store.local import LOCAL, ROWS, LocalPart, LocalStore, StoredFeatures, write_local
from vggsearch.store.lock import only_writer
from vggsearch.store.manifest import (
    BuildOptions,
    Manifest,
    Part,
    SearchFacts,
    SearchSide,
    part_name,
    read_manifest,
    write_manifest,
)
from vggsearch.store.parts import (
    BLANK,
    SKIPPED,
    Origin,
    embeddings_in,
    merge_parts,
    read_columns,
    read_part,
    read_skipped,
    write_part,
    write_skipped,
)

EMBEDDINGS = "embeddings"
SEARCH = "search"
SKIPPED_NEXT = "skipped.next.parquet"  # becomes skipped.parquet once the manifest that knows it is there

Item = TypeVar("Item")
Read = TypeVar("Read")


class Store:
    """Photos, their facts and embeddings in one directory.

    A store shows the state it was opened with; `refresh` moves it to the last committed one. Rows are the live
    photos, part after part, in the order of each part. A writer removes the files of states that are over, so
    whatever is read from files goes through `read_whole`.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self._seen = _identity(directory / MANIFEST)

    @classmethod
    def create(cls, directory: Path, spec: EmbeddingSpec, weights_file: Path | None = None) -> "Store":
        """Make an empty store. Raises IndexExists where there is one, or other files, already."""
        if directory.exists() and any(directory.iterdir()):
            if not (directory / MANIFEST).exists() and any((directory / EMBEDDINGS).glob("part-*")):
                raise IndexExists(
                    f"{directory} has embeddings, but no {MANIFEST}. Rebuild it: vggsearch verify --repair --index "
                    f"{directory}"
                )
            what = "an index already" if (directory / MANIFEST).exists() else "not empty and not an index"
            raise IndexExists(f"{directory} is {what}. Name another place with --index.")
        with writing_to(directory):
            for folder in (EMBEDDINGS, SEARCH):
                (directory / folder).mkdir(parents=True, exist_ok=True)
            flush_directory(directory.parent)
        manifest = Manifest(spec, weights_file=str(weights_file.resolve()) if weights_file is not None else None)
        write_manifest(directory, manifest)
        return cls(directory, manifest)

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open the store in `directory`. Raises IndexMissing, IndexFormatError or IndexDamaged."""
        seen = _identity(directory / MANIFEST)
        store = cls(directory, read_manifest(directory))
        store._seen = seen  # as it was before reading: a commit in between is then seen as one
        return store

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings are made of."""
        return self.manifest.embedding

    def __len__(self) -> int:
        """How many photos are live."""
        return self.manifest.rows

    @property
    def is_current(self) -> bool:
        """Whether nothing was committed since this state was read; it costs one look at the manifest's age."""
        return self._seen is not None and self._seen == _identity(self.directory / MANIFEST)

    def refresh(self) -> None:
        """Move to the last committed state. Raises SpecMismatch where the index was made anew, of another spec."""
        if self.is_current:
            return
        latest = Store.open(self.directory)
        if latest.spec != self.spec:
            raise SpecMismatch(
                f"{self.directory} was made anew: it held embeddings of {self.spec}, now of {latest.spec}. Open it "
                "again."
            )
        self.manifest, self._seen = latest.manifest, latest._seen

    def replace_manifest(self, manifest: Manifest) -> None:
        """Commit a state; only the one writer may."""
        write_manifest(self.directory, manifest)
        self.manifest, self._seen = manifest, _identity(self.directory / MANIFEST)

    def read_whole(self, read: Callable[[], Read]) -> Read:
        """Return what `read` makes of one state; if a commit removes its files meanwhile, of a newer one."""
        while True:
            try:
                return read()
            except IndexDamaged:
                if self.is_current:
                    raise
            self.refresh()

    def paths(self) -> list[str]:
        """Return the paths of the live photos, in row order."""
        return [path for part in self.manifest.parts for path in self.column(part, "path")]

    def blank_rows(self) -> NDArray[np.int64]:
        """Return the rows of the photos in which there is nothing to compare, ascending."""
        flags = [flag for part in self.manifest.parts for flag in self.column(part, BLANK)]
        return np.flatnonzero(np.array(flags, bool))

    def files(self) -> dict[str, PhotoFile]:
        """Return the live photos as the walk saw them, by path, in row order."""
        rows = (PhotoFile(*row) for row in self.rows_of("path", "bytes", "mtime_ns"))
        return {file.path: file for file in rows}

    def embeddings(self) -> Iterator[NDArray[np.float16]]:
        """Yield the live embeddings part by part: float16 (rows, dim), together in row order."""
        return map(self.part_embeddings, self.manifest.parts)

    def part_embeddings(self, part: Part) -> NDArray[np.float16]:
        """Return the live embeddings of a part, float16 (rows, dim)."""
        numbers = embeddings_in(self.read_part(part))
        return numbers[self.live_rows(part)] if part.dead else numbers

    def read_part(self, part: Part) -> pa.Table:
        """Return a part whole, dead rows too. Raises IndexDamaged."""
        table = read_part(self.part_path(part), self.spec.dim)
        self._check_rows(part, table.num_rows)
        return table

    def skipped(self) -> dict[str, Skipped]:
        """Return the files that could not be used, by path. Raises IndexDamaged."""
        known = self.manifest.skipped
        if known is None:
            return {}
        data = self._skipped_bytes(known)
        return {skipped.path: skipped for skipped in read_skipped(self.directory / SKIPPED, data)}

    def _skipped_bytes(self, known: FileHash) -> bytes:
        """Read the list where it is, or, if its commit is not over or was cut short, where it was written."""
        while True:
            for path in (self.directory / SKIPPED_NEXT, self.directory / SKIPPED):
                with suppress(IndexDamaged), reading_from(path):
                    data = path.read_bytes()
                    if hashlib.sha256(data).hexdigest() == known.sha256:
                        return data
            known.check(self.directory)  # says what is wrong, unless it got its name just now

    def search_directory(self) -> Path | None:
        """Return where the search side of this state is, None where there is none. Raises IndexDamaged.

        Only the sizes of its files are checked, so that opening a large one is quick; `verify` reads them.
        """
        side = self.manifest.fresh_search
        if side is None:
            return None
        directory = self.directory / SEARCH / side.name
        for file in side.files:
            file.check_size(directory)
        return directory

    def stale_search_directory(self) -> Path | None:
        """Return where the last search side is, of this state or an earlier one; None where there is none."""
        side = self.manifest.search
        return self.directory / SEARCH / side.name if side is not None else None

    def local(self) -> LocalStore:
        """Return the local features that are kept."""
        return LocalStore(self.directory / LOCAL, self.manifest.local)

    def facts_of(self, rows: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return sha256, width and height of the photos in some rows, in order. Only their parts are read."""
        found: dict[int, tuple[str, int, int]] = {}
        start = 0
        for part in self.manifest.parts:
            live = self.live_rows(part)
            here = [row for row in rows if start <= row < start + len(live)]
            if here:
                table = read_columns(self.part_path(part), ["sha256", "width", "height"])
                self._check_rows(part, table.num_rows)
                taken = table.take(pa.array([live[row - start] for row in here])).to_pydict()
                found |= dict(zip(here, zip(*taken.values(), strict=True), strict=True))
            start += len(live)
        return [found[row] for row in rows]

    def rows_of(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of some columns, live row by live row."""
        for part in self.manifest.parts:
            yield from zip(*(self.column(part, name) for name in columns), strict=True)

    def leftovers(self) -> list[Path]:
        """Return the files and folders that no state needs: of runs that crashed, and of states that are over."""
        directory, manifest = self.directory, self.manifest
        parts = {part.name for part in manifest.parts}
        side = manifest.search.name if manifest.search else None
        local = {part.name for part in manifest.local}
        return [
            *(path for path in sorted((directory / EMBEDDINGS).glob("part-*")) if path.name not in parts),
            *(path for path in sorted((directory / SEARCH).glob("*")) if path.name != side),
            *(path for path in sorted((directory / LOCAL).glob("*")) if path.name not in local),
            *sorted(directory.glob(f"*{TEMPORARY}")),
            *(directory.glob(SKIPPED) if manifest.skipped is None else ()),
        ]

    @property
    def bytes(self) -> int:
        """Size on disk, in bytes."""
        return sum(size_of(Path(folder) / name) for folder, _, names in os.walk(self.directory) for name in names)

    @contextmanager
    def writing(self) -> Iterator["StoreWriter"]:
        """Become the one writer. Raises IndexLocked where another process is, IndexNotWritable."""
        with only_writer(self.directory):
            self.refresh()
            yield StoreWriter(self)

    def live_rows(self, part: Part) -> list[int]:
        """Return the positions in the part of the rows that still count."""
        dead = set(part.dead)
        return [row for row in range(part.rows) if row not in dead]

    def column(self, part: Part, name: str) -> list[Any]:
        """Return one column of a part, live rows only."""
        values = read_columns(self.part_path(part), [name]).column(name).to_pylist()
        self._check_rows(part, len(values))
        return [values[row] for row in self.live_rows(part)] if part.dead else values

    def part_path(self, part: Part) -> Path:
        """Return where a part is. Raises IndexDamaged where it is missing or of another size."""
        return part.check_size(self.directory / EMBEDDINGS)

    def _check_rows(self, part: Part, rows: int) -> None:
        if rows != part.rows:
            path = self.directory / EMBEDDINGS / part.name
            raise IndexDamaged(path, f"has {rows:,} rows, the manifest says {part.rows:,}")


class StoreWriter:
    """Changes a store, one commit at a time; each commit is all or nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clean()
        self._rows = self._locate()

    def _locate(self) -> dict[str, tuple[str, int]]:
        return {
            path: (part.name, row)
            for part in self._store.manifest.parts
            for path, row in zip(self._store.column(part, "path"), self._store.live_rows(part), strict=True)
        }

    def commit(
        self,
        added: Sequence[Embedded],
        gone: Collection[str] = (),
        skipped: Mapping[str, Skipped] | None = None,
    ) -> None:
        """Add photos, replacing those of the same path, and drop the `gone` paths, in one step.

        `skipped` replaces the list of files that could not be used.
        """
        manifest = self._store.manifest
        dead: dict[str, set[int]] = {}
        for path in {*gone, *(photo.file.path for photo in added)} & self._rows.keys():
            name, row = self._rows[path]
            dead.setdefault(name, set()).add(row)
        changed = manifest.without_rows(dead)
        rows: dict[str, tuple[str, int]] = {}
        for made_by, photos in by_maker(added).items():
            part = self._write_part(part_name(changed.next_part), photos, made_by)
            changed = replace(changed, parts=(*changed.parts, part), next_part=changed.next_part + 1)
            rows |= {photo.file.path: (part.name, row) for row, photo in enumerate(photos)}
        if skipped is not None and skipped != self._store.skipped():
            changed = replace(changed, skipped=self._write_skipped(skipped))
        if changed != manifest:
            self._replace(changed)
        for path in gone:
            self._rows.pop(path, None)
        self._rows |= rows

    def set_root(self, root: Path) -> None:
        """Remember the photo folder, relative to the index so that the two can move together."""
        text = _relative(root.resolve(), self._store.directory.resolve())
        if text != self._store.manifest.root:
            self._replace(replace(self._store.manifest, root=text))

    def set_whitened(self, is_whitened: bool) -> None:
        """Decide whether the search side is to be whitened; another decision leaves it to be made anew."""
        if is_whitened != self._store.manifest.is_whitened:
            self._replace(replace(self._store.manifest, is_whitened=is_whitened, search=None))

    def set_search(self, make: Callable[[Path], SearchFacts], wanted: BuildOptions | None = None) -> SearchSide:
        """Let `make` fill a folder with the search side of the present state; remove those of earlier ones.

        `wanted` is what later ones are to be like, if not as before.
        """
        folder = self._store.directory / SEARCH
        name = next_name(folder)
        facts: list[SearchFacts] = []
        files = write_folder_atomically(folder / name, lambda path: facts.append(make(path)))
        manifest = self._store.manifest
        side = SearchSide(**vars(facts[0]), fingerprint=manifest.fingerprint, name=name, files=files,
                          made_from=manifest.made_from)  # fmt: skip
        self._replace(replace(manifest, search=side, build=wanted or manifest.build))
        self._clean()
        return side

    def set_local(self, has_local: bool) -> None:
        """Decide whether local features are kept; those that are no longer wanted are removed."""
        if has_local != self._store.manifest.has_local:
            kept = self._store.manifest.local if has_local else ()
            self._replace(replace(self._store.manifest, has_local=has_local, local=kept))
            self._clean()

    def add_local(self, features: Mapping[str, StoredFeatures]) -> None:
        """Keep local features, by the sha256 of each photo."""
        manifest = self._store.manifest
        self._replace(replace(manifest, local=(*manifest.local, self._write_local(features))))

    def compact_local(self) -> None:
        """Leave out what is of no live photo, and merge small folders, where that is worth it."""
        manifest = self._store.manifest
        live = {sha256 for part in manifest.parts for sha256 in self._store.column(part, "sha256")}
        held = sum(part.rows for part in manifest.local)
        spare = len(manifest.local) - (held + ROWS - 1) // ROWS
        if spare < COMPACT.spare_parts and held - len(live) <= COMPACT.dead_share * held:
            return
        kept = [self._write_local(dict(some)) for some in batched(self._store.local().features(live), ROWS)]
        self._replace(replace(manifest, local=tuple(kept)))
        self._clean()

    def _write_local(self, features: Mapping[str, StoredFeatures]) -> LocalPart:
        folder = self._store.directory / LOCAL
        with writing_to(folder):
            folder.mkdir(exist_ok=True)
        name = next_name(folder)
        files = write_folder_atomically(folder / name, lambda empty: write_local(empty, features))
        return LocalPart(name, files, len(features))

    def compact(self, *, only_if_due: bool = False) -> tuple[int, int]:
        """Merge neighbouring small parts and leave out dead rows; return how many parts there were, and are.

        Rows and their order stay, and so does the search side. Memory is that of one merged part.
        """
        manifest = self._store.manifest
        groups = plan_groups(manifest)
        before = len(manifest.parts)
        if all(map(is_kept, groups)) or (only_if_due and not is_due(manifest, groups)):
            return before, before
        parts: list[Part] = []
        number = manifest.next_part
        for group in groups:
            if is_kept(group):
                parts.extend(group)
            else:
                parts.append(self._merge(part_name(number), group))
                number += 1
        changed = replace(manifest, parts=tuple(parts), next_part=number)
        if manifest.fresh_search is not None:
            side = replace(manifest.fresh_search, fingerprint=changed.fingerprint, made_from=changed.made_from)
            changed = replace(changed, search=side)
        self._replace(changed)
        self._rows = self._locate()
        self._clean()
        return before, len(parts)

    def _replace(self, manifest: Manifest) -> None:
        self._store.replace_manifest(manifest)
        self._settle_skipped()

    def _write_part(self, name: str, added: Sequence[Embedded], made_by: MadeBy) -> Part:
        path = self._store.directory / EMBEDDINGS / name
        write_part(path, added, Origin(self._store.spec, made_by.name, made_by.precision))
        file = FileHash.of(path)
        return Part(name, file.bytes, file.sha256, len(added), made_by.name, made_by.precision)

    def _merge(self, name: str, group: Group) -> Part:
        path, first = self._store.directory / EMBEDDINGS / name, group[0]
        rows = [self._store.live_rows(part) for part in group]
        # Read through first: what is damaged must not get a new hash that says it is whole.
        folder = path.parent
        sources = [(part.check(folder), live) for part, live in zip(group, rows, strict=True)]
        merge_parts(path, sources, Origin(self._store.spec, first.engine, first.precision))
        file = FileHash.of(path)
        return Part(name, file.bytes, file.sha256, sum(map(len, rows)), first.engine, first.precision)

    def _write_skipped(self, skipped: Mapping[str, Skipped]) -> FileHash:
        path = self._store.directory / SKIPPED_NEXT
        write_skipped(path, skipped.values())
        return replace(FileHash.of(path), name=SKIPPED)

    def _settle_skipped(self) -> None:
        """Give the list of skipped files its name, if the manifest knows it; else it is of a run that crashed."""
        following = self._store.directory / SKIPPED_NEXT
        if not following.exists():
            return
        known = self._store.manifest.skipped
        with writing_to(following):
            if known is not None and FileHash.of(following).sha256 == known.sha256:
                os.replace(following, following.with_name(SKIPPED))
                flush_directory(self._store.directory)
            else:
                following.unlink()

    def _clean(self) -> None:
        """Remove what no manifest names. What cannot be removed now, Windows' mapped files, is the next one's."""
        self._settle_skipped()
        for path in self._store.leftovers():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def next_name(folder: Path) -> str:
    """Return the next number as a name: never one that was in use, since a reader may have it mapped."""
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return f"{max(numbers, default=0) + 1:06}"


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items, so many at a time."""
    source = iter(items)
    while some := tuple(islice(source, size)):
        yield some


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 for a folder, and for a file that a writer has just removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever a file is replaced; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def by_maker(photos: Sequence[Embedded]) -> dict[MadeBy, list[Embedded]]:
    """Return the photos apart by what made their embeddings, which a part records once."""
    apart: dict[MadeBy, list[Embedded]] = {}
    for photo in photos:
        apart.setdefault(photo.made_by, []).append(photo)
    return apart


def _relative(root: Path, directory: Path) -> str:
    try:
        return Path(os.path.relpath(root, directory)).as_posix()
    except ValueError:  # another drive of Windows: no relative path leads there
        return root.as_posix()
