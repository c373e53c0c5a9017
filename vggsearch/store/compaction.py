"""Which parts to merge: pure arithmetic over the manifest."""

from vggsearch.defaults import COMPACT, EXTRACT
from vggsearch.store.manifest import Manifest, Part

BYTES_PER_NUMBER = 2  # float16

Group = tuple[Part, ...]


def plan_groups(manifest: Manifest) -> list[Group]:
    """Return the parts in their order, neighbours together that may become one part.

    A group has one maker and at most EXTRACT.part_bytes of live embeddings, so that merging it takes bounded
    memory; a single part may have more.
    """
    row_bytes = manifest.embedding.dim * BYTES_PER_NUMBER
    groups: list[list[Part]] = []
    size = 0
    for part in manifest.parts:
        live = (part.rows - len(part.dead)) * row_bytes
        if groups and _maker(groups[-1][0]) == _maker(part) and size + live <= EXTRACT.part_bytes:
            groups[-1].append(part)
            size += live
        else:
            groups.append([part])
            size = live
    return [tuple(group) for group in groups]


def is_kept(group: Group) -> bool:
    """Say whether a group is one part without dead rows, which stays as it is."""
    return len(group) == 1 and not group[0].dead


def is_due(manifest: Manifest, groups: list[Group]) -> bool:
    """Say whether merging saves enough to be done unasked."""
    rows = sum(part.rows for part in manifest.parts)
    dead = sum(len(part.dead) for part in manifest.parts)
    saved = len(manifest.parts) - len(groups)
    return saved >= COMPACT.spare_parts or dead > COMPACT.dead_share * rows


def _maker(part: Part) -> tuple[str, str]:
    return part.engine, part.precision
