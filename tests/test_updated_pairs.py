"""Pairs after an update: those of a new search, although only new rows are compared."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.vectors import families
from vggsearch.defaults import PAIRS
from vggsearch.errors import Stopped
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import SIMILARITY_STEPS, Columns, Edges
from vggsearch.knn.hash_pairs import hash_pairs, updated_hash_pairs
from vggsearch.knn.neighbours import Nearest
from vggsearch.knn.updated_pairs import KeptRows, _Update, updated_pairs
from vggsearch.photos.perceptual_hash import BYTES, in_all_orientations
from vggsearch.progress import Monitor

COUNT, FLOOR = 6, 0.5
ROWS = 1500


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups of rows, and blocks in them; the last group is a single row."""
    options = replace(PAIRS, near_rows=499, block_rows=64, hash_block=7, update_exact=2)
    for module in ("all_pairs", "updated_pairs", "neighbours", "hash_pairs"):
        monkeypatch.setattr(f"vggsearch.knn.{module}.PAIRS", options)


def named(edges: Edges) -> dict[tuple[int, int], float]:
    pairs = list(zip(edges.first.tolist(), edges.second.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert all(first < second for first, second in pairs)
    return dict(zip(pairs, edges.similarity.tolist(), strict=True))


def assert_same(found: Edges | None, wanted: Edges) -> None:
    """Check for the same pairs. A similarity near the middle of two steps may be rounded to either."""
    assert found is not None
    assert (found.rows, found.count, found.floor) == (wanted.rows, wanted.count, wanted.floor)
    ours, theirs = named(found), named(wanted)
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[pair] - theirs[pair]) for pair in theirs) <= 1.5 / SIMILARITY_STEPS


def vectors() -> NDArray[np.float16]:
    """Return vectors with families, exact copies in many places, and some that have no neighbour."""
    made = families(ROWS - 3)
    made[::37] = made[5]
    return np.concatenate([made, np.eye(3, made.shape[1], dtype=np.float16)])


