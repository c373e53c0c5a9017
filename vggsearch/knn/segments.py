"""The segments of a vector index: the base, and what updates added to it. Each has vectors and a FAISS index.

Files of segments never change. A few new vectors are a segment of their own, so that they do not rewrite millions.
A new segment takes in the last ones while these are not much larger, so that a search asks few of them and each
vector is rewritten rarely, as in a log-structured merge-tree (O'Neil, Cheng, Gawlick & O'Neil, 1996).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD
from vggsearch.knn.faiss_import import FaissIndex, faiss
from vggsearch.knn.recipes import hnsw_of, search_parameters
from vggsearch.knn.vectors import unit_rows


@dataclass(frozen=True)
class Segment:
    """The vectors of the slots from `first` on, float16 (n, dim), and their FAISS index, whose ids start at 0.

    `built` is None for a segment that is stored without one, since comparing its few vectors is as fast.
    """

    vectors: NDArray[np.float16]
    first: int
    built: FaissIndex | None

    def __len__(self) -> int:
        """Return the number of slots."""
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """The dimensions of a vector."""
        return int(self.vectors.shape[1])

    @property
    def slots(self) -> slice:
        """The slots of its vectors."""
        return slice(self.first, self.first + len(self))

    @cached_property
    def core(self) -> FaissIndex:
        """The FAISS index, in memory for a segment that is stored without one."""
        if self.built is not None:
            return self.built
        flat = faiss().IndexFlatIP(self.vectors.shape[1])
        flat.add(unit_rows(self.vectors[:]))
        return flat

    def candidates(
        self, vectors: NDArray[np.float32], count: int, effort: int, allowed: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """Return the slots that FAISS finds nearest to each of the vectors (m, k): int64 (m, n), -1 for none.

        n is at most `count`. `allowed` is the bitmap of the slots that may be found, from `first` on; None for all.
        """
        selector = None if allowed is None else faiss().IDSelectorBitmap(allowed)
        parameters = search_parameters(self.core, max(effort, count if hnsw_of(self.core) else 1), selector)
        _, found = self.core.search(vectors, min(count, len(self)), params=parameters)
        slots: NDArray[np.int64] = np.where((found >= 0) & (found < len(self)), found + self.first, -1)
        return slots


def kept_segments(sizes: Sequence[int], added: int, *, has_lists: bool, is_exact: bool) -> int:
    """Return how many of the first segments, of so many slots each, an update that adds vectors leaves as they are.

    The others become one segment with the `added` vectors. 0 means that all are written anew: if the whole index
    is small, or where so many new vectors need a FAISS index but this kind has no lists that could be shared.
    """
    if sum(sizes) + added <= BUILD.whole_rows:
        return 0
    kept, new = len(sizes), added
    while kept and sizes[kept - 1] <= BUILD.segment_ratio * new:
        kept -= 1
        new += sizes[kept]
    return kept if new <= BUILD.plain_rows or has_lists or is_exact else 0
