"""Write to a store: every commit is atomic, and files that are no longer needed are removed."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from vggsearch.defaults import COMPACT
from vggsearch.errors import IndexDamaged
from vggsearch.photos.addresses import address_of, is_address
from vggsearch.photos.walk import Skipped
from vggsearch.store.compaction import Group, is_compact, is_due, plan_groups
from vggsearch.store.contents import EMBEDDINGS, LOCAL, SEARCH_FOLDER, SKIPPED, SKIPPED_NEXT
from vggsearch.store.files import FileHash, flush_directory, take_over, write_folder_atomically, writing_to
from vggsearch.store.local_features import ROWS, LocalPart, StoredFeatures, write_local
from vggsearch.store.lock import only_writer
from vggsearch.store.manifest import (
    ROLES,
    BuildOptions,
    Manifest,
    Part,
    Role,
    StoredVectorIndex,
    VectorIndexInfo,
    part_name,
)
from vggsearch.store.own_files import delete
from vggsearch.store.parts import Origin, merge_parts, write_part, write_skipped
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store

log = logging.getLogger(__name__)


@contextmanager
def writing(store: Store) -> Iterator["StoreWriter"]:
    """Open a store for writing. Raises IndexLocked if another process is writing, and IndexNotWritable."""
    with only_writer(store.directory):
        store.refresh()
        yield StoreWriter(store)


class StoreWriter:
    """Changes a store, one atomic commit at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clean()

    def commit(
        self,
        added: Sequence[Embedded],
        removed: Collection[str] = (),
        skipped: Mapping[str, Skipped] | None = None,
    ) -> None:
        """Add photos, replacing those with the same path, and drop the `removed` paths, in one step.

        `skipped`, by path, replaces the list of files that could not be used.
        """
        manifest = self._store.manifest
        changed = manifest.without_rows(self._store.rows_of({*removed, *(photo.file.path for photo in added)}))
        for made_by, photos in by_engine(added).items():
            part = self._write_part(part_name(changed.next_part), photos, made_by)
            changed = replace(changed, parts=(*changed.parts, part), next_part=changed.next_part + 1)
        if skipped is not None and skipped != self._store.skipped():
            changed = replace(changed, skipped=self._write_skipped(skipped))
        if changed != manifest:
            self._replace(changed)

    def adopt(self, others: Sequence[Store]) -> None:
        """Take over the photos, skipped files and local features of other stores in one commit.

        Their photos and embeddings must fit: no path twice, and one spec.
        """
        changed = self._store.manifest
        features, embeddings = self._store.directory / LOCAL, self._store.directory / EMBEDDINGS
        for other in others:
            for part in other.manifest.parts:
                taken = replace(part, name=part_name(changed.next_part))
                take_over(part, other.directory / EMBEDDINGS, embeddings / taken.name)
                changed = replace(changed, parts=(*changed.parts, taken), next_part=changed.next_part + 1)
            for stored in other.manifest.local:
                folder, source = features / next_name(features), other.directory / LOCAL / stored.name
                write_folder_atomically(folder, _write_nothing, stored.files, source)
                changed = replace(changed, local=(*changed.local, replace(stored, name=folder.name)))
        with writing_to(embeddings):
            flush_directory(embeddings)
        skipped = {path: found for other in others for path, found in other.skipped().items()}
        first = others[0].manifest
        self._replace(
            replace(
                changed,
                skipped=self._write_skipped(skipped) if skipped else None,
                has_local=any(other.manifest.has_local for other in others),
                is_whitened=first.is_whitened,
                build=first.build,
            )
        )

    def set_root(self, root: Path) -> None:
        """Store where the photos are: relative to the index, so that both can be moved together, or an address."""
        text = address_of(root) if is_address(root) else _relative(root.resolve(), self._store.directory.resolve())
        if text != self._store.manifest.root:
            self._replace(replace(self._store.manifest, root=text))

    def set_whitened(self, is_whitened: bool) -> None:
        """Set whether vectors are whitened. If that changes, the vector index is dropped and has to be rebuilt."""
        if is_whitened != self._store.manifest.is_whitened:
            self._replace(replace(self._store.manifest, is_whitened=is_whitened, search=None))

    def set_vector_index(
        self,
        build: Callable[[Path], VectorIndexInfo],
        options: BuildOptions | None = None,
        role: Role = "search",
        shared: Sequence[FileHash] = (),
    ) -> StoredVectorIndex:
        """Have `build` fill a folder with a vector index of the current state, and remove earlier ones of its role.

        `options`, if given, replaces the options for later builds. The files `shared` with the last vector index of
        the role are in the folder before.
        """
        folder = self._store.directory / SEARCH_FOLDER
        name = next_name(folder)
        facts: list[VectorIndexInfo] = []
        last = self._store.last_vector_index_directory(role)
        files = write_folder_atomically(folder / name, lambda path: facts.append(build(path)), shared, last)
        manifest = self._store.manifest
        stored = StoredVectorIndex(
            **vars(facts[0]),
            fingerprint=manifest.fingerprint,
            name=name,
            files=files,
            made_from=manifest.source_parts,
        )
        self._replace(_with_vector_index(replace(manifest, build=options or manifest.build), role, stored))
        self._clean()
        return stored

    def forget_learned(self) -> None:
        """Remove the vector index under a learned transform, if there is one."""
        if self._store.manifest.learned is not None:
            self._replace(replace(self._store.manifest, learned=None))
            self._clean()

    def set_local(self, has_local: bool) -> None:
        """Set whether local features are stored. If not, existing ones are removed."""
        if has_local != self._store.manifest.has_local:
            kept = self._store.manifest.local if has_local else ()
            self._replace(replace(self._store.manifest, has_local=has_local, local=kept))
            self._clean()

    def add_local(self, features: Mapping[str, StoredFeatures]) -> None:
        """Store local features, by the SHA-256 of each photo."""
        manifest = self._store.manifest
        if features:
            self._replace(replace(manifest, local=(*manifest.local, self._write_local(features))))

    def compact_local(self, live: Collection[str]) -> None:
        """Drop local features of photos that are not `live`, and merge small folders, if that saves enough.

        Damaged features are left unchanged, for `verify` to report.
        """
        manifest = self._store.manifest
        stored = self._store.local().all_keys()
        dead = len(stored.difference(live))
        spare = len(manifest.local) - -(-len(stored) // ROWS)
        if spare < COMPACT.spare_parts and dead <= COMPACT.dead_share * len(stored):
            return
        # Hashes are checked while reading: rewriting damaged features would give them a valid hash.
        kept, features = list[LocalPart](), self._store.local().features(live)
        try:
            while batch := dict(islice(features, ROWS)):
                kept.append(self._write_local(batch))
        except IndexDamaged as error:
            log.warning("%s; until then, the damaged local features are kept.", error)
            self._clean()
            return
        self._replace(replace(manifest, local=tuple(kept)))
        self._clean()

    def _write_local(self, features: Mapping[str, StoredFeatures]) -> LocalPart:
        folder = self._store.directory / LOCAL
        name = next_name(folder)
        files = write_folder_atomically(folder / name, lambda empty: write_local(empty, features))
        return LocalPart(name, files, len(features))

    def compact(self, *, only_if_due: bool = False) -> tuple[int, int]:
        """Merge small neighbouring parts and drop dead rows; return the number of parts before and after.

        The live rows and their order do not change, so the vector index remains valid. One merged part is in memory
        at a time.
        """
        manifest = self._store.manifest
        groups = plan_groups(manifest)
        before = len(manifest.parts)
        if all(map(is_compact, groups)) or (only_if_due and not is_due(manifest, groups)):
            return before, before
        parts: list[Part] = []
        number = manifest.next_part
        for group in groups:
            if is_compact(group):
                parts.extend(group)
            else:
                parts.append(self._merge(part_name(number), group))
                number += 1
        changed = replace(manifest, parts=tuple(parts), next_part=number)
        for role in ROLES:
            if (fresh := manifest.fresh(role)) is not None:
                stored = replace(fresh, fingerprint=changed.fingerprint, made_from=changed.source_parts)
                changed = _with_vector_index(changed, role, stored)
        self._replace(changed)
        self._clean()
        return before, len(parts)

    def _replace(self, manifest: Manifest) -> None:
        self._store.replace_manifest(manifest)
        self._settle_skipped()

    def _write_part(self, name: str, added: Sequence[Embedded], made_by: EngineInfo) -> Part:
        path = self._store.directory / EMBEDDINGS / name
        write_part(path, added, Origin(self._store.spec, made_by.name, made_by.precision))
        file = FileHash.of(path)
        return Part(name, file.bytes, file.sha256, len(added), made_by.name, made_by.precision)

    def _merge(self, name: str, group: Group) -> Part:
        path, first = self._store.directory / EMBEDDINGS / name, group[0]
        rows = [self._store.live_rows(part) for part in group]
        # Check hashes first: merging damaged parts would give them a valid hash.
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
        """Rename the new list of skipped files if the manifest lists it; otherwise a run crashed, and delete it."""
        following = self._store.directory / SKIPPED_NEXT
        if not following.exists():
            return
        known = self._store.manifest.skipped
        with writing_to(following):
            if known is not None and FileHash.of(following).sha256 == known.sha256:
                os.replace(following, following.with_name(SKIPPED))
                flush_directory(self._store.directory)
            else:
                delete(self._store.directory, following)

    def _clean(self) -> None:
        """Remove leftovers. What cannot be removed now (mapped files on Windows) is left to the next writer."""
        self._settle_skipped()
        for path in self._store.leftovers():
            with suppress(OSError):
                delete(self._store.directory, path)


def _write_nothing(folder: Path) -> None:
    """Write nothing into a folder: all its files are taken over."""


def _with_vector_index(manifest: Manifest, role: Role, stored: StoredVectorIndex) -> Manifest:
    return replace(manifest, search=stored) if role == "search" else replace(manifest, learned=stored)


def next_name(folder: Path) -> str:
    """Return the next number as a folder name, above all existing ones, which readers may have mapped."""
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return f"{max(numbers, default=0) + 1:06}"


def by_engine(photos: Sequence[Embedded]) -> dict[EngineInfo, list[Embedded]]:
    """Group photos by the engine of their embeddings, which a part records once for all its rows."""
    groups: dict[EngineInfo, list[Embedded]] = {}
    for photo in photos:
        groups.setdefault(photo.made_by, []).append(photo)
    return groups


def _relative(root: Path, directory: Path) -> str:
    try:
        return Path(os.path.relpath(root, directory)).as_posix()
    except ValueError:  # on another drive of Windows there is no relative path
        return root.as_posix()
