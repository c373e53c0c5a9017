"""What an index contains, and how it was built."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vggsearch.indexing.local_features import most_by_default
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.store.manifest import BuildOptions, VectorIndexInfo, WhiteningInfo
from vggsearch.store.store import Store


@dataclass(frozen=True)
class Info:
    """What an index contains and how it was built. `bytes` is its size on disk; `skipped` counts files by kind.

    `search` describes the FAISS index, None if it has to be built first. `learned` is the transform of queries that
    was learned from labels, its `rows` the labelled photos; None if nothing was. `wanted` are the options of the
    next build. `blank` counts the blank photos; `without_hash` those that an older version indexed, without a
    perceptual hash, so that turned copies of them may not be found; `local_features` those whose local features are
    stored, in `local_features_bytes`; a new index stores them by default of up to `local_features_by_default`.

    >>> info = index.info()
    >>> info.photos, info.skipped
    (4, {'not a picture': 1})
    """

    directory: Path
    root: Path | None
    photos: int
    spec: EmbeddingSpec
    made_by: tuple[str, ...]
    search: VectorIndexInfo | None
    learned: WhiteningInfo | None
    wanted: BuildOptions
    is_search_fresh: bool
    parts: int
    bytes: int
    skipped: dict[str, int]
    blank: int
    without_hash: int
    local_features: int
    local_features_bytes: int
    local_features_by_default: int


def read_info(store: Store, root: Path | None) -> Info:
    """Describe the present state of a store; `root` is the photo folder. Raises IndexDamaged."""
    manifest = store.manifest
    return Info(
        directory=store.directory,
        root=root,
        photos=len(store),
        spec=store.spec,
        made_by=manifest.made_by,
        search=manifest.search.facts if manifest.search else None,
        learned=manifest.learned.whitening if manifest.learned else None,
        wanted=manifest.build,
        is_search_fresh=manifest.fresh_vector_index is not None,
        parts=len(manifest.parts),
        bytes=store.bytes,
        skipped=dict(Counter(skipped.kind for skipped in store.skipped().values())),
        blank=len(store.blank_rows()),
        without_hash=store.count_without_hash(),
        local_features=sum(part.rows for part in manifest.local),
        local_features_bytes=sum(file.bytes for part in manifest.local for file in part.files),
        local_features_by_default=most_by_default(store.spec),
    )
