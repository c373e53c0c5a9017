"""The store: live photos and their embeddings, with any number of readers and one writer at a time."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged, IndexExists, OptionError, SpecMismatch, Spelled, shell_word
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.photos.addresses import is_address
from vggsearch.photos.perceptual_hash import BYTES, NO_HASH
from vggsearch.photos.walk import Skipped, printable
from vggsearch.store.arrow import numbers, positions
from vggsearch.store.contents import (
    CACHES,
    EMBEDDINGS,
    LOCAL,
    LOCK_HOLDER,
    MANIFEST,
    SEARCH_FOLDER,
    SKIPPED,
    SKIPPED_NEXT,
    derived_files,
    foreign_files,
    has_parts,
    user_files,
)
from vggsearch.store.files import (
    FileHash,
    flush_directory,
    writing_to,
)
from vggsearch.store.local_features import LocalStore
from vggsearch.store.manifest import (
    ROLES,
    Manifest,
    Part,
    Role,
    read_manifest,
    write_manifest,
)
from vggsearch.store.own_files import check_links, followed, leftovers
from vggsearch.store.parts import (
    BLANK,
    PERCEPTUAL_HASH,
    bytes_of,
    embeddings_in,
    part_schema,
    read_columns,
    read_part,
    read_skipped,
)
from vggsearch.store.paths import Paths, arrow_paths
from vggsearch.system.places import Place
from vggsearch.system.reading import reading_from

Item = TypeVar("Item")
Result = TypeVar("Result")

ManifestId: TypeAlias = tuple[int, int, int] | None  # changes whenever the file is replaced; None without a file


class Store:
    """Photos with their metadata and embeddings, in one directory.

    A store shows the state it was opened with; `refresh` moves it to the last committed state. Rows are the live
    photos, part by part, in the order of each part. A writer removes the files of old states, so reads that involve
    files are wrapped in `read_consistently`.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self._place = Place(directory)
        self._changing = Lock()  # so that no thread replaces a state by an older one
        self._intact: set[FileHash] = set()  # files of local features whose hashes were checked
        self._show(manifest, _identity(directory / MANIFEST))

    @classmethod
    def create(cls, directory: Path, spec: EmbeddingSpec, weights_file: Path | None = None) -> "Store":
        """Create an empty store. `directory` may hold the user's decisions and journals of a lost index.

        Raises IndexExists if `directory` is already an index or holds other files, IndexLinked for a link.
        """
        directory = followed(directory)
        _check_encodable(directory)
        check_links(directory)
        if directory.exists():
            _check_free(directory)
        with writing_to(directory):
            for folder in (EMBEDDINGS, SEARCH_FOLDER):
                (directory / folder).mkdir(parents=True, exist_ok=True)
            flush_directory(directory.parent)
        manifest = Manifest(spec, weights_file=str(weights_file.resolve()) if weights_file is not None else None)
        write_manifest(directory, manifest)
        return cls(directory, manifest)

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open the store in `directory`. Raises IndexMissing, IndexFormatError, IndexDamaged or IndexLinked."""
        directory = followed(directory)
        _check_encodable(directory)
        check_links(directory)
        while True:
            manifest_id = _identity(directory / MANIFEST)
            try:
                store = cls(directory, read_manifest(directory))
            except IndexDamaged:
                if manifest_id == _identity(directory / MANIFEST):
                    raise
                continue  # a commit in between may have removed a file of dead rows
            store._show(store.manifest, manifest_id)  # from before reading, so that a commit in between is noticed
            return store

    def _show(self, manifest: Manifest, manifest_id: ManifestId) -> None:
        """Show a state: in one assignment, so that no thread sees a manifest with the identity of another."""
        self._state = manifest, manifest_id

    @property
    def directory(self) -> Path:
        """The folder of the index, also after a change of the current folder."""
        return self._place.path

    @property
    def manifest(self) -> Manifest:
        """The state that the store shows."""
        return self._state[0]

    @property
    def root(self) -> Path | None:
        """The photo folder, None before the first update."""
        root = self.manifest.root
        if root is None or is_address(Path(root)):
            return None if root is None else Path(root)
        return Path(os.path.normpath(self.directory / root))

    def at_this_state(self) -> "Store":
        """Return a store that goes on showing this state when this one is refreshed, by another thread perhaps."""
        return copy(self)

    @property
    def spec(self) -> EmbeddingSpec:
        """How the embeddings are computed."""
        return self.manifest.embedding

    def __len__(self) -> int:
        """Return the number of live photos."""
        return self.manifest.rows

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing was committed since this state was read. It costs one stat of the manifest."""
        manifest_id = self._state[1]
        return manifest_id is not None and manifest_id == _identity(self.directory / MANIFEST)

    def refresh(self) -> None:
        """Move to the last committed state. Raises SpecMismatch if the index was recreated with another spec."""
        with self._changing:
            if self.is_up_to_date:
                return
            latest = Store.open(self.directory)
            if latest.spec != self.spec:
                raise SpecMismatch(
                    f"{self.directory} was recreated: it held embeddings of {self.spec}, now of {latest.spec}. "
                    "Open it again."
                )
            self._state = latest._state

    def replace_manifest(self, manifest: Manifest) -> None:
        """Commit a state. Only for the holder of the write lock."""
        with self._changing:
            write_manifest(self.directory, manifest)
            self._show(manifest, _identity(self.directory / MANIFEST))

    def read_consistently(self, read: "Callable[[Store], Result]") -> Result:
        """Return `read` of the last committed state; if a commit removes its files meanwhile, of the new state.

        `read` gets a store of its own, which no other thread refreshes.
        """
        while True:
            self.refresh()
            present = self.at_this_state()
            try:
                return read(present)
            except IndexDamaged:
                if present.is_up_to_date:
                    raise

    def paths(self) -> Paths:
        """Return the paths of the live photos, in row order."""
        return Paths(self._live_values(part, "path") for part in self.manifest.parts)

    def blank_rows(self) -> NDArray[np.int64]:
        """Return the rows of blank photos, which are not compared, ascending."""
        flags = [numbers(self._live_values(part, BLANK)) for part in self.manifest.parts]
        return np.flatnonzero(np.concatenate([np.empty(0, bool), *flags]))

    def perceptual_hashes(self) -> NDArray[np.uint8]:
        """Return the perceptual hashes of the live photos: uint8 (n, BYTES), NO_HASH where none is known."""
        parts = [bytes_of(_without_nulls(self._live_hashes(part)), BYTES) for part in self.manifest.parts]
        return np.concatenate([np.empty((0, BYTES), np.uint8), *parts])

    def keys(self) -> NDArray[np.bytes_]:
        """Return the SHA-256 of the live photos, in row order, 64 bytes each."""
        parts = [bytes_of(self._live_values(part, "sha256"), 64) for part in self.manifest.parts]
        return np.concatenate([np.empty((0, 64), np.uint8), *parts]).view("S64")[:, 0]

    def count_without_hash(self) -> int:
        """Return how many live photos were indexed by a version that computed no perceptual hashes."""
        return sum(self._live_hashes(part).null_count for part in self.manifest.parts)

    def _live_hashes(self, part: Part) -> pa.ChunkedArray:
        values = self._live_values(part, PERCEPTUAL_HASH)
        if values.type != pa.binary(BYTES):
            raise IndexDamaged(self.part_path(part), f"has perceptual hashes of type {values.type}")
        return values

    def sha256s(self, paths: Collection[str]) -> dict[str, str]:
        """Return the SHA-256 of the photos with the given paths."""
        wanted = arrow_paths(paths)
        found: dict[str, str] = {}
        for part in self.manifest.parts if len(wanted) else ():
            paths_here = self._live_values(part, "path")
            is_wanted = pc.is_in(paths_here, value_set=wanted)
            if pc.any(is_wanted).as_py():
                here = (values.filter(is_wanted) for values in (paths_here, self._live_values(part, "sha256")))
                found |= zip(*(values.to_pylist() for values in here), strict=True)
        return found

    def embeddings(self) -> Iterator[NDArray[np.float16]]:
        """Yield the live embeddings part by part, in row order: float16 (n, dim)."""
        return map(self.part_embeddings, self.manifest.parts)

    def table(self) -> pa.Table:
        """Return all columns of the live photos, in row order."""
        parts = ((part, self.read_part(part)) for part in self.manifest.parts)
        live = [table.take(self.live_rows(part)) if part.dead else table for part, table in parts]
        return pa.concat_tables([part_schema(self.spec.dim).empty_table(), *live])

    def part_embeddings(self, part: Part) -> NDArray[np.float16]:
        """Return the live embeddings of a part: float16 (rows, dim)."""
        embeddings = embeddings_in(self.read_part(part))
        return embeddings[self.live_rows(part)] if part.dead else embeddings

    def read_part(self, part: Part) -> pa.Table:
        """Return a complete part, including dead rows. Raises IndexDamaged."""
        table = read_part(self.part_path(part), self.spec.dim)
        self._check_rows(part, table.num_rows)
        return table

    def skipped(self) -> dict[str, Skipped]:
        """Return the skipped files by path. Raises IndexDamaged."""
        known = self.manifest.skipped
        if known is None:
            return {}
        data = self._skipped_bytes(known)
        return {skipped.path: skipped for skipped in read_skipped(self.directory / SKIPPED, data)}

    def _skipped_bytes(self, known: FileHash) -> bytes:
        """Read the list of skipped files, under its temporary name if its commit was interrupted or is running."""
        while True:
            for path in (self.directory / SKIPPED_NEXT, self.directory / SKIPPED):
                with suppress(IndexDamaged), reading_from(path):
                    data = path.read_bytes()
                    if hashlib.sha256(data).hexdigest() == known.sha256:
                        return data
            known.check(self.directory)  # raises, unless the list was renamed in between

    def vector_index_directory(self, role: Role = "search") -> Path | None:
        """Return the folder of a vector index of this state, None if none exists. Raises IndexDamaged.

        Of large files only the size is checked, which takes no time; `verify` checks their hashes, too.
        """
        stored = self.manifest.fresh(role)
        if stored is None:
            return None
        directory = self.directory / SEARCH_FOLDER / stored.name
        for file in stored.files:
            check = file.check if file.bytes <= BUILD.hashed_bytes else file.check_size
            check(directory)
        return directory

    def last_vector_index_directory(self, role: Role = "search") -> Path | None:
        """Return the folder of the last vector index, of this or an earlier state; None if none exists."""
        stored = self.manifest.stored(role)
        return self.directory / SEARCH_FOLDER / stored.name if stored is not None else None

    def local(self) -> LocalStore:
        """Return the stored local features."""
        return LocalStore(self.directory / LOCAL, self.manifest.local, self.spec.cells_a_side**2, self._intact)

    def facts_of(self, rows: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return SHA-256, width and height of the photos in the given rows, in order. Only their parts are read."""
        return self.values_of(rows, ("sha256", "width", "height"))

    def values_of(self, rows: Sequence[int], columns: Sequence[str]) -> list[Any]:
        """Return the given columns of the photos in the given rows, one tuple each, in order.

        Only the parts of these rows are read.
        """
        parts = self.manifest.parts
        starts = np.cumsum([0, *(part.rows - len(part.dead) for part in parts)])
        wanted = np.asarray(rows, np.int64)
        owners = np.searchsorted(starts, wanted, "right") - 1
        found: list[Any] = [None] * len(wanted)
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            here = self.live_rows(parts[owner])[wanted[places] - starts[owner]]
            table = self.columns_of(parts[owner], list(columns))
            taken = table.take(positions(here)).select(columns).to_pydict()
            for place, values in zip(places.tolist(), zip(*taken.values(), strict=True), strict=True):
                found[place] = values
        return found

    def rows_of(self, paths: Collection[str]) -> dict[str, set[int]]:
        """Return the live rows of the photos with the given paths, by the name of their part."""
        wanted = arrow_paths(paths)
        found = {}
        for part in self.manifest.parts if len(wanted) else ():
            column = self.columns_of(part, ["path"]).column("path")
            rows = pc.indices_nonzero(pc.is_in(column, value_set=wanted)).to_pylist()
            if here := set(np.array(rows, np.int64)[part.dead.live(part.rows)[rows]].tolist()):
                found[part.name] = here
        return found

    def leftovers(self) -> list[Path]:
        """Return the files and folders that are no longer needed: from crashed runs and from old states."""
        manifest = self.manifest
        needed = {SKIPPED_NEXT, LOCK_HOLDER, *CACHES}
        needed.update(f"{EMBEDDINGS}/{part.name}" for part in manifest.parts)
        needed.update(
            f"{EMBEDDINGS}/{dead.as_file.name}" for dead in manifest.dead_rows
        )  # also if it could be listed
        needed.update(f"{LOCAL}/{part.name}" for part in manifest.local)
        stored = filter(None, map(manifest.stored, ROLES))
        needed.update(f"{SEARCH_FOLDER}/{each.name}" for each in stored)
        if manifest.skipped is not None:
            needed.add(SKIPPED)
        return leftovers(self.directory, needed)

    @property
    def bytes(self) -> int:
        """The size of the index on disk, in bytes."""
        return sum(size_of(Path(folder) / name) for folder, _, names in os.walk(self.directory) for name in names)

    def live_rows(self, part: Part) -> NDArray[np.int64]:
        """Return the positions of the live rows in the part, ascending: int64 (n,)."""
        return np.flatnonzero(part.dead.live(part.rows))

    def column(self, part: Part, name: str) -> list[Any]:
        """Return the live values of one column of a part."""
        values: list[Any] = self._live_values(part, name).to_pylist()
        return values

    def live_columns(self, part: Part, names: Sequence[str]) -> pa.Table:
        """Return columns of the live rows of a part. Raises IndexDamaged."""
        table = self.columns_of(part, names)
        return table.take(positions(self.live_rows(part))) if part.dead else table

    def columns_of(self, part: Part, names: Sequence[str]) -> pa.Table:
        """Return columns of a part, including dead rows. Raises IndexDamaged."""
        table = read_columns(self.part_path(part), names)
        self._check_rows(part, table.num_rows)
        return table

    def array(self, name: str) -> NDArray[Any]:
        """Return one column of all live photos as an array, in row order; an unknown date is NaT, text is str."""
        type = part_schema(self.spec.dim).field(name).type
        as_array = numbers if pa.types.is_integer(type) else pa.ChunkedArray.to_numpy
        columns = [
            as_array(self.columns_of(part, [name]).column(name))[part.dead.live(part.rows)]
            for part in self.manifest.parts
        ]
        return np.concatenate([np.empty(0, type.to_pandas_dtype()), *columns])

    def part_path(self, part: Part) -> Path:
        """Return the path of a part. Raises IndexDamaged if it is missing or has another size."""
        return part.check_size(self.directory / EMBEDDINGS)

    def _live_values(self, part: Part, name: str) -> pa.ChunkedArray:
        """Return the live values of one column of a part as an Arrow array, without creating Python objects."""
        return self.live_columns(part, [name]).column(name)

    def _check_rows(self, part: Part, rows: int) -> None:
        if rows != part.rows:
            path = self.directory / EMBEDDINGS / part.name
            raise IndexDamaged(path, f"has {rows:,} rows, but the manifest says {part.rows:,}")


def _without_nulls(hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return perceptual hashes with NO_HASH for those that are null."""
    return pc.fill_null(hashes, NO_HASH) if hashes.null_count else hashes


def _check_encodable(directory: Path) -> None:
    """Raise OptionError for a folder whose name Parquet and FAISS cannot open."""
    name = str(directory)
    if name != printable(name):
        raise OptionError(
            f"The folder of an index needs a name that is valid UTF-8, unlike {printable(name)}. Choose another",
            Spelled(".", ": --index FOLDER."),
        )


def _check_free(directory: Path) -> None:
    """Raise IndexExists unless an index can be created in `directory` without losing anything."""
    another = (" Choose another folder for the index", Spelled(".", ": --index FOLDER."))
    if not directory.is_dir():
        raise IndexExists(f"{directory} is a file.", *another)
    if (directory / MANIFEST).exists():
        raise IndexExists(f"{directory} is already an index.", *another)
    if has_parts(directory):
        raise IndexExists(
            f"{directory} has embeddings, but no {MANIFEST}. Rebuild it: ",
            Spelled(
                f"vggsearch.verify({str(directory)!r}, repair=True)",
                f"vggsearch verify --repair --index {shell_word(directory)}",
            ),
        )
    left = derived_files(directory)
    if foreign_files(directory) or (left and not user_files(directory)):
        raise IndexExists(f"{directory} is not empty and not an index.", *another)
    if left:
        raise IndexExists(
            f"{directory} holds {', '.join(path.name for path in left)} of a lost index. Delete these and nothing "
            "else: indexing recreates them, but your decisions and undo journals cannot be recreated."
        )


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 for a folder, and for a file that a writer has just removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _identity(path: Path) -> ManifestId:
    """Return the identity of the manifest at `path`."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
