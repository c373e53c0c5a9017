"""Rebuild a manifest that was lost, from the parts: each says itself what made it."""

from pathlib import Path

from vggsearch.errors import IndexDamaged
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.store.contents import EMBEDDINGS, MANIFEST, SKIPPED
from vggsearch.store.files import FileHash
from vggsearch.store.manifest import Manifest, Part
from vggsearch.store.parts import Origin, read_columns, read_origin, read_skipped

CANNOT = "Delete the index and index again"


def rebuild_manifest(directory: Path) -> tuple[Manifest, list[IndexDamaged]]:
    """Return a manifest of all parts that can be read, and what is wrong with the others.

    Of a path in several parts the newest row lives. Photos that were deleted since live again, until the next
    update drops them; the photo folder and the weights file are forgotten, and the search side is made anew.
    Raises IndexDamaged where no part says what made it.
    """
    parts: list[tuple[Part, Origin]] = []
    damaged = []
    for path in sorted((directory / EMBEDDINGS).glob("part-*.parquet")):
        try:
            parts.append(_read(path))
        except IndexDamaged as error:
            damaged.append(error)
    if not parts:
        raise IndexDamaged(directory / MANIFEST, "is lost, and no part in embeddings/ can replace it", CANNOT)
    spec = parts[-1][1].embedding
    damaged += [_of_another(directory / EMBEDDINGS / part.name, spec) for part, by in parts if by.embedding != spec]
    kept = [part for part, by in parts if by.embedding == spec]
    number = max(int(part.name.removeprefix("part-").removesuffix(".parquet")) for part in kept)
    manifest = Manifest(spec, parts=tuple(kept), next_part=number + 1, skipped=_skipped(directory))
    return manifest.without_rows(_superseded(directory, kept)), damaged


def _read(path: Path) -> tuple[Part, Origin]:
    origin = read_origin(path)
    if origin is None:
        raise IndexDamaged(path, "is of format 1, which did not say what made it", CANNOT)
    rows = read_columns(path, ["path"]).num_rows
    file = FileHash.of(path)
    return Part(file.name, file.bytes, file.sha256, rows, origin.engine, origin.precision), origin


def _of_another(path: Path, spec: EmbeddingSpec) -> IndexDamaged:
    return IndexDamaged(path, f"holds embeddings of another kind than {spec}")


def _superseded(directory: Path, parts: list[Part]) -> dict[str, set[int]]:
    """Return the rows whose path a later row has too, by part name."""
    newest: dict[str, tuple[str, int]] = {}
    dead: dict[str, set[int]] = {}
    for part in parts:
        for row, path in enumerate(read_columns(directory / EMBEDDINGS / part.name, ["path"])["path"].to_pylist()):
            if path in newest:
                name, old = newest[path]
                dead.setdefault(name, set()).add(old)
            newest[path] = part.name, row
    return dead


def _skipped(directory: Path) -> FileHash | None:
    path = directory / SKIPPED
    try:
        return FileHash.of(path) if any(read_skipped(path, path.read_bytes())) else None
    except (FileNotFoundError, IndexDamaged):
        return None
