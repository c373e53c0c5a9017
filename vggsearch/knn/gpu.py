"""CUDA GPUs for many products of vectors: through FAISS where it sees them, else through torch.

FAISS's wheel is for CUDA 12 and torch's for CUDA 13, so FAISS often sees no GPU where torch does. On a GPU, FAISS
supports neither FastScan, RaBitQ nor HNSW, selects at most MAX_SELECTED neighbours and lists, has no range search,
and ignores filters (FAISS issue 3114): the caller drops excluded rows from its result and searches on the CPU for
the missing ones. Torch compares every vector, so it serves any kind of index, with filters.

GPUs hold a copy; the CPU index stays and is what is saved. If a GPU fails, the CPU continues after one warning.
"""

import logging
import sys
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import GPU_SEARCH
from vggsearch.knn import brute_force
from vggsearch.knn.faiss_import import FaissIndex, failure_reason, faiss
from vggsearch.system.gpus import cuda_gpus

if TYPE_CHECKING:
    from vggsearch.knn.torch_scan import TorchScan, Vectors

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


class GpuVectors:
    """The vectors of an index, by slot: on a GPU once torch sees one and there is enough to do, see GPU_SEARCH."""

    def __init__(self, vectors: "Vectors") -> None:
        self._vectors = vectors
        self._scan: TorchScan | None = None
        self._has_failed = False
        self._loading = Lock()

    def candidates(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None, products: float
    ) -> NDArray[np.int64] | None:
        """Return slots that include the `count` nearest to each query, and a few more: int64, -1 for missing ones.

        `queries` are float32 (m, k), `allowed`, bool (slots,), selects the slots that may be returned. Returns None
        if the GPU is not worth starting for this number of products of two vectors, or has failed.
        """
        try:
            with self._loading:
                scan = self._scan = self._scan or (
                    None if self._has_failed else scan_on_gpu(self._vectors, products)
                )
            return None if scan is None else scan.nearest(queries, count, allowed)
        except RuntimeError as error:
            self._scan, self._has_failed = None, True
            warn_of_torch(error)
            return None

    def nearest(
        self, queries: NDArray[np.float32], count: int, products: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Return what brute_force.nearest does with all vectors, of unit length; None where `candidates` does."""
        candidates = self.candidates(queries, count, None, products)
        if candidates is None:
            return None
        similarities = np.einsum("md,mnd->mn", queries, self._vectors[candidates], dtype=np.float32)
        similarities[candidates < 0] = brute_force.NOT_FOUND
        rows, similarities = brute_force.ranked(candidates, similarities)
        return rows[:, :count], similarities[:, :count]


def scan_on_gpu(vectors: "Vectors", products: float) -> "TorchScan | None":
    """Return the vectors on the first GPU; None without one that torch sees, or for so few products of two vectors.

    Raises RuntimeError if the GPU fails.
    """
    least = GPU_SEARCH.products_started if "torch" in sys.modules else GPU_SEARCH.products
    if products < least or not cuda_gpus():
        return None
    import torch

    from vggsearch.knn.torch_scan import TorchScan

    return TorchScan(vectors, torch.device("cuda", 0))


def warn_of_torch(error: RuntimeError) -> None:
    """Log that the CPU continues where a GPU failed."""
    log.warning("The CPU compares the vectors because the GPU failed: %s", str(error).strip().split("\n")[0])


def _warn(error: RuntimeError) -> None:
    log.warning("FAISS searches on the CPU because the GPU failed: %s", failure_reason(error))
