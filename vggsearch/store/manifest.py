"""manifest.json: what an index holds and how it was made. It is replaced last and is the only truth."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged, IndexFormatError, IndexMissing, OptionError, Spelled
from vggsearch.model.spec import EmbeddingSpec, spec_from_json
from vggsearch.store.contents import MANIFEST, user_files
from vggsearch.store.files import FileHash, reading_from, write_atomically
from vggsearch.store.local_features import LocalPart
from vggsearch.store.migrations import migrate

FORMAT = 5
CHECKSUM = "sha256"


@dataclass(frozen=True)
class Part(FileHash):
    """One Parquet file of embeddings. It never changes; `dead` lists the rows that no longer count."""

    rows: int
    engine: str
    precision: str
    dead: tuple[int, ...] = ()


@dataclass(frozen=True)
class WhiteningInfo:
    """How the whitening of a search side was learned: with how many photos, to how many numbers, how shrunk."""

    rows: int
    dim: int
    shrinkage: float


@dataclass(frozen=True)
class BuildOptions:
    """What a person wants of the FAISS index: `recipe` is auto, a name, or a FAISS factory string.

    `memory` is how many bytes it may take, `recall` the share of the ten nearest photos that it is to find,
    `metric` how FAISS is to compare them, cosine or euclidean.
    """

    recipe: str = BUILD.recipe
    metric: str = BUILD.metric
    memory: int = BUILD.memory
    recall: float = BUILD.recall


@dataclass(frozen=True)
class VectorIndexInfo:
    """How a search side was made and how it is searched.

    `factory` is FAISS's string for the recipe. Its `lists` were learned when there were `trained_rows` photos.
    `effort`, `candidates`, `recall` and `milliseconds` are those of index.vector_index.Tuning. `whitening` is None
    where the embeddings themselves are searched.
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
class MadeFrom:
    """A part as it was when a search side was made from it: its name, its rows, and those that were dead."""

    name: str
    rows: int
    dead: tuple[int, ...]

    def mask(self, dead: Sequence[int]) -> NDArray[np.bool_]:
        """Return which of its rows live, bool (rows,), where some are dead."""
        lives = np.ones(self.rows, bool)
        lives[list(dead)] = False
        return lives


@dataclass(frozen=True)
class StoredVectorIndex(VectorIndexInfo):
    """The FAISS files derived from the parts: how they were made, the fingerprint of what from, where they are."""

    fingerprint: str
    name: str
    files: tuple[FileHash, ...]
    made_from: tuple[MadeFrom, ...]

    @property
    def facts(self) -> VectorIndexInfo:
        """How it was made and is searched, without where it is."""
        return VectorIndexInfo(**{field.name: getattr(self, field.name) for field in fields(VectorIndexInfo)})


@dataclass(frozen=True)
class Manifest:
    """The whole state of an index.

    `is_whitened` says whether its search side is to be whitened, where that helps. `root` is the photo folder,
    relative to the index where it can be. `weights_file` is the file a person
    named, None where vggsearch finds the weights itself. `next_part` numbers the next part: no name is reused.
    `build` is what the next search side is to be like. `has_local` says whether local features are to be kept, and
    `local` are those that are.
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
    has_local: bool = False
    local: tuple[LocalPart, ...] = ()
    format: int = FORMAT

    @cached_property
    def fingerprint(self) -> str:
        """Hash of exactly which rows are live: equal fingerprints mean equal embeddings in equal order."""
        state = [asdict(self.embedding), [(part.name, part.sha256, part.dead) for part in self.parts]]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    @property
    def fresh_vector_index(self) -> StoredVectorIndex | None:
        """The search side, if it was made from exactly the live rows."""
        return self.search if self.search is not None and self.search.fingerprint == self.fingerprint else None

    @property
    def made_from(self) -> tuple[MadeFrom, ...]:
        """The parts, as a search side remembers them."""
        return tuple(MadeFrom(part.name, part.rows, part.dead) for part in self.parts)

    @property
    def rows(self) -> int:
        """How many photos are live."""
        return sum(part.rows - len(part.dead) for part in self.parts)

    def surviving_rows(self, side: StoredVectorIndex) -> tuple[NDArray[np.int64], tuple[Part, ...]] | None:
        """Return which rows of a search side are still live, ascending, and the parts that were added since.

        None where that cannot be told: parts it was made from were merged, or it does not say which they were.
        """
        now = {part.name: part for part in self.parts}
        made = [part.name for part in side.made_from]
        held = [name for name in made if name in now]
        if not held or [part.name for part in self.parts[: len(held)]] != held:
            return None
        kept = [np.empty(0, np.int64)]
        rows = 0
        for part in side.made_from:
            then, live = (
                part.mask(part.dead),
                part.mask(now[part.name].dead if part.name in now else range(part.rows)),
            )
            if (live & ~then).any():
                return None
            kept.append(rows + np.flatnonzero(live[then]))
            rows += int(then.sum())
        return np.concatenate(kept), self.parts[len(held) :]

    @property
    def made_by(self) -> tuple[str, ...]:
        """Engines and precisions that made the embeddings, each once: ("torch bf16",)."""
        return tuple(dict.fromkeys(f"{part.engine} {part.precision}" for part in self.parts))

    def without_rows(self, dead: dict[str, set[int]]) -> "Manifest":
        """Return the state with more rows dead: row numbers by part name. A part with no live row is dropped."""
        parts = []
        for part in self.parts:
            rows = {*part.dead, *dead.get(part.name, ())}
            if len(rows) < part.rows:
                parts.append(replace(part, dead=tuple(sorted(rows))))
        return replace(self, parts=tuple(parts))


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:06}.parquet"


def part_number(name: str) -> int:
    """Return the number in the file name of a part; 0 if there is none."""
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdecimal() else 0


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest of the index in `directory`, as the last step of a change."""
    values = asdict(manifest)
    text = json.dumps({**values, CHECKSUM: checksum(values)}, indent=2) + "\n"

    def write(path: Path) -> None:
        path.write_text(text, encoding="ascii")

    write_atomically(directory / MANIFEST, write)


