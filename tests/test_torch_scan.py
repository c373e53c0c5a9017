"""Nearest rows through torch, on the CPU in half precision, against NumPy. On a GPU: see test_gpu_knn.py."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers.memory_of_tensors import PeakMemory
from tests.helpers.vectors import families, keys_by_numpy
from vggsearch.defaults import GPU_SEARCH
from vggsearch.errors import Stopped
from vggsearch.knn import torch_scan
from vggsearch.knn.keys import NO_KEY
from vggsearch.knn.torch_scan import TorchScan
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import Monitor, Progress

DEVICE = torch.device("cpu")
DIM = 32
KB = 1 << 10


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 8 rows and two blocks of 32 queries, so that few rows make many of them."""
    monkeypatch.setattr(
        torch_scan, "GPU_SEARCH", replace(GPU_SEARCH, group=8, queries=32, blocks=2, spare=6, exact_queries=16)
    )


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of queries that were repeated in float64."""
    counts: list[int] = []
    exactly = TorchScan._exact_keys

    def counted(
        scan: TorchScan, queries: torch_scan.Rows, own: torch.Tensor, search: torch_scan.Search
    ) -> torch.Tensor:
        counts.append(len(queries))
        return exactly(scan, queries, own, search)

    monkeypatch.setattr(TorchScan, "_exact_keys", counted)
    return counts


def excluded(rows: int, *which: int) -> NDArray[np.bool_]:
    mask = np.zeros(rows, bool)
    mask[list(which)] = True
    return mask


def assert_neighbours(
    stored: NDArray[np.float16], count: int, without: NDArray[np.bool_], scan: TorchScan | None = None
) -> None:
    found = (scan or TorchScan(stored, DEVICE)).neighbours(count, -1.0, without)
    np.testing.assert_array_equal(found, keys_by_numpy(stored, count, without))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 63, 64, 65, 500])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_the_neighbours_are_those_that_numpy_finds(rows: int, count: int) -> None:
    assert_neighbours(families(rows), count, excluded(rows, *range(3, rows, 50)))


def test_no_rows_have_no_neighbours() -> None:
    assert TorchScan(families(0), DEVICE).neighbours(5, 0.2, excluded(0)).shape == (0, 5)


def test_without_any_allowed_row_nothing_is_found() -> None:
    found = TorchScan(families(20), DEVICE).neighbours(5, -1.0, np.ones(20, bool))
    assert (found == NO_KEY).all()
    rows = TorchScan(families(20), DEVICE).nearest(unit_rows(families(3)), 5, np.zeros(20, bool))
    assert (rows == -1).all()


def test_few_queries_are_repeated_exactly(repeated: list[int]) -> None:
    """Nearly all are proven complete by the error bound alone, or the scan would be slow."""
    stored = families(2000, dim=64)
    assert_neighbours(stored, 10, excluded(2000))
    assert sum(repeated) < 20


def test_more_copies_than_candidates_are_ranked_by_row(repeated: list[int]) -> None:
    stored = families(600)
    copies = np.random.default_rng(1).permutation(600)[:80]
    stored[copies] = stored[0]
    assert_neighbours(stored, 7, excluded(600, *copies[::9]))
    assert sum(repeated) >= 71


def test_similarities_closer_than_half_precision_are_ranked_exactly(repeated: list[int]) -> None:
    """Rows near one direction, whose products differ by less than float16 can represent."""
    random = np.random.default_rng(2)
    stored = unit_rows(random.standard_normal(DIM) + 0.002 * random.standard_normal((400, DIM))).astype(np.float16)
    products = stored[:50] @ stored.T
    assert len(np.unique(products)) < 10
    assert_neighbours(stored, 5, excluded(400))
    assert sum(repeated) > 300


def test_vectors_may_have_any_length_and_be_zero() -> None:
    stored = (families(300) * np.linspace(0.5, 3, 300)[:, None]).astype(np.float16)
    stored[17] = 0
    assert_neighbours(stored, 5, excluded(300, 3))
    scan = TorchScan(stored, DEVICE)
    assert scan._resident is not None
    assert scan._resident.half is not scan._resident.stored


def test_vectors_of_unit_length_are_not_copied() -> None:
    scan = TorchScan(families(300), DEVICE)
    assert scan._resident is not None
    assert scan._resident.half is scan._resident.stored


@pytest.mark.parametrize("is_resident", [True, False])
@pytest.mark.parametrize("rows_at_once", [104, 304])
def test_the_result_does_not_depend_on_the_blocks(
    is_resident: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_scan, "CHUNK_ROWS", 104)
    monkeypatch.setattr(TorchScan, "_rows_at_once", lambda *_: rows_at_once)
    stored = families(400)
    stored[100:160] = stored[50]
    scan = TorchScan(stored, DEVICE, 3000 * KB)
    assert scan._resident is not None
    if not is_resident:
        scan._resident = None
    assert_neighbours(stored, 6, excluded(400, 0, 399), scan)


def test_vectors_that_take_too_much_memory_are_uploaded_block_by_block() -> None:
    stored = families(1000)
    for room in (80 * KB, 800 * KB):
        scan = TorchScan(stored, DEVICE, room)
        assert (scan._resident is None) == (room == 80 * KB)
        nearest = scan.nearest(unit_rows(stored[:3]), 4)
        np.testing.assert_array_equal(nearest, TorchScan(stored, DEVICE).nearest(unit_rows(stored[:3]), 4))


def test_memory_stays_within_the_room_where_vectors_are_uploaded_block_by_block() -> None:
    stored, room = families(4000), 400 * KB
    queries = unit_rows(stored[::80])
    expected = TorchScan(stored, DEVICE).nearest(queries, 6)
    scan = TorchScan(stored, DEVICE, room)
    assert scan._resident is None
    with PeakMemory() as memory:
        found = scan.nearest(queries, 6)
    np.testing.assert_array_equal(found[:, :6], expected[:, :6])
    assert room / 4 < memory.peak < 1.5 * room


def test_products_of_a_block_fit_in_the_memory() -> None:
    for room in (100 * KB, 300 * KB, 3000 * KB, 30_000 * KB):
        scan = TorchScan(families(5000), DEVICE, room)
        queries = scan._queries_at_once(torch_scan.Search(6, 6, torch.ones(5000)))
        assert queries * scan._rows_at_once(queries) * 2 < room
        assert scan._rows_at_once(queries) % 8 == 0


def test_rows_may_be_missing_below_the_floor_only(repeated: list[int]) -> None:
    stored = families(500, seed=3)
    wanted = keys_by_numpy(stored, 20, excluded(500))
    found = TorchScan(stored, DEVICE).neighbours(20, 0.9, excluded(500))
    is_above = wanted >> 32 >= 0.9 * 2**20
    assert 0 < is_above.mean() < 0.5
    np.testing.assert_array_equal(found[is_above], wanted[is_above])


@pytest.mark.parametrize("count", [1, 10, 300])
def test_the_nearest_to_queries_include_those_that_numpy_finds(count: int) -> None:
    stored, queries = families(900), unit_rows(families(100, seed=1).astype(np.float32) + np.float32(0.01))
    wanted = np.random.default_rng(1).random(900) < 0.6
    similarities = queries.astype(np.float64) @ unit_rows(stored).astype(np.float64).T
    similarities[:, ~wanted] = -np.inf
    found = TorchScan(stored, DEVICE).nearest(queries, count, wanted)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
    for row, expected in zip(found, nearest, strict=True):
        assert set(expected.tolist()) <= set(row.tolist())
        assert len(set(row[row >= 0].tolist())) == np.count_nonzero(row >= 0)


def test_no_query_finds_nothing() -> None:
    assert TorchScan(families(30), DEVICE).nearest(np.empty((0, DIM), np.float32), 4).shape == (0, 10)


def test_float32_vectors_are_compared_as_they_are() -> None:
    stored = unit_rows(families(400).astype(np.float32) + np.float32(1e-3))
    found = TorchScan(stored, DEVICE).nearest(stored[:50], 5)
    nearest = np.argsort(-(stored[:50].astype(np.float64) @ stored.T.astype(np.float64)), axis=1)[:, :5]
    np.testing.assert_array_equal(found[:, :5], nearest)


def test_damaged_vectors_are_named_and_never_found() -> None:
    stored = families(300)
    scan = TorchScan(stored, DEVICE)
    assert scan.non_finite() is None
    stored[217, 3], stored[250] = np.nan, np.inf
    damaged = TorchScan(stored, DEVICE)
    assert damaged.non_finite() == 217
    rows = damaged.nearest(unit_rows(families(40, seed=5)), 300)
    assert {217, 250}.isdisjoint(rows.ravel().tolist())
    assert all(len(set(row.tolist())) == 299 for row in rows)  # 298 rows and -1


@contextmanager
def memory(monkeypatch: pytest.MonkeyPatch, most_products: int) -> Iterator[list[int]]:
    """A device that has memory for so many products at once; yields the numbers that were attempted."""
    attempted: list[int] = []
    multiplied = torch.addmm

    def addmm(bias: torch.Tensor, ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        attempted.append(len(ones) * others.shape[1])
        if attempted[-1] > most_products:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return multiplied(bias, ones, others)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "addmm", addmm)
        yield attempted


def test_out_of_memory_halves_the_blocks_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = families(700)
    monkeypatch.setattr(torch_scan, "LEAST_ROOM", 100 * KB)
    with memory(monkeypatch, 20_000) as attempted:
        assert_neighbours(stored, 5, excluded(700))
    too_many = [size for size in attempted if size > 20_000]
    assert len(too_many) >= 2
    assert attempted[: len(too_many)] == too_many


def test_a_device_that_is_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = TorchScan(families(700), DEVICE)
    with memory(monkeypatch, 10), pytest.raises(torch.OutOfMemoryError):
        scan.neighbours(5, 0.2, excluded(700))
    assert_neighbours(families(100), 5, excluded(100))


def test_sums_are_in_float32_during_a_search_only(monkeypatch: pytest.MonkeyPatch) -> None:
    options, seen = torch.backends.cuda.matmul, []
    multiplied = torch.addmm

    def addmm(*given: torch.Tensor) -> torch.Tensor:
        seen.append((options.allow_fp16_reduced_precision_reduction, options.allow_fp16_accumulation))
        return multiplied(*given)

    monkeypatch.setattr(torch, "addmm", addmm)
    assert options.allow_fp16_reduced_precision_reduction
    try:
        options.allow_fp16_accumulation = True
        TorchScan(families(50), DEVICE).neighbours(5, 0.2, excluded(50))
        assert seen == [(False, False)] * 2
        assert options.allow_fp16_reduced_precision_reduction
        assert options.allow_fp16_accumulation
    finally:
        options.allow_fp16_accumulation = False


def test_progress_reaches_all_pairs_and_it_stops_on_request() -> None:
    told: list[Progress] = []
    TorchScan(families(300), DEVICE).neighbours(5, 0.2, excluded(300), Monitor(told.append))
    assert [(each.done, each.total) for each in told] == [
        (min(64 * block, 300) * 44_850 // 300, 44_850) for block in range(1, 6)
    ]
    stop: Callable[[], bool] = lambda: len(told) >= 7  # noqa: E731
    with pytest.raises(Stopped):
        TorchScan(families(300), DEVICE).neighbours(5, 0.2, excluded(300), Monitor(told.append, stop))
    assert len(told) == 7
