"""vggsearch: reverse image search and near-duplicates on one's own machine.

>>> from vggsearch import ImageIndex

The names below are loaded when first used, so that `import vggsearch` costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggsearch.duplicates.groups import Group as Group
    from vggsearch.duplicates.groups import Member as Member
    from vggsearch.duplicates.groups import Pair as Pair
    from vggsearch.duplicates.options import DuplicateOptions as DuplicateOptions
    from vggsearch.duplicates.run import DuplicatesReport as DuplicatesReport
    from vggsearch.errors import ImageError as ImageError
    from vggsearch.errors import VggsearchError as VggsearchError
    from vggsearch.geometry import Alignment as Alignment
    from vggsearch.image_index import BuildReport as BuildReport
    from vggsearch.image_index import ImageIndex as ImageIndex
    from vggsearch.index.recipes import Plan as Plan
    from vggsearch.info import Info as Info
    from vggsearch.model.engine import EngineOptions as EngineOptions
    from vggsearch.model.spec import EmbeddingOptions as EmbeddingOptions
    from vggsearch.model.spec import EmbeddingSpec as EmbeddingSpec
    from vggsearch.photos import Skipped as Skipped
    from vggsearch.queries.options import Pick as Pick
    from vggsearch.queries.options import QueryResult as QueryResult
    from vggsearch.search import Match as Match
    from vggsearch.update import Progress as Progress
    from vggsearch.update import UpdateReport as UpdateReport
    from vggsearch.verify import Finding as Finding
    from vggsearch.verify import VerifyReport as VerifyReport

__version__ = "0.1.0"

_HOMES = {
    "Alignment": "vggsearch.geometry",
    "BuildReport": "vggsearch.image_index",
    "DuplicateOptions": "vggsearch.duplicates.options",
    "DuplicatesReport": "vggsearch.duplicates.run",
    "EmbeddingOptions": "vggsearch.model.spec",
    "EmbeddingSpec": "vggsearch.model.spec",
    "EngineOptions": "vggsearch.model.engine",
    "Finding": "vggsearch.verify",
    "Group": "vggsearch.duplicates.groups",
    "ImageError": "vggsearch.errors",
    "ImageIndex": "vggsearch.image_index",
    "Info": "vggsearch.info",
    "Match": "vggsearch.search",
    "Member": "vggsearch.duplicates.groups",
    "Pair": "vggsearch.duplicates.groups",
    "Pick": "vggsearch.queries.options",
    "Plan": "vggsearch.index.recipes",
    "Progress": "vggsearch.update",
    "QueryResult": "vggsearch.queries.options",
    "Skipped": "vggsearch.photos",
    "UpdateReport": "vggsearch.update",
    "VerifyReport": "vggsearch.verify",
    "VggsearchError": "vggsearch.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vggsearch' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
