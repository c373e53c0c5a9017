"""Nearest rows through torch on a real GPU, what test_torch_scan.py and test_gpu_vectors.py only simulate.

`make gpu` runs this where FAISS is not installed.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers.vectors import families, keys_by_numpy
from vggsearch.defaults import PAIRS
from vggsearch.knn import gpu
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.brute_force import nearest
from vggsearch.knn.torch_scan import TorchScan
from vggsearch.knn.vectors import unit_rows
from vggsearch.system.gpus import cuda_gpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_gpus(), reason="needs a CUDA GPU")]

GPU = torch.device("cuda", 0)
DIM = 384
MB = 1 << 20
Vectors = NDArray[np.float16]


@pytest.fixture(autouse=True)
def all_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    torch.cuda.empty_cache()


def photos(rows: int) -> Vectors:
    """Vectors in families, some of them exact copies, one zero."""
    stored = families(rows, dim=DIM)
    stored[rows // 2 : rows // 2 + 100] = stored[3]
    stored[7] = 0
    return stored


def excluded(rows: int) -> NDArray[np.bool_]:
    mask = np.zeros(rows, bool)
    mask[5::101] = True
    return mask


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 4000])
def test_the_neighbours_are_those_that_numpy_finds(rows: int) -> None:
    stored = photos(rows) if rows > 200 else families(rows, dim=DIM)
    found = TorchScan(stored, GPU).neighbours(32, -1.0, excluded(rows))
    np.testing.assert_array_equal(found, keys_by_numpy(stored, 32, excluded(rows)))


@pytest.mark.parametrize("dim", [1, 7, 100, 384, 4096])
def test_vectors_may_have_any_dimensions(dim: int) -> None:
    stored = families(2000, dim=dim)
    found = TorchScan(stored, GPU).neighbours(10, -1.0, excluded(2000))
    np.testing.assert_array_equal(found, keys_by_numpy(stored, 10, excluded(2000)))


def test_vectors_of_any_length_are_compared_by_direction() -> None:
    stored = (photos(4000) * np.linspace(0.5, 3, 4000)[:, None]).astype(np.float16)
    found = TorchScan(stored, GPU).neighbours(32, -1.0, excluded(4000))
    np.testing.assert_array_equal(found, keys_by_numpy(stored, 32, excluded(4000)))


def test_the_nearest_to_queries_include_those_of_the_cpu() -> None:
    stored, queries = photos(20_000), unit_rows(families(500, seed=1, dim=DIM))
    unit = unit_rows(stored)
    _, similarities = nearest(queries, 26, lambda rows: unit[rows], len(unit))
    found = TorchScan(stored, GPU).nearest(queries, 26)
    exact = np.einsum("mnd,md->mn", unit[found], queries)
    np.testing.assert_allclose(-np.sort(-exact, axis=1)[:, :26], similarities, atol=1e-6)


@pytest.mark.parametrize("room", [20 * MB, 200 * MB])
def test_little_memory_changes_nothing(room: int) -> None:
    stored = photos(20_000)
    queries = unit_rows(stored[::100])
    expected = TorchScan(stored, GPU).nearest(queries, 10)
    scan = TorchScan(stored, GPU, room)
    assert (scan._resident is None) == (room == 20 * MB)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(GPU)
    before = torch.cuda.memory_allocated(GPU)
    np.testing.assert_array_equal(scan.nearest(queries, 10)[:, :10], expected[:, :10])
    assert torch.cuda.max_memory_allocated(GPU) - before < 1.5 * room


def test_blocks_are_halved_on_a_gpu_that_is_nearly_full() -> None:
    stored = photos(20_000)
    expected = TorchScan(stored, GPU).neighbours(10, 0.3, excluded(20_000))
    scan = TorchScan(stored, GPU)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(GPU) + 150 * MB) / total, GPU)
    before = scan._room
    np.testing.assert_array_equal(scan.neighbours(10, 0.3, excluded(20_000)), expected)
    assert scan._room < before


def test_pairs_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, without = photos(12_000), np.arange(0, 12_000, 99)
    asked: list[int] = []

    def scan(vectors: Vectors, products: float) -> TorchScan:
        asked.append(len(vectors))
        return TorchScan(vectors, GPU)

    monkeypatch.setattr("vggsearch.knn.all_pairs.scan_on_gpu", scan)
    found = all_pairs(stored, PAIRS.count, 0.5, without)
    assert asked == [12_000]
    monkeypatch.setattr("vggsearch.knn.all_pairs.scan_on_gpu", lambda *_: None)
    expected = all_pairs(stored, PAIRS.count, 0.5, without)
    ours, theirs = ((edges.first.astype(np.int64) << 32 | edges.second) for edges in (found, expected))
    assert len(np.setxor1d(ours, theirs)) <= len(theirs) // 1000
    _, one, other = np.intersect1d(ours, theirs, return_indices=True)
    np.testing.assert_allclose(found.similarity[one], expected.similarity[other], atol=2e-6)


def test_a_gpu_is_used_for_many_products_only() -> None:
    stored = families(100, dim=DIM)
    assert gpu.scan_on_gpu(stored, 1e6) is None
    assert isinstance(gpu.scan_on_gpu(stored, 1e10), TorchScan)
