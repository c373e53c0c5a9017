"""FAISS on CUDA GPUs: candidates for many queries, of an index that GPUs can hold.

GPUs hold a copy; the index itself stays in its CPU form, and is what is saved. They know neither FastScan nor
RaBitQ nor HNSW, take at most MOST neighbours and lists, have no range search, and return rows that may not be found
(FAISS issue 3114): whoever asks drops those, and looks on the CPU for what lacks.
"""

import logging
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.faiss_import import faiss, reason_of

log = logging.getLogger(__name__)

MOST = 2048  # neighbours, and lists looked into: what FAISS can select on a GPU
SPARE = 16  # rows beyond those asked for: float16 on the GPU may put equals in another order


def gpu_count() -> int:
    """Return how many GPUs FAISS sees: none where it is a package without them."""
    library = faiss()
    return int(library.get_num_gpus()) if hasattr(library, "StandardGpuResources") else 0


class Gpus:
    """A copy of a FAISS index on all GPUs: a whole one on each or, where that is too large, a part."""

    def __init__(self, copy: Any, has_lists: bool) -> None:
        self._copy, self._has_lists, self._has_failed = copy, has_lists, False
        self._lock = Lock()  # FAISS's memory on a GPU serves one search at a time

    def candidates(self, vectors: NDArray[np.float32], count: int, effort: int) -> NDArray[np.int64] | None:
        """Return the slots nearest to some vectors (m, k): int64 (m, about `count`), -1 where there are none.

        Slots that may not be found are among them. None where that is beyond what GPUs do, or where they failed
        once, as for want of memory.
        """
        if max(count + SPARE, effort) > MOST:
            return None
        with self._lock:
            if self._has_failed:
                return None
            try:
                if self._has_lists:
                    faiss().GpuParameterSpace().set_index_parameter(self._copy, "nprobe", max(1, effort))
                found: NDArray[np.int64] = self._copy.search(vectors, count + SPARE)[1]
            except RuntimeError as error:
                self._has_failed = True
                _tell(error)
                return None
        return found


def copied_to_gpus(core: Any) -> Gpus | None:
    """Return a copy of a FAISS index on the GPUs; None where there is no GPU, or none that can hold it."""
    library, gpus = faiss(), gpu_count()
    flat, lists = library.IndexFlat, (library.IndexIVFFlat, library.IndexIVFScalarQuantizer, library.IndexIVFPQ)
    if not gpus or not isinstance(core, (flat, *lists)):
        return None
    options = library.GpuMultipleClonerOptions()
    options.useFloat16 = True
    for is_divided in (False, True)[:gpus]:  # one GPU has nothing to divide
        options.shard = is_divided
        try:
            return Gpus(library.index_cpu_to_all_gpus(core, options), isinstance(core, lists))
        except RuntimeError as error:
            reason = error
    _tell(reason)
    return None


def _tell(error: RuntimeError) -> None:
    """Say in one line why the CPU does it."""
    log.warning("FAISS cannot search on the GPU, so the CPU does: %s", reason_of(error))
