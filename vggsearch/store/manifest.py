"""manifest.json: what an index holds and how it was built. It is replaced last and alone decides what is valid."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged, IndexFormatError, IndexMissing, OptionError, Spelled, shell_word
from vggsearch.model.spec import EmbeddingSpec, spec_from_json
from vggsearch.store.checked import checked
from vggsearch.store.contents import EMBEDDINGS, MANIFEST, user_files
from vggsearch.store.dead_rows import ALL_LIVE, FILE, MOST_ROWS, ROWS, DeadRows, fingerprint_of, read_dead
from vggsearch.store.files import FileHash, check_name, write_atomically
from vggsearch.store.local_features import LocalPart
from vggsearch.store.migrations import migrate
from vggsearch.system.reading import reading_from

FORMAT = 9
CHECKSUM = "sha256"
MOST_SHOWN = 200  # characters of what is wrong, which may quote a value


Role = Literal["search", "learned"]
ROLES: tuple[Role, ...] = ("search", "learned")
"""Vector indexes of an index: the one that every use searches, and one under a learned transform, for queries."""


@dataclass(frozen=True)
class Part(FileHash):
    """One Parquet file of embeddings. The file never changes; `dead` are the rows that are no longer valid."""

    rows: int
    engine: str
    precision: str
    dead: DeadRows = ALL_LIVE


@dataclass(frozen=True)
class WhiteningInfo:
    """How a whitening was learned: from `rows` photos, to `dim` dimensions, with a `shrinkage` of 0..1.

    >>> index.info().search.whitening is None  # whitening needs 100 photos
    True
    """

    rows: int
    dim: int
    shrinkage: float


@dataclass(frozen=True)
class BuildOptions:
    """How the user wants the FAISS index to be built.

    `recipe` is auto, a key of RECIPES or a FAISS factory string. `memory` is the limit in bytes for the build,
    `recall` the share of the ten nearest photos to find, `metric` is cosine or euclidean.

    >>> index.info().wanted.recipe
    'auto'
    """

    recipe: str = BUILD.recipe
    metric: str = BUILD.metric
    memory: int = BUILD.memory
    recall: float = BUILD.recall


@dataclass(frozen=True)
class VectorIndexInfo:
    """How a vector index was built and is searched.

    `factory` is the FAISS factory string of the recipe. Its `lists` were learned when there were `trained_rows`
    photos. `effort`, `candidates`, `recall` and `milliseconds` are those of knn.vector_index.Tuning. `whitening` is
    None if the embeddings are not whitened.

    >>> index.info().search.recipe
    'flat'
    """

    recipe: str
    factory: str
    lists: int
    trained_rows: int
    effort: int
    candidates: int
    recall: float | None
    milliseconds: float | None
    whitening: WhiteningInfo | None


@dataclass(frozen=True)
class SourcePart:
    """A part as it was when a vector index was built from it: its name, number of rows, and dead rows."""

    name: str
    rows: int
    dead: DeadRows

    def __post_init__(self) -> None:
        """Raise ValueError for rows that the part cannot have."""
        if self.rows > MOST_ROWS or self.dead.last >= self.rows:
            raise ValueError(f"{self.name} has {self.rows:,} rows, and dead ones up to {self.dead.last:,}")


@dataclass(frozen=True)
class StoredVectorIndex(VectorIndexInfo):
    """The files of a vector index: how they were built, from which rows, and where they are.

    `fingerprint` is that of the manifest they were built for, `made_from` the parts. `name` is their folder.
    """

    fingerprint: str
    name: str
    files: tuple[FileHash, ...]
    made_from: tuple[SourcePart, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for a name that points to another folder."""
        check_name(self.name)

    @property
    def facts(self) -> VectorIndexInfo:
        """How it was built and is searched."""
        return VectorIndexInfo(**{field.name: getattr(self, field.name) for field in fields(VectorIndexInfo)})


