"""Pairs of photos that share many keypoints, found by the binary codes of these.

Each keypoint votes for the photos of the keypoints with the nearest codes. Votes count if they rotate and
scale alike: the weak geometric consistency of Jegou, Douze & Schmid, "Hamming embedding and weak geometric
consistency for large scale image search", ECCV 2008, section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import VOTES
from vggsearch.knn.faiss_import import FaissIndex, faiss, restore_thread_count
from vggsearch.progress import SILENT, Monitor

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]

TURNS = 12  # bins of 30 degrees
SCALES = 16  # bins of a factor of two, the middle one for equal sizes
CODES_AT_ONCE = 4096  # compared with all lists by all threads, which wait for each other then


@dataclass(frozen=True, eq=False)
class CodedKeypoints:
    """The keypoints of a photo, strongest first.

    `codes`, uint8 (n, 16), differ in few bits if the keypoints are alike. `angles`, float32 (n,), are in degrees,
    clockwise, and `sizes`, float32 (n,), in pixels.
    """

    codes: NDArray[np.uint8]
    angles: NDArray[np.float32]
    sizes: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of keypoints."""
        return len(self.codes)

    def strongest(self, count: int) -> "CodedKeypoints":
        """Return the first `count` keypoints."""
        return CodedKeypoints(self.codes[:count], self.angles[:count], self.sizes[:count])


Mirror = Callable[[CodedKeypoints], CodedKeypoints]


class KeypointIndex:
    """The keypoints of many photos, at most VOTES.most in all, to be asked which photos share those of another."""

    def __init__(self, photos: Sequence[CodedKeypoints]) -> None:
        """Index the keypoints of `photos`, the numbers of which are the answers. Raises InstallationError."""
        restore_thread_count()
        self._photos = len(photos)
        self._count = VOTES.most // max(1, len(photos))
        self._rows, self._all = _joined([photo.strongest(self._count) for photo in photos])
        self._index = _index_of(self._all.codes)

    def votes(self, asking: Sequence[CodedKeypoints], mirror: Mirror) -> tuple[Rows, Rows, Scores]:
        """Return the photos that the `asking` ones and their mirror images share keypoints with.

        Returns the number of the asking photo, int64 (n,), that of the photo of the index, and the votes, float64,
        in no particular order; a pair can occur several times.
        """
        kept = [photo.strongest(self._count) for photo in asking]
        found = [self._votes(kept), self._votes([mirror(photo) for photo in kept])]
        ones, others, scores = (np.concatenate(column) for column in zip(*found, strict=True))
        return ones, others, scores

    def _votes(self, asking: Sequence[CodedKeypoints]) -> tuple[Rows, Rows, Scores]:
        rows, keypoints = _joined(asking)
        if not len(keypoints) or not len(self._all):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        bits, nearest = self._index.search(keypoints.codes, min(VOTES.nearest, len(self._all)))
        voting, place = np.nonzero((bits <= VOTES.bits) & (nearest >= 0))
        elected = nearest[voting, place]
        # A keypoint that is like many others, as of a caption or a brick, says less; so does one that differs more.
        weights = 1 - bits[voting, place] / (1.5 * VOTES.bits)
        weights /= np.sqrt(np.bincount(voting, minlength=len(keypoints))[voting])
        turns = (self._all.angles[elected] - keypoints.angles[voting]) % 360 * (TURNS / 360)
        scales = np.log2(self._all.sizes[elected] / keypoints.sizes[voting]) + SCALES / 2
        pairs = rows[voting] * self._photos + self._rows[elected]
        pairs, scores = _agreeing(pairs, turns, scales, weights)
        ones, others = np.divmod(pairs, self._photos)
        return ones, others, scores


def voted_pairs(
    photos: Sequence[CodedKeypoints], mirror: Mirror, monitor: Monitor = SILENT
) -> tuple[Rows, Rows, Scores]:
    """Return the pairs of photos that share keypoints, also if one is mirrored, and their votes.

    Returns the numbers of the photos, int64 (n,), first < second, and the votes, float64 (n,), VOTES.least or more,
    in ascending order of the numbers; each photo is among the VOTES.partners of one of its pair with most votes.
    Raises InstallationError and Stopped.
    """
    index = KeypointIndex(photos)
    none = np.empty(0, np.int64)
    found = [(none, none, np.empty(0))]
    for start in range(0, len(photos), VOTES.block):
        monitor.check()
        ones, others, scores = index.votes(photos[start : start + VOTES.block], mirror)
        ones = ones + start
        is_pair = (ones != others) & (scores >= VOTES.least)
        found.append(_best(ones[is_pair], others[is_pair], scores[is_pair]))
        monitor.show("comparing keypoints of all", min(start + VOTES.block, len(photos)), len(photos))
    ones, others, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    return _distinct(np.minimum(ones, others), np.maximum(ones, others), scores)


