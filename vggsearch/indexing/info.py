"""What an index holds, and how it was made."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vggsearch.model.spec import EmbeddingSpec
from vggsearch.store.manifest import BuildOptions, VectorIndexInfo
from vggsearch.store.store import Store


@dataclass(frozen=True)
class Info:
    """What an index holds and how it was made. `bytes` is its size on disk; `skipped` counts by kind.

    `search` says how it is searched, None where it has to be built first; `wanted` what the next build is to be
    like. `blank` counts the photos in which there is nothing to compare; `local_features` those of which they are
    kept.
    """

    directory: Path
    root: Path | None
    photos: int
    spec: EmbeddingSpec
    made_by: tuple[str, ...]
    search: VectorIndexInfo | None
    wanted: BuildOptions
    is_search_fresh: bool
    parts: int
    bytes: int
    skipped: dict[str, int]
    blank: int
    local_features: int


def read_info(store: Store, root: Path | None) -> Info:
    """Return what the present state of a store holds; `root` is the photo folder. Raises IndexDamaged."""
    manifest = store.manifest
    return Info(
        directory=store.directory,
        root=root,
        photos=len(store),
        spec=store.spec,
        made_by=manifest.made_by,
        search=manifest.search.facts if manifest.search else None,
        wanted=manifest.build,
        is_search_fresh=manifest.fresh_vector_index is not None,
        parts=len(manifest.parts),
        bytes=store.bytes,
        skipped=dict(Counter(skipped.kind for skipped in store.skipped().values())),
        blank=len(store.blank_rows()),
        local_features=sum(part.rows for part in manifest.local),
    )
