"""vggsearch: reverse image search and near-duplicates on one's own machine.

>>> from vggsearch import ImageIndex

The names below are loaded when first used, so that `import vggsearch` costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggsearch.duplicates.find import DuplicatesReport as DuplicatesReport
    from vggsearch.duplicates.results import Group as Group
    from vggsearch.duplicates.results import Member as Member
    from vggsearch.duplicates.results import Pair as Pair
    from vggsearch.errors import ImageError as ImageError
    from vggsearch.errors import Stopped as Stopped
    from vggsearch.errors import VggsearchError as VggsearchError
    from vggsearch.evaluation.evaluate import CopiesReport as CopiesReport
    from vggsearch.evaluation.evaluate import EvaluationReport as EvaluationReport
    from vggsearch.evaluation.evaluate import evaluate as evaluate
    from vggsearch.evaluation.evaluate import evaluate_copies as evaluate_copies
    from vggsearch.evaluation.throughput import BenchReport as BenchReport
    from vggsearch.evaluation.throughput import EngineReport as EngineReport
    from vggsearch.evaluation.throughput import bench as bench
    from vggsearch.evaluation.throughput import compare_engines as compare_engines
    from vggsearch.image_index import ImageIndex as ImageIndex
    from vggsearch.indexing.build import BuildReport as BuildReport
    from vggsearch.indexing.findings import Finding as Finding
    from vggsearch.indexing.info import Info as Info
    from vggsearch.indexing.integrity import VerifyReport as VerifyReport
    from vggsearch.indexing.integrity import verify as verify
    from vggsearch.indexing.update import UpdateReport as UpdateReport
    from vggsearch.knn.recipes import BuildPlan as BuildPlan
    from vggsearch.matching.alignment import Alignment as Alignment
    from vggsearch.model.engine import EngineOptions as EngineOptions
    from vggsearch.model.spec import EmbeddingOptions as EmbeddingOptions
    from vggsearch.model.spec import EmbeddingSpec as EmbeddingSpec
    from vggsearch.photos.walk import Skipped as Skipped
    from vggsearch.progress import OnProgress as OnProgress
    from vggsearch.progress import Progress as Progress
    from vggsearch.progress import Stop as Stop
    from vggsearch.progress import progress_bar as progress_bar
    from vggsearch.query.options import Pick as Pick
    from vggsearch.query.options import QueryResult as QueryResult
    from vggsearch.query.searcher import Match as Match
    from vggsearch.removal.perform import RemovalReport as RemovalReport
    from vggsearch.removal.plan import RemovalPlan as RemovalPlan
    from vggsearch.removal.undo import UndoReport as UndoReport
    from vggsearch.removal.undo import undo as undo

__version__ = "0.1.0"

_HOMES = {
    "Stopped": "vggsearch.errors",
    "CopiesReport": "vggsearch.evaluation.evaluate",
    "EvaluationReport": "vggsearch.evaluation.evaluate",
    "evaluate": "vggsearch.evaluation.evaluate",
    "evaluate_copies": "vggsearch.evaluation.evaluate",
    "BenchReport": "vggsearch.evaluation.throughput",
    "EngineReport": "vggsearch.evaluation.throughput",
    "bench": "vggsearch.evaluation.throughput",
    "compare_engines": "vggsearch.evaluation.throughput",
    "verify": "vggsearch.indexing.integrity",
    "OnProgress": "vggsearch.progress",
    "Stop": "vggsearch.progress",
    "progress_bar": "vggsearch.progress",
    "RemovalPlan": "vggsearch.removal.plan",
    "RemovalReport": "vggsearch.removal.perform",
    "UndoReport": "vggsearch.removal.undo",
    "undo": "vggsearch.removal.undo",
    "Alignment": "vggsearch.matching.alignment",
    "BuildReport": "vggsearch.indexing.build",
    "DuplicatesReport": "vggsearch.duplicates.find",
    "EmbeddingOptions": "vggsearch.model.spec",
    "EmbeddingSpec": "vggsearch.model.spec",
    "EngineOptions": "vggsearch.model.engine",
    "Finding": "vggsearch.indexing.findings",
    "Group": "vggsearch.duplicates.results",
    "ImageError": "vggsearch.errors",
    "ImageIndex": "vggsearch.image_index",
    "Info": "vggsearch.indexing.info",
    "Match": "vggsearch.query.searcher",
    "Member": "vggsearch.duplicates.results",
    "Pair": "vggsearch.duplicates.results",
    "Pick": "vggsearch.query.options",
    "BuildPlan": "vggsearch.knn.recipes",
    "Progress": "vggsearch.progress",
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