@dataclass(frozen=True)
class Manifest:
    """The complete state of an index.

    `is_whitened` is whether its vectors are whitened, where that helps. `root` is the photo folder, relative to the
    index where possible. `weights_file` is the file the user named, None if vggsearch finds the weights itself.
    `next_part` is the number of the next part, as names are never reused. `build` are the options for the next
    vector index. `search` is the vector index, `learned` a second one for queries, whose whitening was learned from
    labels: its rows are the labelled photos. `has_local` is whether local features are stored, and `local` are
    those stored.
    """

    embedding: EmbeddingSpec
    is_whitened: bool = True
    weights_file: str | None = None
    root: str | None = None
    parts: tuple[Part, ...] = ()
    next_part: int = 1
    build: BuildOptions = BuildOptions()
    skipped: FileHash | None = None
    search: StoredVectorIndex | None = None
    learned: StoredVectorIndex | None = None
    has_local: bool = False
    local: tuple[LocalPart, ...] = ()
    format: int = FORMAT

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the live rows: equal fingerprints mean the same embeddings in the same order."""
        parts = ((part.name, part.sha256, part.dead) for part in self.parts)
        return fingerprint_of(asdict(self.embedding), parts)

    @property
    def fresh_vector_index(self) -> StoredVectorIndex | None:
        """The vector index, None if it was not built from exactly the live rows."""
        return self.fresh("search")

    def fresh(self, role: Role) -> StoredVectorIndex | None:
        """Return the vector index of a role, None if it was not built from exactly the live rows."""
        stored = self.stored(role)
        return stored if stored is not None and stored.fingerprint == self.fingerprint else None

    def stored(self, role: Role) -> StoredVectorIndex | None:
        """Return the last vector index of a role, of this or an earlier state; None if there is none."""
        return self.search if role == "search" else self.learned

    @property
    def source_parts(self) -> tuple[SourcePart, ...]:
        """The parts as a vector index records them."""
        return tuple(SourcePart(part.name, part.rows, part.dead) for part in self.parts)

    @property
    def rows(self) -> int:
        """The number of live photos."""
        return sum(part.rows - len(part.dead) for part in self.parts)

    def surviving_rows(self, stored: StoredVectorIndex) -> tuple[NDArray[np.int64], tuple[Part, ...]] | None:
        """Return the rows of a vector index that are still live, ascending, and the parts that were added since.

        Returns None if that cannot be determined: its parts were merged since, or are not recorded.
        """
        now = {part.name: part for part in self.parts}
        remaining = [part.name for part in stored.made_from if part.name in now]
        if not remaining or [part.name for part in self.parts[: len(remaining)]] != remaining:
            return None
        kept = [np.empty(0, np.int64)]
        rows = 0
        for part in stored.made_from:
            was_live = part.dead.live(part.rows)
            is_live = now[part.name].dead.live(part.rows) if part.name in now else np.zeros(part.rows, bool)
            if (is_live & ~was_live).any():
                return None
            kept.append(rows + np.flatnonzero(is_live[was_live]))
            rows += int(was_live.sum())
        return np.concatenate(kept), self.parts[len(remaining) :]

    @property
    def dead_rows(self) -> tuple[DeadRows, ...]:
        """The dead rows of each part, and of each part as a vector index was made from it."""
        sides = (side for role in ROLES if (side := self.stored(role)) is not None)
        return (*(part.dead for part in self.parts), *(part.dead for side in sides for part in side.made_from))

    @property
    def made_by(self) -> tuple[str, ...]:
        """The engines and precisions that computed the embeddings, each once: ("torch bf16",)."""
        return tuple(dict.fromkeys(f"{part.engine} {part.precision}" for part in self.parts))

    def without_rows(self, dead: dict[str, set[int]]) -> "Manifest":
        """Return the state with more dead rows, given by part name. A part without live rows is dropped."""
        parts = []
        for part in self.parts:
            rows = part.dead | DeadRows.of(dead.get(part.name, ()))
            if len(rows) < part.rows:
                parts.append(replace(part, dead=rows))
        return replace(self, parts=tuple(parts))


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:06}.parquet"


def part_number(name: str) -> int:
    """Return the number in the file name of a part; 0 if none exists."""
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdecimal() else 0


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest of the index in `directory`, the last step of every change."""
    for dead in set(manifest.dead_rows):
        dead.write(directory / EMBEDDINGS)
    values = _to_json(manifest)
    text = json.dumps({**values, CHECKSUM: checksum(values)}, indent=2) + "\n"

    def write_text(path: Path) -> None:
        path.write_text(text, encoding="ascii")

    write_atomically(directory / MANIFEST, write_text)


