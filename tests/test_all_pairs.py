"""All-pairs k-NN against brute force in numpy."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vggsearch import defaults
from vggsearch.errors import OptionError, Stopped, VectorsDamaged
from vggsearch.knn.all_pairs import all_pairs, complete
from vggsearch.knn.edges import SIMILARITY_STEPS, Edges, edges_from_pairs
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import Monitor, Progress

DIM = 16
Pairs = dict[tuple[int, int], float]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 rows that divide no number of rows here, and a sample that is used from 320 rows on."""
    monkeypatch.setattr("vggsearch.knn.all_pairs.PAIRS", replace(defaults.PAIRS, block_rows=64, sample=40))


def vectors(rows: int, seed: int = 0) -> NDArray[np.float16]:
    """A third of the rows at random, the others near one of those; float16, not quite of unit length."""
    random = np.random.default_rng(seed)
    apart = random.standard_normal((rows, DIM))
    near = apart[random.integers(0, max(rows // 3, 1), rows)] + 0.3 * random.standard_normal((rows, DIM))
    chosen = np.where(np.arange(rows)[:, None] < rows // 3, apart, near) if rows else apart
    return unit_rows(chosen).astype(np.float16)


def truth(stored: NDArray[np.float16], count: int, floor: float, without: tuple[int, ...] = ()) -> Pairs:
    """Compare every row with every other, in float64, and sort each row's list whole."""
    unit = stored.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    similarity = np.rint(unit @ unit.T * SIMILARITY_STEPS) / SIMILARITY_STEPS
    np.fill_diagonal(similarity, -np.inf)
    similarity[list(without)] = similarity[:, list(without)] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]  # of equals, the lower row
    return {
        (min(row, other), max(row, other)): similarity[row, other]
        for row, others in enumerate(order.tolist())
        for other in others
        if similarity[row, other] >= floor
    }


def listed(edges: Edges | None) -> Pairs:
    assert edges is not None
    assert [column.dtype.name for column in (edges.first, edges.second, edges.similarity)] == ["int32"] * 2 + [
        "float32"
    ]
    names = list(zip(edges.first.tolist(), edges.second.tolist(), strict=True))
    assert names == sorted(set(names))
    assert all(first < second for first, second in names)
    return dict(zip(names, edges.similarity.tolist(), strict=True))


def assert_same(found: Pairs, wanted: Pairs, apart: int = 0) -> None:
    """The same pairs, but for `apart` whose similarities are two sums of float32 that round to different steps."""
    both = found.keys() & wanted.keys()
    assert len(found.keys() ^ wanted.keys()) <= apart
    assert max((abs(found[pair] - wanted[pair]) for pair in both), default=0) <= 1.5 / SIMILARITY_STEPS


@pytest.mark.parametrize("rows", [2, 3, 63, 64, 65, 128, 500, 1000])
@pytest.mark.parametrize(("count", "floor"), [(1, -1.0), (7, -1.0), (7, 0.8), (7, 0.95)])
def test_the_pairs_are_those_that_numpy_finds(rows: int, count: int, floor: float) -> None:
    stored = vectors(rows)
    wanted = truth(stored, count, floor)
    assert_same(listed(all_pairs(stored, count, floor)), wanted, apart=rows // 250)
    assert len(wanted) > rows // 3 or floor > 0


def test_with_fewer_photos_than_neighbours_all_pairs_are_listed() -> None:
    stored = vectors(10)
    found = all_pairs(stored, 32, -1.0)
    assert_same(listed(found), truth(stored, 32, -1.0))
    assert found is not None
    assert len(found) == 45
    assert len(found.saturated) == 0


@pytest.mark.parametrize("rows", [0, 1])
def test_one_photo_or_none_makes_no_pair(rows: int) -> None:
    edges = all_pairs(vectors(rows), 5, -1.0)
    assert listed(edges) == {}


def test_exact_copies_have_similarity_1_are_linked_to_the_first_ones_and_saturated() -> None:
    stored = np.concatenate([vectors(300, seed=1), np.repeat(vectors(1, seed=2), 200, axis=0)])
    stored = stored[np.random.default_rng(3).permutation(500)]
    copies = np.flatnonzero((unit_rows(stored) @ unit_rows(vectors(1, seed=2))[0]) > 0.9999)
    edges = all_pairs(stored, 4, 0.9)
    found = listed(edges)
    assert_same(found, truth(stored, 4, 0.9))
    first = copies[:5].tolist()
    for copy in copies[5:].tolist():
        assert {pair[0] for pair in found if pair[1] == copy} == set(first[:4])
        assert all(found[row, copy] == 1.0 for row in first[:4])
    assert edges is not None
    assert set(copies.tolist()) <= set(edges.saturated.tolist())


def test_identical_rows_form_a_star_and_not_all_pairs() -> None:
    edges = all_pairs(np.repeat(vectors(1), 1000, axis=0), 3, 0.5)
    assert_same(listed(edges), truth(np.repeat(vectors(1), 1000, axis=0), 3, 0.5))
    assert edges is not None
    assert len(edges) == 3 * 1000 - 6
    assert edges.saturated.tolist() == list(range(1000))


def test_ties_at_the_end_of_a_list_go_to_the_lower_row() -> None:
    corners = np.vstack([np.eye(DIM), -np.eye(DIM)]).astype(np.float16)
    stored = np.tile(corners, (12, 1))  # only similarities 1, 0 and -1, each many times
    for count in (5, 11, 20, 100):
        assert_same(listed(all_pairs(stored, count, -1.0)), truth(stored, count, -1.0))


def test_the_result_does_not_depend_on_the_order_of_the_rows() -> None:
    stored = vectors(700, seed=4)
    order = np.random.default_rng(5).permutation(700)
    plain, mixed = listed(all_pairs(stored, 6, 0.3)), listed(all_pairs(stored[order], 6, 0.3))
    renamed = {(min(pair), max(pair)): value for (a, b), value in mixed.items() for pair in [(order[a], order[b])]}
    assert_same(renamed, plain, apart=2)


def test_the_result_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = vectors(900, seed=6)
    found = listed(all_pairs(stored, 9, 0.2))
    for block_rows, sample, threads in [(2048, 1024, 1), (100, 20, 3), (333, 11, 2)]:
        options = replace(defaults.PAIRS, block_rows=block_rows, sample=sample, threads=threads)
        monkeypatch.setattr("vggsearch.knn.all_pairs.PAIRS", options)
        assert_same(listed(all_pairs(stored, 9, 0.2)), found, apart=2)


def test_excluded_rows_are_in_no_pair_and_take_no_entry() -> None:
    stored = vectors(500, seed=7)
    without = (0, 3, 64, 65, 499)
    found = listed(all_pairs(stored, 5, -1.0, without=np.array(without)))
    assert_same(found, truth(stored, 5, -1.0, without), apart=2)
    assert not set(without) & {row for pair in found for row in pair}


def test_vectors_may_be_memory_mapped_and_of_any_dimensions(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("mapped") / "vectors.npy"
    stored = (vectors(200, seed=8) * np.linspace(0.5, 3, 200)[:, None]).astype(np.float16)
    np.save(path, stored)
    mapped = np.load(path, mmap_mode="r")
    assert_same(listed(all_pairs(mapped, 5, 0.5)), truth(stored, 5, 0.5), apart=1)


def test_a_zero_vector_is_similar_to_no_other() -> None:
    stored = vectors(100, seed=9)
    stored[40] = 0
    assert not any(40 in pair for pair in listed(all_pairs(stored, 5, 0.1)))


@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_infinity_and_nan_are_refused_with_their_row(what: float) -> None:
    stored = vectors(300)
    stored[217, 3] = what
    named = r"row 217 contains infinity or NaN\. Repair the index: vggsearch\.verify\(INDEX, repair=True\)"
    with pytest.raises(VectorsDamaged, match=named):
        all_pairs(stored, 5, 0.5)


@pytest.mark.parametrize(
    ("count", "floor", "named"), [(0, 0.5, "at least 1, not 0"), (5, 1.5, "between -1 and 1, not 1.5")]
)
def test_invalid_options_are_refused(count: int, floor: float, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        all_pairs(vectors(10), count, floor)


def test_progress_counts_every_product_of_two_blocks_once() -> None:
    told: list[Progress] = []
    all_pairs(vectors(300), 5, 0.5, monitor=Monitor(told.append))
    pairs = 300 * 299 // 2
    blocks = 15  # five blocks: 5 * 6 / 2
    assert [(each.done, each.total) for each in told] == [
        (done * pairs // blocks, pairs) for done in range(1, blocks + 1)
    ]


def test_it_stops_on_request_without_a_result() -> None:
    told: list[Progress] = []
    with pytest.raises(Stopped):
        all_pairs(vectors(900), 5, 0.5, monitor=Monitor(told.append, stop=lambda: len(told) >= 7))
    assert len(told) == 7


def test_a_higher_floor_needs_no_new_search_and_a_lower_one_is_refused() -> None:
    stored = vectors(400, seed=10)
    edges = all_pairs(stored, 6, 0.4)
    assert edges is not None
    assert listed(edges.above(0.9)) == listed(all_pairs(stored, 6, 0.9))
    np.testing.assert_array_equal(edges.above(0.9).saturated, edges.above(0.9).above(0.9).saturated)
    with pytest.raises(OptionError, match=r"go down to a similarity of 0\.4, not to 0\.3"):
        edges.above(0.3)


def test_a_row_that_is_not_saturated_has_all_its_pairs() -> None:
    stored = vectors(600, seed=11)
    edges = all_pairs(stored, 5, 0.8)
    assert edges is not None
    saturated = set(edges.saturated.tolist())
    missing = truth(stored, 600, 0.8).keys() - listed(edges).keys()
    assert missing
    assert all(first in saturated and second in saturated for first, second in missing)


def test_completed_edges_are_all_pairs_above_the_floor() -> None:
    stored = np.concatenate([vectors(500, seed=12), np.repeat(vectors(1, seed=13), 90, axis=0)])
    edges = all_pairs(stored, 5, 0.8, without=np.array([7]))
    assert edges is not None
    whole = complete(stored, edges, without=np.array([7]))
    wanted = truth(stored, 600, 0.8, without=(7,))
    assert len(wanted) > len(edges) + 1000
    assert_same(listed(whole), wanted, apart=2)
    assert whole is not None
    assert len(whole.saturated) == 0


def test_too_many_pairs_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.repeat(vectors(1), 200, axis=0)
    edges = all_pairs(stored, 5, 0.8)
    assert edges is not None
    monkeypatch.setattr("vggsearch.knn.all_pairs.PAIRS", replace(defaults.PAIRS, most=5000))
    with pytest.raises(OptionError, match=r"More than 5,000 pairs .* higher similarity"):
        complete(stored, edges)


def test_lists_of_neighbours_found_elsewhere_make_the_same_edges() -> None:
    stored = vectors(400, seed=14)
    similarity = unit_rows(stored) @ unit_rows(stored).T
    np.fill_diagonal(similarity, -2.0)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :6]
    values = np.take_along_axis(similarity, order, axis=1)
    rows, entries = np.nonzero(values >= 0.6)
    edges = edges_from_pairs(400, 6, 0.6, rows, order[rows, entries], values[rows, entries])
    assert edges.count == 6
    assert_same(listed(edges), truth(stored, 6, 0.6), apart=1)


def test_memory_is_that_of_blocks_and_lists_only() -> None:
    stored = vectors(4000, seed=15)  # 64 MB of products
    tracemalloc.start()
    found = all_pairs(stored, 4, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert len(found) > 1000
    assert peak < 4_000_000