def checksum(values: dict[str, Any]) -> str:
    """Return the hash of all fields but the checksum itself, as docs/index-format.md defines it."""
    fields = {name: value for name, value in values.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest in `directory`, brought up to the present format.

    Raises IndexMissing where there is none, IndexFormatError for a newer format, IndexDamaged for the rest.
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
            f"{path} has format {found}; this vggsearch reads formats 1 to {FORMAT}. Update vggsearch: "
            "pip install --upgrade vggsearch"
        )
    if found > 1 and values.get(CHECKSUM) != checksum(values):
        raise IndexDamaged(path, "is damaged (its checksum is not that of its fields)")
    try:
        return _from_json(migrate(values, directory, FORMAT))
    except (AttributeError, KeyError, TypeError, ValueError, OptionError) as error:
        raise IndexDamaged(path, f"is damaged ({type(error).__name__}: {error})") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        where = path.parent
        raise IndexMissing(
            f"{where} is not an index: it has no {MANIFEST}. Create one: ",
            Spelled(f"ImageIndex.for_photos(PHOTOS, {str(where)!r})", f"vggsearch index PHOTOS --index {where}"),
            ". Its decisions and undo journals are kept." if user_files(where) else "",
        ) from error


def _from_json(values: dict[str, Any]) -> Manifest:
    return Manifest(
        embedding=spec_from_json(values["embedding"]),
        is_whitened=bool(values["is_whitened"]),
        weights_file=values["weights_file"],
        root=values["root"],
        parts=tuple(_part(part) for part in values["parts"]),
        next_part=int(values["next_part"]),
        build=BuildOptions(**values["build"]),
        skipped=FileHash(**values["skipped"]) if values["skipped"] is not None else None,
        search=_search(values["search"]) if values["search"] is not None else None,
        has_local=bool(values["has_local"]),
        local=tuple(_local(part) for part in values["local"]),
    )


def _local(values: dict[str, Any]) -> LocalPart:
    return LocalPart(**{**values, "files": tuple(FileHash(**file) for file in values["files"])})


def _part(values: dict[str, Any]) -> Part:
    return Part(**{**values, "dead": tuple(int(row) for row in values["dead"])})


def _search(values: dict[str, Any]) -> StoredVectorIndex:
    if Path(values["name"]).name != values["name"]:
        raise ValueError(f"the folder name {values['name']!r} leaves the index")
    whitening = WhiteningInfo(**values["whitening"]) if values["whitening"] is not None else None
    files = tuple(FileHash(**file) for file in values["files"])
    made_from = tuple(MadeFrom(made["name"], made["rows"], tuple(made["dead"])) for made in values["made_from"])
    return StoredVectorIndex(**{**values, "files": files, "whitening": whitening, "made_from": made_from})
