"""Which candidates of a query are compared by keypoints, and what becomes of them."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
import pytest

from vggsearch.defaults import ALIGN
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.evidence import COPY, Comparison, Found
from vggsearch.matching.feature_maps import LocalFeatures
from vggsearch.matching.keypoints import Keypoints
from vggsearch.matching.rerank import PhotoFeatures, QueryFeatures
from vggsearch.query import judging
from vggsearch.query.judging import Judged, judged
from vggsearch.query.searcher import Candidate

AT = Alignment(0.8, 40, False, 0.0, 1.0, ((0, 0), (1, 0), (1, 1), (0, 1)))
GREY = np.zeros((8, 8), np.uint8)
CELLS = LocalFeatures((np.zeros((2, 2, 4), np.float32),), 1.0)  # which match nothing
QUERY = QueryFeatures(
    np.ones((1, 4), np.float32), np.empty((0, 4), np.float32), np.empty((0, 32), np.uint8), [CELLS], [], GREY
)
FRAMED = replace(QUERY, inside=np.ones((2, 4), np.float32), inside_cells=[CELLS])

Judge = Callable[..., tuple[list[Judged], list[int]]]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Judge candidates of falling similarity, of which some are copies; return the results and who was compared."""

    def run(
        count: int,
        copies: set[int],
        bits: dict[int, int] | None = None,
        gone: AbstractSet[int] = frozenset(),
        shots: AbstractSet[int] = frozenset(),
        inside: dict[int, float] | None = None,
    ) -> object:
        compared: list[int] = []

        def compare(_: Keypoints, photo: Keypoints) -> Comparison:
            compared.append(photo.width)
            if photo.width in shots:
                return Comparison(AT, Found.OTHER)
            return Comparison(AT, Found.MANY) if photo.width in copies else Comparison(None, Found.NOTHING)

        monkeypatch.setattr(judging, "compare_keypoints", compare)
        candidates = [
            Candidate(f"{at}.jpg", 0.9 - at / 50, 0.9 - at / 50, (bits or {}).get(at)) for at in range(count)
        ]
        if inside is not None:
            candidates = [replace(each, inside=inside.get(at, 0.0)) for at, each in enumerate(candidates)]
        photos = [PhotoFeatures(CELLS, lambda: None) for _ in range(count)]
        for at, photo in enumerate(photos):
            none = np.empty((0, 2), np.float32)
            points = Keypoints(none, none, np.empty((0, 128), np.uint8), at, 8, GREY)
            photo.__dict__["keypoints"] = None if at in gone else points
        return judged(QUERY if inside is None else FRAMED, candidates, photos, 500), sorted(compared)

    return run  # type: ignore[return-value]


def test_a_copy_is_certain_and_raised_above_all_others(judge: Judge) -> None:
    results, _ = judge(6, {3})
    assert [(each.confidence or 0) >= COPY for each in results] == [at == 3 for at in range(6)]
    assert results[3].similarity == max(each.similarity for each in results)
    assert results[3].alignment == AT
    assert results[0].alignment is None


def test_few_are_compared_after_a_copy_and_not_many_without_one(judge: Judge) -> None:
    assert judge(30, set())[1] == [*range(ALIGN.unlike)]
    assert len(judge(30, {0})[1]) <= 1 + ALIGN.unlike_after + ALIGN.compared_at_once
    assert {*range(8)} <= {*judge(30, {*range(8)})[1]}


def test_in_a_frame_those_like_the_picture_inside_are_compared_in_turn_with_those_like_all_of_it(
    judge: Judge,
) -> None:
    results, compared = judge(30, {28}, inside={28: 0.5, 27: 0.7, 29: 0.6})
    assert (results[28].confidence or 0) >= COPY
    assert {0, 1, 27, 28, 29} <= {*compared}
    assert len(judge(30, set(), inside={29: 0.6})[1]) == ALIGN.unlike_framed


def test_another_shot_ranks_above_what_is_unrelated_and_below_a_copy(judge: Judge) -> None:
    results, _ = judge(6, {3}, shots={2})
    order = sorted(range(6), key=lambda at: -results[at].similarity)
    assert order[:3] == [3, 2, 0]
    assert (results[2].confidence or 0) < 0.1


def test_a_photo_with_the_hash_of_the_query_is_compared_first(judge: Judge) -> None:
    results, compared = judge(30, {29}, {29: 2})
    assert 29 in compared
    assert (results[29].confidence or 0) >= COPY


def test_of_a_photo_that_is_gone_only_what_is_stored_counts(judge: Judge) -> None:
    results, compared = judge(3, {0, 1, 2}, {0: 2, 1: 120}, gone={0, 1, 2})
    assert compared == []
    assert 0.9 < (results[0].confidence or 0) < COPY
    assert (results[1].confidence or 0) < 0.01
    assert results[2].confidence is None
    assert results[2].similarity == pytest.approx(0.9 - 2 / 50)