def _to_json(manifest: Manifest) -> dict[str, Any]:
    values = asdict(manifest)
    for part, dead in zip(_with_dead_rows(values), manifest.dead_rows, strict=True):
        part.update(dead.to_json())
    return values


def _with_dead_rows(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what has dead rows in the values of a manifest, in the order of Manifest.dead_rows."""
    sides = (values[role] for role in ROLES if values[role] is not None)
    return [*values["parts"], *(part for side in sides for part in side["made_from"])]


def checksum(values: dict[str, Any]) -> str:
    """Return the hash of all fields except the checksum, as defined in docs/index-format.md."""
    fields = {name: value for name, value in values.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def read_manifest(directory: Path, lost: list[IndexDamaged] | None = None) -> Manifest:
    """Return the manifest in `directory`, converted to the current format.

    Raises IndexMissing if none exists, IndexFormatError for a newer format, IndexDamaged or IndexNotReadable. If
    `lost` is given, damage to files of dead rows is added to it instead, and all rows of their parts are live.
    """
    path = directory / MANIFEST
    try:
        with reading_from(path):
            values = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise IndexDamaged(path, f"is damaged ({error})") from error
    found = values.get("format") if isinstance(values, dict) else None
    if not isinstance(found, int) or found < 1:
        raise IndexDamaged(path, f"is damaged (its format is {found})")
    if found > FORMAT:
        raise IndexFormatError(
            f"{path} has format {found}, but this version of vggsearch reads formats 1 to {FORMAT}. "
            "Upgrade vggsearch."
        )
    if found > 1 and values.get(CHECKSUM) != checksum(values):
        raise IndexDamaged(path, "is damaged (wrong checksum)")
    try:
        return _from_json(migrate(values, directory, FORMAT), directory / EMBEDDINGS, lost)
    except (AttributeError, KeyError, TypeError, ValueError, OptionError, RecursionError) as error:
        raise IndexDamaged(path, f"is damaged ({type(error).__name__}: {str(error)[:MOST_SHOWN]})") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        directory = path.parent
        raise IndexMissing(
            f"{directory} is not an index: it has no {MANIFEST}. Create one: ",
            Spelled(
                f"ImageIndex.for_photos(PHOTOS, {str(directory)!r})",
                f"vggsearch index PHOTOS --index {shell_word(directory)}",
            ),
            ". The decisions and undo journals in it are kept." if user_files(directory) else "",
        ) from error


def _from_json(values: dict[str, Any], folder: Path, lost: list[IndexDamaged] | None) -> Manifest:
    spec = asdict(spec_from_json(values["embedding"]))
    found = {name: value for name, value in values.items() if name != CHECKSUM}
    for part in _with_dead_rows(found):
        try:
            part[ROWS] = read_dead(part, folder)
        except IndexDamaged as error:
            if lost is None:
                raise
            lost.append(error)
            part[ROWS] = ALL_LIVE
        del part[FILE]
    manifest = checked(Manifest, {**found, "embedding": {**spec, "sizes": list(spec["sizes"])}})
    return _without_sources(manifest) if lost else manifest


def _without_sources(manifest: Manifest) -> Manifest:
    """Forget which rows the vector indexes were made from, so that they are not updated but made anew."""
    search, learned = (side and replace(side, made_from=()) for side in (manifest.search, manifest.learned))
    return replace(manifest, search=search, learned=learned)