def after(
    before: NDArray[np.int64], now: NDArray[np.int64], without: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> KeptRows:
    """Return which rows of two states, named by rows of `vectors`, are the same; `without` are left out of each."""
    numbers = [state.astype(np.uint64) + np.uint64(2**63 + 1) for state in (before, now)]
    for each, left_out in zip(numbers, without, strict=True):
        each[left_out] = 0
    return KeptRows.matching(*numbers)


ALL = np.arange(ROWS)
NONE = np.empty(0, np.int64)
CHANGES = {
    "nothing": (ALL, ALL),
    "added at the end": (ALL[:-40], ALL),
    "one added": (ALL[:-1], ALL),
    "removed": (ALL, np.delete(ALL, np.arange(3, 1500, 60))),
    "one of the copies removed": (ALL, np.delete(ALL, [37, 74])),
    "added and removed": (ALL[:-40], np.delete(ALL, np.arange(7, 1400, 60))),
    "renamed": (ALL, np.concatenate([np.delete(ALL, [4, 99, 800]), [99, 4, 800]])),
    "added in the middle": (np.delete(ALL, np.arange(11, 1500, 50)), ALL),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_pairs_are_those_of_a_new_search(change: str) -> None:
    stored, (before, now) = vectors(), CHANGES[change]
    last = all_pairs(stored[before], COUNT, FLOOR)
    found = updated_pairs(stored[now], last, after(before, now, (NONE, NONE)))
    wanted = all_pairs(stored[now], COUNT, FLOOR)
    assert_same(found, wanted)
    assert len(wanted) > ROWS


def test_more_pairs_than_one_number_can_rank_are_ranked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, last = vectors(), all_pairs(vectors()[:-40], COUNT, FLOOR)
    kept = after(ALL[:-40], ALL, (NONE, NONE))
    found = updated_pairs(stored, last, kept)
    monkeypatch.setattr("vggsearch.knn.updated_pairs.NUMBER_BITS", 0)
    again = updated_pairs(stored, last, kept)
    assert found is not None
    assert again is not None
    assert named(again) == named(found)


def test_rows_that_are_left_out_before_or_now_are_compared_as_they_should_be() -> None:
    stored, before, now = vectors(), ALL[:-20], ALL
    left_out = np.array([0, 5, 44]), np.array([5, 6, 1490])
    last = all_pairs(stored[before], COUNT, FLOOR, left_out[0])
    found = updated_pairs(stored[now], last, after(before, now, left_out))
    assert_same(found, all_pairs(stored[now], COUNT, FLOOR, left_out[1]))


@pytest.mark.parametrize("seed", range(5))
def test_one_update_after_another_changes_nothing_about_that(seed: int) -> None:
    stored, random = vectors(), np.random.default_rng(seed)
    now = ALL[:1200]
    edges: Edges | None = all_pairs(stored[now], COUNT, FLOOR)
    for start in range(1200, 1500, 100):
        before, kept = now, random.random(len(now)) > 0.01
        now = np.concatenate([now[kept], ALL[start : start + 100]])
        assert edges is not None
        edges = updated_pairs(stored[now], edges, after(before, now, (NONE, NONE)))
    assert_same(edges, all_pairs(stored[now], COUNT, FLOOR))


def test_only_new_rows_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(update: _Update, group: NDArray[np.int64], lists: Nearest, monitor: Monitor) -> Columns:
        asked.append(len(update.asking))
        return compare(update, group, lists, monitor)

    compare = _Update.pairs_of_kept
    monkeypatch.setattr(_Update, "pairs_of_kept", spy)
    last = all_pairs(vectors()[:-7], COUNT, FLOOR)
    updated_pairs(vectors(), last, after(ALL[:-7], ALL, (NONE, NONE)))
    assert set(asked) == {7}


def test_many_changes_and_pairs_of_another_kind_are_a_new_search() -> None:
    stored, kept = vectors(), after(ALL[:700], ALL, (NONE, NONE))
    assert updated_pairs(stored, all_pairs(stored[:700], COUNT, FLOOR), kept) is None
    last = all_pairs(stored[:-1], COUNT, FLOOR)
    assert updated_pairs(stored, replace(last, count=None), after(ALL[:-1], ALL, (NONE, NONE))) is None


def test_it_stops_on_request() -> None:
    last = all_pairs(vectors()[:-7], COUNT, FLOOR)
    with pytest.raises(Stopped):
        updated_pairs(
            vectors(), last, after(ALL[:-7], ALL, (NONE, NONE)), Monitor(lambda _: None, stop=lambda: True)
        )


def test_among_many_rows_no_more_pairs_are_missed_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(PAIRS, most_exact=500, near_rows=499, near_sample=200, near_lists=0.6, near_recall=0.9)
    for module in ("all_pairs", "near_pairs", "updated_pairs", "neighbours"):
        monkeypatch.setattr(f"vggsearch.knn.{module}.PAIRS", few)
    stored = families(ROWS)
    near = all_pairs(stored[:-20], COUNT, FLOOR)
    found = updated_pairs(stored, near, after(ALL[:-20], ALL, (NONE, NONE)))
    monkeypatch.setattr("vggsearch.knn.all_pairs.PAIRS", replace(few, most_exact=10**9))
    before, now = named(all_pairs(stored[:-20], COUNT, FLOOR)), named(all_pairs(stored, COUNT, FLOOR))
    assert found is not None
    was_found, is_found = named(near).keys(), named(found).keys()
    assert 0.5 < len(was_found & before.keys()) / len(before) < 1
    new = {pair for pair in now if max(pair) >= ROWS - 20}
    assert new
    assert new <= is_found
    assert now.keys() & was_found <= is_found


def hashes() -> NDArray[np.uint8]:
    """Return hashes of which many are near others, turned, and some are missing."""
    random = np.random.default_rng(0)
    some = random.integers(0, 256, (60, BYTES), np.uint8)
    views = in_all_orientations(some)[random.integers(0, 8, 1000), random.integers(0, 60, 1000)]
    bits = np.unpackbits(views, axis=1)
    bits ^= random.random(bits.shape) < random.uniform(0, 0.25, (1000, 1))
    found = np.packbits(bits, axis=1)
    found[::50] = 0
    return found


@pytest.mark.parametrize("count", [3, 1000])
@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_pairs_are_those_of_a_new_search(change: str, count: int) -> None:
    made, (before, now) = hashes(), CHANGES[change]
    before, now = before[before < 1000], now[now < 1000]
    if len(before) == len(now) == 1000 and change != "nothing":
        before = before[:-30]
    last = hash_pairs(made[before], in_all_orientations, count)
    found = updated_hash_pairs(made[now], in_all_orientations, last, after(before, now, (NONE, NONE)), count)
    wanted = hash_pairs(made[now], in_all_orientations, count)
    assert found is not None
    assert named(found) == named(wanted)
    assert len(wanted) > 1000


def test_many_new_hashes_are_a_new_search() -> None:
    made = hashes()
    last = hash_pairs(made[:400], in_all_orientations)
    kept = after(ALL[:400], ALL[:1000], (NONE, NONE))
    assert updated_hash_pairs(made, in_all_orientations, last, kept) is None


def test_rows_are_matched_by_their_numbers_in_order() -> None:
    before, now = (np.array(each, np.uint64) for each in ([5, 0, 7, 8, 9, 3], [5, 4, 8, 9, 0, 7, 3]))
    kept = KeptRows.matching(before, now)
    assert kept.now.tolist() == [0, -1, -1, 2, 3, 6]
    assert kept.compared.tolist() == [True, True, True, True, False, True, True]
    assert kept.added.tolist() == [1, 5]
    nothing = KeptRows.matching(np.empty(0, np.uint64), np.array([1, 2], np.uint64))
    assert nothing.added.tolist() == [0, 1]
