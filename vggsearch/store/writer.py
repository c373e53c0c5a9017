"""The one writer of a store: each commit is all or nothing, and what no state needs is removed."""

import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from vggsearch.defaults import COMPACT
from vggsearch.errors import IndexDamaged
from vggsearch.photos.walk import Skipped
from vggsearch.store.compaction import Group, is_due, is_kept, plan_groups
from vggsearch.store.contents import EMBEDDINGS, LOCAL, SEARCH, SKIPPED, SKIPPED_NEXT
from vggsearch.store.files import FileHash, flush_directory, write_folder_atomically, writing_to
from vggsearch.store.local_features import ROWS, LocalPart, StoredFeatures, write_local
from vggsearch.store.lock import only_writer
from vggsearch.store.manifest import BuildOptions, Manifest, Part, StoredVectorIndex, VectorIndexInfo, part_name
from vggsearch.store.parts import Origin, merge_parts, write_part, write_skipped
from vggsearch.store.records import Embedded, MadeBy
from vggsearch.store.store import Store

log = logging.getLogger(__name__)

Item = TypeVar("Item")


@contextmanager
def writing(store: Store) -> Iterator["StoreWriter"]:
    """Become the one writer of a store. Raises IndexLocked where another process is, IndexNotWritable."""
    with only_writer(store.directory):
        store.refresh()
        yield StoreWriter(store)


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

    def set_vector_index(
        self, make: Callable[[Path], VectorIndexInfo], wanted: BuildOptions | None = None
    ) -> StoredVectorIndex:
        """Let `make` fill a folder with the search side of the present state; remove those of earlier ones.

        `wanted` is what later ones are to be like, if not as before.
        """
        folder = self._store.directory / SEARCH
        name = next_name(folder)
        facts: list[VectorIndexInfo] = []
        files = write_folder_atomically(folder / name, lambda path: facts.append(make(path)))
        manifest = self._store.manifest
        side = StoredVectorIndex(
            **vars(facts[0]), fingerprint=manifest.fingerprint, name=name, files=files, made_from=manifest.made_from
        )
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
        if features:
            self._replace(replace(manifest, local=(*manifest.local, self._write_local(features))))

    def compact_local(self, live: Collection[str]) -> None:
        """Leave out local features of no `live` photo, and merge small folders, where that is worth it.

        Features that are damaged stay as they are, for `verify` to tell.
        """
        manifest = self._store.manifest
        held = self._store.local().held()
        dead = len(held.difference(live))
        spare = len(manifest.local) - -(-len(held) // ROWS)
        if spare < COMPACT.spare_parts and dead <= COMPACT.dead_share * len(held):
            return
        # Read through first: what is damaged must not get a new hash that says it is whole.
        try:
            kept = [self._write_local(dict(some)) for some in batched(self._store.local().features(live), ROWS)]
        except IndexDamaged as error:
            log.warning("%s It is left as it is: vggsearch verify --repair drops it.", error)
            self._clean()
            return
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
        if manifest.fresh_vector_index is not None:
            side = replace(
                manifest.fresh_vector_index, fingerprint=changed.fingerprint, made_from=changed.made_from
            )
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
