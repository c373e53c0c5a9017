"""Rebuild a lost manifest from the parts: each records the spec, inference backend and precision that made it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vggsearch.errors import IndexDamaged, OptionError, Spelled, shell_word
from vggsearch.model.spec import EmbeddingSpec, spec_from_json
from vggsearch.store.contents import (
    DECISIONS,
    EMBEDDINGS,
    JOURNALS,
    MANIFEST,
    SKIPPED,
    derived_files,
)
from vggsearch.store.files import FileHash
from vggsearch.store.manifest import Manifest, Part, part_number, read_manifest
from vggsearch.store.parts import Origin, current_embedding, read_columns, read_origin, read_skipped

KEEP_USER_FILES = (
    f"Keep {DECISIONS} and {JOURNALS}/: they hold your decisions and what undo needs, and nothing can replace them."
)


def rebuild_manifest(directory: Path) -> tuple[Manifest, list[IndexDamaged]]:
    """Return a manifest of all parts that can be read, and what is wrong with the others.

    Parts of a spec that only a minority of the photos has are damaged: an index has one. If a path is in several
    parts, the newest row counts. Photos deleted since are back until the next update. The
    options of the index are the defaults again, the photo folder and the weights file are unknown, and the vector
    index has to be rebuilt. If no part is whole, the manifest is that of an empty index, as long as one part still
    records its spec. Raises IndexDamaged if none does; the message says which files may be deleted.
    """
    damaged: list[IndexDamaged] = []
    specs: list[EmbeddingSpec] = []
    parts: list[tuple[Part, EmbeddingSpec]] = []
    paths = sorted((directory / EMBEDDINGS).glob("part-*.parquet"))
    for path in paths:
        try:
            origin = _origin(path)
            specs.append(origin.embedding)
            parts.append((_part(path, origin), origin.embedding))
        except IndexDamaged as error:
            damaged.append(error)
    if not specs:
        raise cannot_rebuild(directory)
    spec = _most_photos(parts) if parts else Counter(specs).most_common(1)[0][0]
    kept = tuple(part for part, its in parts if its == spec)
    damaged += [_of_another(directory / EMBEDDINGS / part.name, spec) for part, its in parts if its != spec]
    number = max(map(part_number, (path.name for path in paths)), default=0)
    manifest = Manifest(spec, parts=kept, next_part=number + 1, skipped=_skipped(directory))
    return manifest.without_rows(_superseded(directory, kept)), damaged


def _most_photos(parts: Sequence[tuple[Part, EmbeddingSpec]]) -> EmbeddingSpec:
    """Return the spec of most photos. A part's metadata has no checksum: a damaged byte there may name another."""
    rows = Counter[EmbeddingSpec]()
    for part, spec in parts:
        rows[spec] += part.rows
    return rows.most_common(1)[0][0]


def _origin(path: Path) -> Origin:
    origin = read_origin(path)
    if origin is None:
        raise IndexDamaged(path, "is of format 1, which did not record the spec of its embeddings")
    return origin


def _part(path: Path, origin: Origin) -> Part:
    rows = read_columns(path, ["path"]).num_rows
    return Part(**vars(FileHash.of(path)), rows=rows, engine=origin.engine, precision=origin.precision)


def _of_another(path: Path, spec: EmbeddingSpec) -> IndexDamaged:
    return IndexDamaged(path, f"holds embeddings of another kind than {spec}")


def cannot_rebuild(directory: Path) -> IndexDamaged:
    """Return the error of an index whose spec is unknown: which files to delete, and that the user's own stay."""
    problem = f"is missing or damaged, and no part in {EMBEDDINGS}/ records what its embeddings are made of"
    hint = _spec_in_damaged_manifest(directory)
    options = "with the options that it was made with" if hint is None else f"with the options of {hint}"
    return IndexDamaged(
        directory / MANIFEST,
        problem,
        f"Delete {_listed(derived_files(directory))}, and nothing else. {KEEP_USER_FILES} Then index the photos "
        f"again, into the same folder, {options}: ",
        Spelled(
            f"ImageIndex.for_photos(PHOTOS, {str(directory)!r}, ...).update(PHOTOS)",
            f"vggsearch index PHOTOS --index {shell_word(directory)}",
        ),
    )


def _listed(paths: Sequence[Path]) -> str:
    *others, last = map(str, paths)
    return f"{', '.join(others)} and {last}" if others else last


def _spec_in_damaged_manifest(directory: Path) -> EmbeddingSpec | None:
    """Return what a damaged manifest says of the embeddings. It may be wrong, so it is shown to the user only."""
    try:
        values = json.loads((directory / MANIFEST).read_text("utf-8"))
        return spec_from_json(current_embedding(values["embedding"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OptionError):
        return None


def restored_manifest(directory: Path) -> tuple[Manifest, list[IndexDamaged]]:
    """Return the manifest of an index that lost files of dead rows, and what is wrong with each.

    Of the rows in question, those whose path a later row has too are dead. Photos deleted since are back until the
    next update, which drops them. The vector index has to be rebuilt. Raises IndexDamaged.
    """
    lost: list[IndexDamaged] = []
    manifest = read_manifest(directory, lost)
    return manifest.without_rows(_superseded(directory, manifest.parts)), lost


def _superseded(directory: Path, parts: Sequence[Part]) -> dict[str, set[int]]:
    """Return the rows whose path a later row has too, by part name. A part that cannot be read is left out."""
    newest: dict[str, tuple[str, int]] = {}
    dead: dict[str, set[int]] = {}
    for part in parts:
        try:
            paths = read_columns(directory / EMBEDDINGS / part.name, ["path"])["path"].to_pylist()
        except IndexDamaged:
            continue  # whoever reads the part itself reports it
        for row, path in enumerate(paths):
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
