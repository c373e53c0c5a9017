"""Decide which parts to merge, from the manifest alone."""

from vggsearch.defaults import COMPACT, EXTRACT
from vggsearch.store.manifest import Manifest, Part
from vggsearch.store.parts import BYTES_PER_DIMENSION

Group = tuple[Part, ...]


def plan_groups(manifest: Manifest) -> list[Group]:
    """Return the parts in order, grouped with the neighbours that they can be merged with.

    All parts of a group have the same engine and precision and together at most EXTRACT.part_bytes of live
    embeddings, which bounds the memory for merging; a single part may have more.
    """
    row_bytes = manifest.embedding.dim * BYTES_PER_DIMENSION
    groups: list[list[Part]] = []
    size = 0
    for part in manifest.parts:
        live = (part.rows - len(part.dead)) * row_bytes
        if groups and _engine(groups[-1][0]) == _engine(part) and size + live <= EXTRACT.part_bytes:
            groups[-1].append(part)
            size += live
        else:
            groups.append([part])
            size = live
    return [tuple(group) for group in groups]


def is_compact(group: Group) -> bool:
    """Return whether a group is a single part without dead rows, which needs no merging."""
    return len(group) == 1 and not group[0].dead


def is_due(manifest: Manifest, groups: list[Group]) -> bool:
    """Return whether merging saves enough to be done automatically."""
    rows = sum(part.rows for part in manifest.parts)
    dead = sum(len(part.dead) for part in manifest.parts)
    saved = len(manifest.parts) - len(groups)
    return saved >= COMPACT.spare_parts or dead > COMPACT.dead_share * rows


def _engine(part: Part) -> tuple[str, str]:
    return part.engine, part.precision