def _joined(photos: Sequence[CodedKeypoints]) -> tuple[Rows, CodedKeypoints]:
    """Return the number of the photo of each keypoint, and all keypoints."""
    rows = np.repeat(np.arange(len(photos)), [len(photo) for photo in photos])
    codes = np.concatenate([np.empty((0, VOTES.bytes), np.uint8), *(photo.codes for photo in photos)])
    angles = np.concatenate([np.empty(0, np.float32), *(photo.angles for photo in photos)])
    sizes = np.concatenate([np.empty(0, np.float32), *(photo.sizes for photo in photos)])
    return rows, CodedKeypoints(np.ascontiguousarray(codes), angles, sizes)


def _index_of(codes: NDArray[np.uint8]) -> FaissIndex:
    """Return an index of codes, uint8 (n, bytes): of all for few, in inverted lists for many."""
    library, bits = faiss(), codes.shape[1] * 8
    if len(codes) < VOTES.listed:
        index = library.IndexBinaryFlat(bits)
        index.add(codes)
        return index
    lists = round(np.sqrt(len(codes)))
    quantizer = library.IndexBinaryFlat(bits)
    quantizer.query_batch_size = CODES_AT_ONCE  # of 32, FAISS's default, threads wait for most of the time
    index = library.IndexBinaryIVF(quantizer, bits, lists)
    index.quantizer_of_lists = quantizer  # FAISS does not keep it alive
    index.cp.niter, index.nprobe = VOTES.rounds, VOTES.probes
    sample = np.random.default_rng(0).choice(len(codes), min(len(codes), VOTES.sample * lists), replace=False)
    index.train(codes[np.sort(sample)])
    index.add(codes)
    return index


def _agreeing(
    pairs: Rows, turns: NDArray[np.float32], scales: NDArray[np.float32], weights: Scores
) -> tuple[Rows, Scores]:
    """Return the pairs with two votes or more for one rotation and scale, and the sum of their weights.

    Bins overlap by half, since a rotation or a scale may lie between two. A pair can occur several times.
    """
    found, scores = [np.empty(0, np.int64)], [np.empty(0)]
    for turned, scaled in product((0.0, 0.5), (0.0, 0.5)):
        turn = np.floor(turns + turned).astype(np.int64) % TURNS
        scale = np.clip(np.floor(scales + scaled), 0, SCALES - 1).astype(np.int64)
        bins = (pairs * TURNS + turn) * SCALES + scale
        order = np.argsort(bins, kind="stable")
        starts = np.flatnonzero(np.diff(bins[order], prepend=-1))
        if len(starts):
            several = np.diff(starts, append=len(order)) > 1
            found.append(bins[order][starts[several]] // (TURNS * SCALES))
            scores.append(np.add.reduceat(weights[order], starts)[several])
    return np.concatenate(found), np.concatenate(scores)


def _distinct(ones: Rows, others: Rows, scores: Scores) -> tuple[Rows, Rows, Scores]:
    """Return each pair once, ascending, with its highest score."""
    order = np.lexsort((-scores, others, ones))
    ones, others, scores = ones[order], others[order], scores[order]
    is_new = (np.diff(ones, prepend=-1) != 0) | (np.diff(others, prepend=-1) != 0)
    return ones[is_new], others[is_new], scores[is_new]


def _best(ones: Rows, others: Rows, scores: Scores) -> tuple[Rows, Rows, Scores]:
    """Return the VOTES.partners pairs of each of `ones` with most votes, each once."""
    ones, others, scores = _distinct(ones, others, scores)
    order = np.lexsort((-scores, ones))
    ones, others, scores = ones[order], others[order], scores[order]
    is_best = np.arange(len(ones)) - np.searchsorted(ones, ones) < VOTES.partners
    return ones[is_best], others[is_best], scores[is_best]
