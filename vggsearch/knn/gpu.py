"""FAISS on CUDA GPUs: candidates for many queries, if the index fits in GPU memory.

The GPUs hold a copy; the CPU index stays and is what is saved. FAISS on a GPU supports neither FastScan, RaBitQ nor
HNSW, selects at most MAX_SELECTED neighbours and lists, has no range search, and ignores filters (FAISS issue
3114): the caller drops excluded rows from the result and searches on the CPU for the missing ones.
"""

import logging
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.faiss_import import FaissIndex, failure_reason, faiss

log = logging.getLogger(__name__)

MAX_SELECTED = 2048  # neighbours, and lists probed, that FAISS supports on a GPU
EXTRA_CANDIDATES = 16  # requested on top, since float16 on the GPU may order almost equal rows differently


def gpu_count() -> int:
    """Return the number of GPUs that FAISS can use, 0 if it was built without GPU support."""
    library = faiss()
    return int(library.get_num_gpus()) if hasattr(library, "StandardGpuResources") else 0


class GpuIndex:
    """A copy of a FAISS index on all GPUs: complete on each or, if it is too large for that, divided among them."""

    def __init__(self, copy: FaissIndex, has_lists: bool) -> None:
        self._copy, self._has_lists, self._has_failed = copy, has_lists, False
        self._lock = Lock()  # the GPU resources of FAISS serve one search at a time

    def candidates(self, vectors: NDArray[np.float32], count: int, effort: int) -> NDArray[np.int64] | None:
        """Return the slots nearest to each of the `vectors` (m, k): int64 (m, count + a few), -1 for missing ones.

        Excluded slots may be among them. Returns None if `count` or `effort` exceeds what FAISS supports on a GPU,
        or if a search has failed before, for example for lack of memory.
        """
        if max(count + EXTRA_CANDIDATES, effort) > MAX_SELECTED:
            return None
        with self._lock:
            if self._has_failed:
                return None
            try:
                if self._has_lists:
                    faiss().GpuParameterSpace().set_index_parameter(self._copy, "nprobe", max(1, effort))
                slots: NDArray[np.int64] = self._copy.search(vectors, count + EXTRA_CANDIDATES)[1]
            except RuntimeError as error:
                self._has_failed = True
                _warn(error)
                return None
        return slots


def copy_to_gpus(core: FaissIndex) -> GpuIndex | None:
    """Return a copy of a FAISS index on the GPUs; None without a GPU, or if FAISS cannot copy the index to it."""
    library, gpus = faiss(), gpu_count()
    flat, lists = library.IndexFlat, (library.IndexIVFFlat, library.IndexIVFScalarQuantizer, library.IndexIVFPQ)
    if not gpus or not isinstance(core, (flat, *lists)):
        return None
    options = library.GpuMultipleClonerOptions()
    options.useFloat16 = True
    for is_divided in (False, True)[:gpus]:  # a single GPU cannot divide it
        options.shard = is_divided
        try:
            return GpuIndex(library.index_cpu_to_all_gpus(core, options), isinstance(core, lists))
        except RuntimeError as error:
            reason = error
    _warn(reason)
    return None


def _warn(error: RuntimeError) -> None:
    log.warning("FAISS searches on the CPU because the GPU failed: %s", failure_reason(error))
