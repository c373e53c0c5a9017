"""FAISS on a GPU that is simulated on the CPU, and the fallback to the CPU. Real GPUs: see test_gpu.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.vectors import families, saved, saved_with_dead_slots
from vggsearch.defaults import BUILD
from vggsearch.knn import gpu
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.vector_index import Selection, Tuning, VectorIndex
from vggsearch.knn.vectors import unit_rows

ROWS = 2000
OUT_OF_MEMORY = "Error in void f() at x.cpp:1: Error: 'err == ok' failed: alloc fail, out of memory\nOutstanding:\n"


class Gpu:
    """A FAISS index as on a GPU: it ignores filters and has limits."""

    def __init__(self, core: Any) -> None:
        self.core = faiss().clone_index(core)
        self.searches = 0
        self.fails = False

    def search(self, vectors: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        assert count <= 2048
        if self.fails:
            raise RuntimeError(OUT_OF_MEMORY)
        self.searches += len(vectors)
        found: tuple[NDArray[np.float32], NDArray[np.int64]] = self.core.search(vectors, count)
        return found


class Machine:
    """GPUs with memory for a whole index each, for a shard of it each, or for none."""

    def __init__(self, count: int, room: str) -> None:
        self.count, self.room = count, room
        self.held: list[Gpu] = []

    def copied(self, core: Any, options: Any) -> Gpu:
        assert options.useFloat16
        if self.room != "whole" and not (self.room == "part" and options.shard):
            raise RuntimeError(OUT_OF_MEMORY)
        self.held.append(Gpu(core))
        return self.held[-1]

    def set_parameter(self, gpu: Gpu, name: str, value: int) -> None:
        assert (name, 0 < value <= 2048) == ("nprobe", True)
        gpu.core.nprobe = value

    def module(self) -> Any:
        real = faiss()
        names = {name: getattr(real, name) for name in dir(real) if name.startswith("Index")}
        return SimpleNamespace(
            **names,
            StandardGpuResources=object,
            get_num_gpus=lambda: self.count,
            GpuMultipleClonerOptions=lambda: SimpleNamespace(useFloat16=False, shard=None),
            GpuParameterSpace=lambda: SimpleNamespace(set_index_parameter=self.set_parameter),
            index_cpu_to_all_gpus=self.copied,
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], Machine]:
    def made(count: int, room: str) -> Machine:
        found = Machine(count, room)
        monkeypatch.setattr(gpu, "faiss", found.module)
        monkeypatch.setattr("vggsearch.knn.vector_index.BUILD", replace(BUILD, gpu_queries=20, few_rows=10))
        return found

    return made


@pytest.fixture
def stored() -> NDArray[np.float16]:
    return families(ROWS)


def opened(folder: Path, stored: NDArray[np.float16], recipe: str, effort: int = 16) -> VectorIndex:
    index = saved(folder / "x", stored, recipe, Tuning(effort, 4))
    index.use_gpus()
    return index


@pytest.mark.parametrize("recipe", ["flat", "ivf-flat", "ivf-sq8"])
@pytest.mark.parametrize(("count", "room"), [(1, "whole"), (2, "whole"), (2, "part")])
def test_gpus_find_what_the_cpu_finds_with_exact_similarities(
    machine: Callable[[int, str], Machine],
    stored: NDArray[np.float16],
    tmp_path: Path,
    recipe: str,
    count: int,
    room: str,
) -> None:
    there = machine(count, room)
    index = opened(tmp_path, stored, recipe)
    queries = unit_rows(stored[:30] + 0.1 * np.random.default_rng(1).standard_normal((30, stored.shape[1])))
    before = index.nearest(queries[:19], 10)
    assert there.held == []  # too few queries to be worth a copy
    found = index.nearest(queries, 10)
    assert [gpu.searches for gpu in there.held] == [30]
    np.testing.assert_array_equal(found[0][:19], before[0])
    np.testing.assert_allclose(found[1], np.take_along_axis(queries @ unit_rows(stored).T, found[0], 1), atol=1e-5)
    kept = Path(index.segments[0].vectors.filename).parent / "index.faiss"  # type: ignore[attr-defined]
    assert faiss().read_index(str(kept)).ntotal == ROWS  # the file on disk is the CPU index


def test_excluded_rows_are_dropped_and_no_result_is_short(
    machine: Callable[[int, str], Machine], stored: NDArray[np.float16], tmp_path: Path
) -> None:
    there = machine(1, "whole")
    stored[:1500] = stored[0]  # so many copies that the GPUs return nothing else
    index = opened(tmp_path, stored, "ivf-sq8")
    mask = np.arange(ROWS) >= 900
    mask[::7] = True
    queries = unit_rows(np.repeat(stored[:1], 25, axis=0))
    rows, similarities = index.nearest(queries, 40, Selection(mask))
    assert there.held[0].searches == 25
    assert mask[rows].all()
    assert all(len(set(line)) == 40 for line in rows.tolist())
    np.testing.assert_allclose(similarities, 1.0, atol=1e-5)
    index.nearest(queries, 10, Selection(np.arange(ROWS) % 3 == 0))
    assert there.held[0].searches == 25  # a filter that keeps less than half is searched on the CPU


def test_dead_slots_are_not_returned(
    machine: Callable[[int, str], Machine], stored: NDArray[np.float16], tmp_path: Path
) -> None:
    there = machine(1, "whole")
    kept = np.flatnonzero(np.arange(ROWS) % 4 > 0)
    index = saved_with_dead_slots(tmp_path / "index", stored, kept)
    index.use_gpus()
    rows, _ = index.nearest(unit_rows(stored[kept[:50]]), 1)
    assert there.held[0].searches == 50
    np.testing.assert_array_equal(stored[kept[rows[:, 0]]], stored[kept[:50]])


@pytest.mark.parametrize("recipe", ["ivf-pq", "ivf-rabitq", "hnsw"])
def test_kinds_of_index_that_gpus_do_not_support_stay_on_the_cpu(
    machine: Callable[[int, str], Machine],
    stored: NDArray[np.float16],
    tmp_path: Path,
    recipe: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = machine(1, "whole")
    assert opened(tmp_path, stored, recipe).nearest(unit_rows(stored[:40]), 5)[0].shape == (40, 5)
    assert (there.held, caplog.messages) == ([], [])


def test_more_candidates_than_gpus_support_come_from_the_cpu(
    machine: Callable[[int, str], Machine], stored: NDArray[np.float16], tmp_path: Path
) -> None:
    there = machine(1, "whole")
    index = opened(tmp_path, stored, "ivf-flat")
    queries = unit_rows(stored[:25])
    assert index.nearest(queries, 300)[0].shape == (25, 300)  # 2,416 with the extra candidates
    assert there.held[0].searches == 0
    index.nearest(queries, 100)
    assert there.held[0].searches == 25


@pytest.mark.parametrize("when", ["copying", "searching"])
def test_a_gpu_out_of_memory_falls_back_to_the_cpu_with_one_warning(
    machine: Callable[[int, str], Machine],
    stored: NDArray[np.float16],
    tmp_path: Path,
    when: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = machine(2, "whole" if when == "searching" else "none")
    index = opened(tmp_path, stored, "flat")
    queries = unit_rows(stored[:25])
    expected = saved(tmp_path / "y", stored, "flat").nearest(queries, 10)[0]
    if when == "searching":
        index.nearest(queries, 10)
        there.held[0].fails = True
    for _ in range(3):
        np.testing.assert_array_equal(index.nearest(queries, 10)[0], expected)
    assert caplog.messages == ["FAISS searches on the CPU because the GPU failed: alloc fail, out of memory"]


def test_without_gpus_nothing_is_copied(
    machine: Callable[[int, str], Machine], stored: NDArray[np.float16], tmp_path: Path
) -> None:
    there = machine(0, "whole")
    assert opened(tmp_path, stored, "flat").nearest(unit_rows(stored[:40]), 5)[0].shape == (40, 5)
    assert there.held == []
