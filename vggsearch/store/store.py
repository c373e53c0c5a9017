"""The store: live photos and their embeddings, read by anyone, changed by one writer at a time."""

import os
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged, IndexExists, IndexLocked
from vggsearch.extract import Embedded, MadeBy
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos import PhotoFile, Skipped
from vggsearch.places import MANIFEST
from vggsearch.store.files import TEMPORARY
from vggsearch.store.manifest import Manifest, Part, SearchSide, read_manifest, write_manifest
from vggsearch.store.parts import read_columns, read_embeddings, read_skipped, write_part, write_skipped

EMBEDDINGS = "embeddings"
SEARCH = "search"
SKIPPED = "skipped.parquet"
LOCK = "writer.lock"
HOLDER = "writer.txt"


class Store:
    """Photos, their facts and embeddings in one directory.

    A store shows the state it was opened with; `refresh` moves it to the last committed one. Rows are the live
    photos, part after part, in the order of each part.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def create(cls, directory: Path, spec: EmbeddingSpec, weights_file: Path | None = None) -> "Store":
        """Make an empty store. Raises IndexExists where there is one, or other files, already."""
        if directory.exists() and any(directory.iterdir()):
            what = "an index already" if (directory / MANIFEST).exists() else "not empty and not an index"
            raise IndexExists(f"{directory} is {what}. Name another place with --index.")
        (directory / EMBEDDINGS).mkdir(parents=True, exist_ok=True)
        manifest = Manifest(spec, str(weights_file.resolve()) if weights_file is not None else None)
        write_manifest(directory, manifest)
        return cls(directory, manifest)

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open the store in `directory`. Raises IndexMissing, IndexFormatError or IndexDamaged."""
        return cls(directory, read_manifest(directory))

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings are made of."""
        return self.manifest.embedding

    def __len__(self) -> int:
        """How many photos are live."""
        return self.manifest.rows

    def refresh(self) -> None:
        """Move to the last committed state."""
        self.manifest = read_manifest(self.directory)

    def paths(self) -> list[str]:
        """Return the paths of the live photos, in row order."""
        return [path for part in self.manifest.parts for path in self.column(part, "path")]

    def files(self) -> dict[str, PhotoFile]:
        """Return the live photos as the walk saw them, by path, in row order."""
        columns = ("path", "bytes", "mtime_ns")
        rows = (
            PhotoFile(*row)
            for part in self.manifest.parts
            for row in zip(*(self.column(part, name) for name in columns), strict=True)
        )
        return {file.path: file for file in rows}

    def embeddings(self) -> Iterator[NDArray[np.float16]]:
        """Yield the live embeddings part by part: float16 (rows, dim), together in row order."""
        return map(self.part_embeddings, self.manifest.parts)

    def part_embeddings(self, part: Part) -> NDArray[np.float16]:
        """Return the live embeddings of a part, float16 (rows, dim)."""
        numbers = read_embeddings(self._part_path(part), self.spec.dim)
        self._check_rows(part, len(numbers))
        return numbers[self.live_rows(part)] if part.dead else numbers

    def skipped(self) -> dict[str, Skipped]:
        """Return the files that could not be used, by path."""
        return {skipped.path: skipped for skipped in read_skipped(self.directory / SKIPPED)}

    def search_directory(self, fingerprint: str) -> Path:
        """Return where the FAISS files of the state with this fingerprint are, or would be."""
        return self.directory / SEARCH / fingerprint[:16]

    @property
    def bytes(self) -> int:
        """Size on disk, in bytes."""
        return sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())

    @contextmanager
    def writing(self) -> Iterator["StoreWriter"]:
        """Become the one writer. Raises IndexLocked where another process is.

        The lock is the operating system's, so it ends with its process, however that ends.
        """
        lock = FileLock(self.directory / LOCK, timeout=0)
        holder = self.directory / HOLDER
        try:
            lock.acquire()
        except Timeout as error:
            who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
            raise IndexLocked(f"{self.directory} is being written by {who}. Wait for it, or stop it.") from error
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            self.refresh()
            yield StoreWriter(self)
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def live_rows(self, part: Part) -> list[int]:
        """Return the positions in the part of the rows that still count."""
        dead = set(part.dead)
        return [row for row in range(part.rows) if row not in dead]

    def column(self, part: Part, name: str) -> list[Any]:
        """Return one column of a part, live rows only."""
        values = read_columns(self._part_path(part), [name]).column(name).to_pylist()
        self._check_rows(part, len(values))
        return [values[row] for row in self.live_rows(part)] if part.dead else values

    def _part_path(self, part: Part) -> Path:
        return self.directory / EMBEDDINGS / part.name

    def _check_rows(self, part: Part, rows: int) -> None:
        if rows != part.rows:
            raise IndexDamaged(f"{self._part_path(part)} has {rows} rows, the manifest says {part.rows}.")


class StoreWriter:
    """Changes a store, one commit at a time; each commit is all or nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clean()
        self._rows = {
            path: (part.name, row)
            for part in store.manifest.parts
            for path, row in zip(store.column(part, "path"), store.live_rows(part), strict=True)
        }

    def commit(self, added: Sequence[Embedded], gone: Collection[str] = ()) -> None:
        """Add photos, replacing those of the same path, and drop the `gone` paths, in one step."""
        manifest = self._store.manifest
        dead: dict[str, set[int]] = {}
        for path in {*gone, *(photo.file.path for photo in added)} & self._rows.keys():
            part_name, row = self._rows[path]
            dead.setdefault(part_name, set()).add(row)
        if not added and not dead:
            return
        changed = manifest.without_rows(dead)
        rows: dict[str, tuple[str, int]] = {}
        for made_by, photos in by_maker(added).items():
            part = self._write_part(f"part-{changed.next_part:06}.parquet", photos, made_by)
            changed = replace(changed, parts=(*changed.parts, part), next_part=changed.next_part + 1)
            rows |= {photo.file.path: (part.name, row) for row, photo in enumerate(photos)}
        self._replace(changed)
        for path in gone:
            self._rows.pop(path, None)
        self._rows |= rows

    def set_root(self, root: Path) -> None:
        """Remember the photo folder, relative to the index so that the two can move together."""
        text = _relative(root.resolve(), self._store.directory.resolve())
        if text != self._store.manifest.root:
            self._replace(replace(self._store.manifest, root=text))

    def set_skipped(self, skipped: Mapping[str, Skipped]) -> None:
        """Replace the list of files that could not be used."""
        if skipped != self._store.skipped():
            write_skipped(self._store.directory / SKIPPED, skipped.values())

    def set_search(self, recipe: str) -> None:
        """Name the search side that belongs to the present state, and remove those of earlier ones."""
        fingerprint = self._store.manifest.fingerprint
        self._replace(replace(self._store.manifest, search=SearchSide(recipe, fingerprint)))
        self._clean()

    def _replace(self, manifest: Manifest) -> None:
        write_manifest(self._store.directory, manifest)
        self._store.manifest = manifest

    def _write_part(self, name: str, added: Sequence[Embedded], made_by: MadeBy) -> Part:
        path = self._store.directory / EMBEDDINGS / name
        sha256 = write_part(path, added, self._store.spec.dim)
        return Part(name, len(added), path.stat().st_size, sha256, made_by.name, made_by.precision)

    def _clean(self) -> None:
        """Remove what no manifest names: parts of a run that crashed, temporary files, old search sides."""
        directory, manifest = self._store.directory, self._store.manifest
        named = {part.name for part in manifest.parts}
        for path in (directory / EMBEDDINGS).glob("part-*"):
            if path.name not in named:
                path.unlink()
        for path in directory.glob(f"*{TEMPORARY}"):
            path.unlink()
        current = self._store.search_directory(manifest.search.fingerprint) if manifest.search else None
        for path in (directory / SEARCH).glob("*"):
            if path != current:
                shutil.rmtree(path)


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
