"""vggsearch: reverse image search and near-duplicates on one's own machine.

>>> from vggsearch import ImageIndex

The names below are loaded when first used, so that `import vggsearch` costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggsearch.duplicates.find import DuplicatesReport as DuplicatesReport
    from vggsearch.duplicates.options import DuplicateOptions as DuplicateOptions
    from vggsearch.duplicates.results import Group as Group
    from vggsearch.duplicates.results import Member as Member
    from vggsearch.duplicates.results import Pair as Pair
    from vggsearch.errors import ImageError as ImageError
    from vggsearch.errors import VggsearchError as VggsearchError
    from vggsearch.image_index import BuildReport as BuildReport
    from vggsearch.image_index import ImageIndex as ImageIndex
    from vggsearch.indexing.info import Info as Info
    from vggsearch.indexing.integrity import Finding as Finding
    from vggsearch.indexing.integrity import VerifyReport as VerifyReport
    from vggsearch.indexing.update import Progress as Progress
    from vggsearch.indexing.update import UpdateReport as UpdateReport
    from vggsearch.knn.recipes import BuildPlan as BuildPlan
    from vggsearch.matching.alignment import Alignment as Alignment
    from vggsearch.model.engine import EngineOptions as EngineOptions
    from vggsearch.model.spec import EmbeddingOptions as EmbeddingOptions
    from vggsearch.model.spec import EmbeddingSpec as EmbeddingSpec
    from vggsearch.photos.walk import Skipped as Skipped
    from vggsearch.query.options import Pick as Pick
    from vggsearch.query.options import QueryResult as QueryResult
    from vggsearch.query.searcher import Match as Match

__version__ = "0.1.0"

_HOMES = {
    "Alignment": "vggsearch.matching.alignment",
    "BuildReport": "vggsearch.image_index",
    "DuplicateOptions": "vggsearch.duplicates.options",
    "DuplicatesReport": "vggsearch.duplicates.find",
    "EmbeddingOptions": "vggsearch.model.spec",
    "EmbeddingSpec": "vggsearch.model.spec",
    "EngineOptions": "vggsearch.model.engine",
    "Finding": "vggsearch.indexing.integrity",
    "Group": "vggsearch.duplicates.results",
    "ImageError": "vggsearch.errors",
    "ImageIndex": "vggsearch.image_index",
    "Info": "vggsearch.indexing.info",
    "Match": "vggsearch.query.searcher",
    "Member": "vggsearch.duplicates.results",
    "Pair": "vggsearch.duplicates.results",
    "Pick": "vggsearch.query.options",
    "BuildPlan": "vggsearch.knn.recipes",
    "Progress": "vggsearch.indexing.update",
    "QueryResult": "vggsearch.query.options",
    "Skipped": "vggsearch.photos.walk",
    "UpdateReport": "vggsearch.indexing.update",
    "VerifyReport": "vggsearch.indexing.integrity",
    "VggsearchError": "vggsearch.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vggsearch' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
