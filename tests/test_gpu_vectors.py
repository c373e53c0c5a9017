"""Pairs and searches that torch computes on a GPU, which is simulated on the CPU, and the fallback to the CPU."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers.vectors import families, saved, saved_with_dead_slots
from vggsearch.defaults import BUILD, GPU_SEARCH
from vggsearch.errors import OptionError, Stopped, VectorsDamaged
from vggsearch.knn import brute_force, gpu, torch_scan
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import SIMILARITY_STEPS, Edges
from vggsearch.knn.pairs_across import pairs_across
from vggsearch.knn.torch_scan import TorchScan
from vggsearch.knn.tune import tune
from vggsearch.knn.vector_index import Selection, Tuning, VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import SILENT, Monitor

ROWS = 2000
Vectors = NDArray[np.float16]


class Machine:
    """A machine on which torch sees a GPU: its scans, which run on the CPU, and whether they fail from now on."""

    def __init__(self) -> None:
        self.searches: list[int] = []
        self.fails = ""

    def scan(self, vectors: Vectors, device: torch.device) -> TorchScan:
        assert str(device) == "cuda:0"
        there = self

        class Scan(TorchScan):
            def _keys(
                self, queries: torch_scan.Rows, own: torch.Tensor, search: torch_scan.Search
            ) -> NDArray[np.int64]:
                if there.fails:
                    raise RuntimeError(there.fails)
                there.searches.append(len(queries))
                return super()._keys(queries, own, search)

        return Scan(vectors, torch.device("cpu"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine; a GPU is worth it for 40,000 products, which are 20 queries of 2,000 rows."""
    found = Machine()
    monkeypatch.setattr(gpu, "cuda_gpus", lambda: ("NVIDIA Imaginary",))
    monkeypatch.setattr(torch_scan, "TorchScan", found.scan)
    monkeypatch.setattr(gpu, "GPU_SEARCH", replace(GPU_SEARCH, products=1e9, products_started=40_000))
    monkeypatch.setattr("vggsearch.knn.vector_index.BUILD", replace(BUILD, few_rows=10))
    return found


@pytest.fixture
def stored() -> Vectors:
    return families(ROWS)


def pairs(edges: Edges) -> dict[tuple[int, int], float]:
    keys = zip(edges.first.tolist(), edges.second.tolist(), strict=True)
    return dict(zip(keys, edges.similarity.tolist(), strict=True))


def assert_same(found: Edges, expected: Edges) -> None:
    """Pairs whose similarities are sums of float32 on the CPU, and so may be off by a step."""
    ours, theirs = pairs(found), pairs(expected)
    assert len(ours.keys() ^ theirs.keys()) <= len(theirs) // 1000
    both = ours.keys() & theirs.keys()
    assert max(abs(ours[pair] - theirs[pair]) for pair in both) <= 1.5 / SIMILARITY_STEPS
    assert (found.rows, found.count, found.floor) == (expected.rows, expected.count, expected.floor)


@pytest.mark.parametrize("floor", [-1.0, 0.5])
def test_pairs_from_a_gpu_are_those_of_the_cpu(machine: Machine, stored: Vectors, floor: float) -> None:
    stored[1500:1560] = stored[3]
    without = np.arange(0, ROWS, 70)
    found = all_pairs(stored, 9, floor, without)
    assert sum(machine.searches) == ROWS - len(without)
    machine.fails = "broken"
    assert_same(found, all_pairs(stored, 9, floor, without))


