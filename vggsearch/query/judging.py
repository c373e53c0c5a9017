"""Judge the candidates of a query: compare the best ones by keypoints, and say how confident each is a copy."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vggsearch.defaults import ALIGN, PAIRS
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.evidence import COPY, Comparison, compare_keypoints, confidence, kinship
from vggsearch.matching.rerank import PhotoFeatures, QueryFeatures, confident, positions, raised, reranked
from vggsearch.matching.threads import single_threaded
from vggsearch.photos.perceptual_hash import BITS
from vggsearch.query.searcher import Candidate, in_order


@dataclass(frozen=True, slots=True)
class Judged:
    """The result for a candidate, as in a Match; `confidence` is None if nothing is known."""

    similarity: float
    alignment: Alignment | None
    confidence: float | None


def judged(
    query: QueryFeatures,
    candidates: Sequence[Candidate],
    photos: Sequence[PhotoFeatures | None],
    looked_at: int,
) -> list[Judged]:
    """Return the result for each candidate, in order; `photos` are their features, None for an unreadable one.

    The most promising candidates are compared by keypoints, until ALIGN.unlike of them are no copies, for a query
    with a frame ALIGN.unlike_framed, or ALIGN.unlike_after once a copy was found. `looked_at` is the number of
    photos searched.
    """
    most_unlike = ALIGN.unlike_framed if len(query.inside) else ALIGN.unlike
    compared = dict[int, Comparison]()

    def compare(at: int) -> Comparison | None:
        photo = photos[at]
        keypoints = photo.keypoints if photo is not None else None
        return compare_keypoints(query.keypoints, keypoints) if keypoints is not None else None

    confidences = [_confidence(candidate.bits, None, looked_at) for candidate in candidates]
    unlike, copies = 0, 0
    with single_threaded(), ThreadPoolExecutor(ALIGN.compared_at_once) as threads:
        if any(photos):
            threads.submit(lambda: query.keypoints)  # meanwhile
        alignments = positions(query, photos)
        similarities = [
            reranked(candidate.similarity, candidate.oriented, alignment)
            for candidate, alignment in zip(candidates, alignments, strict=True)
        ]
        order = in_order(
            [
                (
                    max(similarity, _similarity_of(candidate.bits)),
                    None if candidate.inside is None else reranked(candidate.inside, candidate.inside, alignment),
                )
                for similarity, candidate, alignment in zip(similarities, candidates, alignments, strict=True)
            ]
        )
        while order and unlike < (ALIGN.unlike_after if copies else most_unlike):
            some, order = order[: ALIGN.compared_at_once], order[ALIGN.compared_at_once :]
            for at, comparison in zip(some, threads.map(compare, some), strict=True):
                if comparison is None:
                    continue
                compared[at] = comparison
                confidences[at] = _confidence(candidates[at].bits, comparison, looked_at)
                is_copy = (confidences[at] or 0.0) >= COPY
                copies, unlike = copies + is_copy, unlike + (not is_copy)
    return [
        Judged(
            raised(similarity, known or 0.0, _kinship(candidates[at].bits, compared.get(at), looked_at)),
            _position(compared.get(at), alignment),
            known,
        )
        for at, (similarity, alignment, known) in enumerate(zip(similarities, alignments, confidences, strict=True))
    ]


def _similarity_of(bits: int | None) -> float:
    """Return the correlation of the hashes if they are nearly the same, else -1."""
    return 1 - 2 * bits / BITS if bits is not None and bits <= PAIRS.hash_bits else -1.0


def _confidence(bits: int | None, comparison: Comparison | None, looked_at: int) -> float | None:
    if bits is None and comparison is None:
        return None
    return confidence(bits, comparison.found if comparison is not None else None, looked_at)


def _kinship(bits: int | None, comparison: Comparison | None, looked_at: int) -> float:
    """Return the probability that a photo shows the scene of the query, 0 unless keypoints have aligned them."""
    is_aligned = comparison is not None and comparison.alignment is not None
    return kinship(bits, comparison.found, looked_at) if comparison is not None and is_aligned else 0.0


def _position(comparison: Comparison | None, of_cells: Alignment | None) -> Alignment | None:
    """Return the position to show: that by keypoints if they are clear, since it is more accurate, or by cells."""
    by_keypoints = confident(comparison.alignment) if comparison is not None else None
    return by_keypoints or confident(of_cells)
