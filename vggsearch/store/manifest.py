"""manifest.json: what an index holds and how it was made. It is replaced last and is the only truth."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vggsearch.errors import IndexDamaged, IndexFormatError, IndexMissing, OptionError
from vggsearch.model.spec import EmbeddingSpec, spec_from_json
from vggsearch.places import MANIFEST
from vggsearch.store.files import write_atomically

FORMAT = 1


@dataclass(frozen=True)
class Part:
    """One Parquet file of embeddings. It never changes; `dead` lists the rows that no longer count."""

    name: str
    rows: int
    bytes: int
    sha256: str
    engine: str
    precision: str
    dead: tuple[int, ...] = ()


@dataclass(frozen=True)
class SearchSide:
    """The FAISS files derived from the parts: how they were made, and the fingerprint of what from."""

    recipe: str
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """The whole state of an index.

    `root` is the photo folder, relative to the index where it can be. `weights_file` is the file a person
    named, None where vggsearch finds the weights itself. `next_part` numbers the next part: no name is reused.
    """

    embedding: EmbeddingSpec
    weights_file: str | None = None
    root: str | None = None
    parts: tuple[Part, ...] = ()
    next_part: int = 1
    search: SearchSide | None = None
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Hash of exactly which rows are live: equal fingerprints mean equal embeddings in equal order."""
        state = [asdict(self.embedding), [(part.name, part.sha256, part.dead) for part in self.parts]]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """How many photos are live."""
        return sum(part.rows - len(part.dead) for part in self.parts)

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


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest of the index in `directory`, as the last step of a change."""
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(directory / MANIFEST, write)


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest in `directory`.

    Raises IndexMissing where there is none, IndexFormatError for another format, IndexDamaged for the rest.
    """
    path = directory / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexMissing(
            f"{directory} is no index, it has no {MANIFEST}. Make one: vggsearch index PHOTOS --index {directory}"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise IndexDamaged(f"{path} is damaged ({error}). Delete {directory} and index again.") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise IndexFormatError(
            f"{path} has format {found}; this vggsearch reads format {FORMAT}. Update vggsearch, or index again."
        )
    try:
        return _from_json(values)
    except (KeyError, TypeError, ValueError, OptionError) as error:
        raise IndexDamaged(
            f"{path} is damaged ({type(error).__name__}: {error}). Delete {directory} and index again."
        ) from error


def _from_json(values: dict[str, Any]) -> Manifest:
    search = values["search"]
    return Manifest(
        embedding=spec_from_json(values["embedding"]),
        weights_file=values["weights_file"],
        root=values["root"],
        parts=tuple(_part(part) for part in values["parts"]),
        next_part=int(values["next_part"]),
        search=SearchSide(**search) if search is not None else None,
    )


def _part(values: dict[str, Any]) -> Part:
    part = Part(**{**values, "dead": tuple(int(row) for row in values["dead"])})
    if Path(part.name).name != part.name:
        raise ValueError(f"part name {part.name!r} leaves the index")
    return part