def test_pairs_are_sorted_on_the_cpu_if_the_gpu_has_too_little_memory_for_it(
    machine: Machine, stored: Vectors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = all_pairs(stored, 9, 0.5)

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch_scan, "_distinct_pairs", no_memory)
    found = all_pairs(stored, 9, 0.5)
    assert sum(machine.searches) == 2 * ROWS
    for name in ("first", "second", "similarity"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert caplog.messages == []


def test_few_pairs_are_computed_on_the_cpu(machine: Machine) -> None:
    all_pairs(families(280), 5, 0.5)
    assert machine.searches == []
    all_pairs(families(300), 5, 0.5)
    assert sum(machine.searches) == 300


def test_more_products_are_needed_if_torch_must_be_imported_first(
    machine: Machine, stored: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "sys", SimpleNamespace(modules={}))
    all_pairs(stored, 5, 0.5)
    assert machine.searches == []


def test_without_a_gpu_torch_is_not_asked(
    machine: Machine, stored: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "cuda_gpus", tuple)
    all_pairs(stored, 5, 0.5)
    assert machine.searches == []


def test_damaged_vectors_are_refused_and_a_stop_is_obeyed(machine: Machine, stored: Vectors) -> None:
    with pytest.raises(Stopped):
        all_pairs(stored, 5, 0.5, monitor=Monitor(stop=lambda: True))
    with pytest.raises(OptionError):
        all_pairs(stored, 0, 0.5)
    stored[217, 3] = np.nan
    with pytest.raises(VectorsDamaged, match="row 217 contains infinity or NaN"):
        all_pairs(stored, 5, 0.5)
    assert machine.searches == []


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nadvice"
WARNING = "The CPU compares the vectors because the GPU failed: CUDA out of memory. Tried to allocate 2.00 GiB."


def test_pairs_come_from_the_cpu_if_the_gpu_fails(
    machine: Machine, stored: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    expected = all_pairs(stored, 5, 0.5)
    machine.fails = OUT_OF_MEMORY
    assert_same(all_pairs(stored, 5, 0.5), expected)
    assert caplog.messages == [WARNING]


def opened(folder: Path, stored: Vectors, recipe: str) -> VectorIndex:
    index = saved(folder / "x", stored, recipe, Tuning(16, 4))
    index.use_gpus()
    return index


def near(stored: Vectors, count: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(1).standard_normal((count, stored.shape[1]))
    return unit_rows(stored[:count] + 0.05 * noise)


@pytest.mark.parametrize("recipe", ["flat", "ivf-pq", "hnsw"])
def test_any_kind_of_index_finds_the_exact_rows(
    machine: Machine, stored: Vectors, tmp_path: Path, recipe: str
) -> None:
    index, queries = opened(tmp_path, stored, recipe), near(stored, 30)
    index.nearest(queries[:19], 10)
    assert machine.searches == []  # too few queries to be worth an upload
    rows, similarities = index.nearest(queries, 10)
    assert sum(machine.searches) == 30
    expected, truth = brute_force.nearest(queries, 10, index.unit_vectors, ROWS)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, truth, atol=1e-6)


def test_a_filter_is_applied_on_the_gpu(machine: Machine, stored: Vectors, tmp_path: Path) -> None:
    stored[:1500] = stored[0]
    index = opened(tmp_path, stored, "ivf-sq8")
    for mask in (np.arange(ROWS) >= 900, np.arange(ROWS) % 11 == 3):
        rows, similarities = index.nearest(near(stored, 25), 40, Selection(mask))
        assert mask[rows].all()
        _, truth = brute_force.nearest(near(stored, 25), 40, index.unit_vectors, np.flatnonzero(mask))
        np.testing.assert_allclose(similarities, truth, atol=1e-6)
    assert sum(machine.searches) == 50


def test_dead_slots_are_not_found(machine: Machine, stored: Vectors, tmp_path: Path) -> None:
    kept = np.flatnonzero(np.arange(ROWS) % 4 > 0)
    index = saved_with_dead_slots(tmp_path / "index", stored, kept)
    assert len(index.stored) == ROWS
    index.use_gpus()
    queries = unit_rows(stored[:200])
    for rows, _ in (index.nearest(queries, 5), index.nearest_exactly(queries, 5)):
        np.testing.assert_array_equal(rows, brute_force.nearest(queries, 5, index.unit_vectors, len(kept))[0])
    mask = np.arange(len(kept)) % 2 == 0
    assert mask[index.nearest(queries, 5, Selection(mask))[0]].all()
    assert sum(machine.searches) == 600


def test_searches_come_from_the_cpu_if_the_gpu_fails_with_one_warning(
    machine: Machine, stored: Vectors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index, queries = opened(tmp_path, stored, "flat"), near(stored, 25)
    expected = index.nearest(queries, 10)[0]
    machine.fails = OUT_OF_MEMORY
    for _ in range(3):
        np.testing.assert_array_equal(index.nearest(queries, 10)[0], expected)
    np.testing.assert_array_equal(index.nearest_exactly(queries, 10)[0], expected)
    assert caplog.messages == [WARNING]


def test_pairs_with_another_index_are_those_of_the_cpu(machine: Machine, stored: Vectors, tmp_path: Path) -> None:
    index, others = saved(tmp_path / "x", stored[:300]), families(900, seed=1)
    without = np.arange(0, 1200, 7)
    found = pairs_across(index, [others[:500], others[500:]], 5, 0.3, without)
    assert sum(machine.searches) == 300 - 43
    machine.fails = "broken"
    assert_same(found, pairs_across(index, [others[:500], others[500:]], 5, 0.3, without))


@pytest.mark.parametrize("is_worth_it", [True, False])
def test_recall_is_measured_against_the_same_rows(
    machine: Machine, stored: Vectors, tmp_path: Path, is_worth_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.knn.tune.BUILD", replace(BUILD, tuning_queries=100, timed_queries=2))
    if not is_worth_it:
        monkeypatch.setattr(gpu, "cuda_gpus", tuple)
    index = saved(tmp_path / "x", stored, "ivf-sq8")
    tuning = tune(index, 0.95, SILENT)
    assert tuning.recall is not None
    assert tuning.recall >= 0.95
    assert sum(machine.searches) == (100 if is_worth_it else 0)
    vectors = unit_rows(stored[:40])
    rows, similarities = index.nearest_exactly(vectors, 7)
    expected, truth = brute_force.nearest(vectors, 7, index.unit_vectors, ROWS)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, truth, atol=1e-6)
