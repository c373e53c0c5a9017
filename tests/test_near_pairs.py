"""Pairs among many rows: each row is compared with those of the lists nearest to it, and the recall is measured."""

import logging
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.elsewhere import Elsewhere
from tests.helpers.vectors import families
from vggsearch.defaults import PAIRS
from vggsearch.errors import Stopped, VectorsDamaged
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import SIMILARITY_STEPS, Edges
from vggsearch.knn.vectors import StoredVectors
from vggsearch.progress import SILENT, Monitor, Progress

ROWS = 3000
COUNT, FLOOR = 8, 0.5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    set_pairs(monkeypatch)


def set_pairs(
    monkeypatch: pytest.MonkeyPatch, near_recall: float = PAIRS.near_recall, near_rows: int = 700
) -> None:
    """Have more than a thousand rows compared in groups of 700."""
    few = replace(PAIRS, most_exact=1000, near_rows=near_rows, near_sample=200, near_lists=0.6)
    options = replace(few, near_recall=near_recall)
    for module in ("all_pairs", "near_pairs", "neighbours"):
        monkeypatch.setattr(f"vggsearch.knn.{module}.PAIRS", options)


@pytest.fixture(scope="module")
def stored() -> NDArray[np.float16]:
    return families(ROWS)


def exact(
    stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch, without: NDArray[np.int64] | None = None
) -> Edges:
    with monkeypatch.context() as patched:
        patched.setattr("vggsearch.knn.all_pairs.PAIRS", replace(PAIRS, most_exact=10**9))
        return all_pairs(stored, COUNT, FLOOR, without)


def named(edges: Edges) -> dict[tuple[int, int], float]:
    assert (edges.first < edges.second).all()
    return dict(zip(zip(edges.first.tolist(), edges.second.tolist(), strict=True), edges.similarity, strict=True))


def test_with_all_lists_the_pairs_are_the_exact_ones(
    stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_pairs(monkeypatch, near_recall=1.1)  # so the most lists are probed, which are all 32
    without = np.array([0, 5, 1234, ROWS - 1])
    found = named(all_pairs(stored, COUNT, FLOOR, without))
    expected = named(exact(stored, monkeypatch, without))
    assert found.keys() == expected.keys()
    assert len(found) > ROWS
    for pair, similarity in found.items():
        assert abs(similarity - expected[pair]) <= 1.5 / SIMILARITY_STEPS


def test_few_lists_find_the_share_that_is_reported(
    stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_pairs(monkeypatch, near_recall=0.9)
    with caplog.at_level(logging.WARNING):
        found = all_pairs(stored, COUNT, FLOOR)
    [message] = caplog.messages
    probes, share = int(message.split("in the ")[1].split()[0]), float(message.split("finds ")[1].split()[0])
    assert message.startswith("Each of the 3,000 photos was compared with those in the")
    assert probes < 32
    assert share >= 0.9
    expected = named(exact(stored, monkeypatch))
    both = named(found).keys() & expected.keys()
    assert len(both) / len(expected) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("near_rows", [700, 2998])
def test_tasks_elsewhere_find_the_same_pairs(
    stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch, near_rows: int
) -> None:
    set_pairs(monkeypatch, near_rows=near_rows)
    without = np.array([0, 5, 1234, ROWS - 1])
    tasks = Elsewhere(0)
    found = all_pairs(stored, COUNT, FLOOR, without, SILENT, tasks)
    expected = all_pairs(stored, COUNT, FLOOR, without)
    for name in ("first", "second", "similarity"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert tasks.done == 2 * -(-(ROWS - 4) // near_rows)


def test_of_equal_rows_the_lower_ones_are_nearer_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    set_pairs(monkeypatch, near_recall=1.1)
    copies = np.concatenate([np.repeat(families(1), 40, axis=0), families(1500, seed=7)])
    order = np.random.default_rng(3).permutation(len(copies))
    pairs = named(all_pairs(copies[order], COUNT, 0.999))
    rows = np.flatnonzero(order < 40).tolist()
    expected = {(rows[a], rows[b]) for b in range(40) for a in range(b) if a < COUNT or b <= COUNT}
    assert {pair for pair in pairs if pair[0] in rows} == expected


def test_a_last_group_of_one_row_has_all_its_neighbours(
    stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_pairs(monkeypatch, near_recall=1.1)
    expected = all_pairs(stored, COUNT, FLOOR)
    set_pairs(monkeypatch, near_recall=1.1, near_rows=ROWS - 1)
    found = all_pairs(stored, COUNT, FLOOR)
    assert named(found).keys() == named(expected).keys()


def test_copies_in_any_segment_are_linked(monkeypatch: pytest.MonkeyPatch, stored: NDArray[np.float16]) -> None:
    joined = StoredVectors([stored, stored[:40]], np.arange(3, ROWS + 40))
    pairs = named(all_pairs(joined, COUNT, 0.99))
    assert all(pairs[row - 3, ROWS + row - 3] == 1.0 for row in range(3, 40))


def test_rows_without_similar_ones_have_no_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = np.random.default_rng(5).standard_normal((1200, 256)).astype(np.float16)
    assert len(all_pairs(apart, COUNT, 0.8)) == 0


def test_damage_is_refused_and_it_stops_on_request(stored: NDArray[np.float16]) -> None:
    damaged = stored.copy()
    damaged[2222, 3] = np.nan
    with pytest.raises(VectorsDamaged, match="row 2222"):
        all_pairs(damaged, COUNT, FLOOR)
    told: list[Progress] = []
    with pytest.raises(Stopped):
        all_pairs(stored, COUNT, FLOOR, monitor=Monitor(told.append, stop=lambda: len(told) >= 4))


def test_many_photos_of_one_thing_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in few lists, which all of them probe: the products of a list, computed at once, took 152 MB."""
    set_pairs(monkeypatch, near_rows=8000)
    alike = np.random.default_rng(3).normal(1, 0.01, (8000, 32)).astype(np.float16)
    tracemalloc.start()
    edges = all_pairs(alike, COUNT, FLOOR)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(edges.first) > 8000
    assert peak < 60e6, peak
