"""The processes of GPUs start while a folder is being listed, and none of them is left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from tests.helpers.gpus import Load
from tests.helpers.waiting import wait_until
from tests.test_gpu_pool import children
from vggsearch.errors import OptionError
from vggsearch.indexing import head_start
from vggsearch.indexing.head_start import HeadStart
from vggsearch.indexing.update import update_index
from vggsearch.model.engine import Engine
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.store.store import Store

FEW = 80  # files that a CPU of two cores embeds


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(head_start, "cuda_gpus", lambda: ("a pretended GPU",))
    monkeypatch.setattr(head_start, "default_workers", lambda: 2)
    before = children()
    yield
    assert children() <= before


def engine() -> GpuEngine:
    return GpuEngine(Load(), ["a pretended GPU"], name="fake", precision="fp32", batch_size=5)


def test_processes_start_during_the_search_and_are_handed_over() -> None:
    one, before = engine(), children()
    with HeadStart(lambda _: one) as start:
        found = start.during(range(FEW + 2))
        for _ in range(FEW):
            next(found)
        assert children() == before
        assert list(found) == [FEW, FEW + 1]
        wait_until(lambda: children() > before)
        with one.pool() as pool:
            assert pool.processes == len(children() - before)
        assert children() == before
        with one.pool() as another:
            assert another is not pool


@pytest.mark.parametrize("count", [0, FEW])
def test_few_files_start_nothing(count: int) -> None:
    asked: list[int] = []

    def load(photos: int) -> Engine:
        asked.append(photos)
        return engine()

    with HeadStart(load) as start:
        assert list(start.during(range(count))) == list(range(count))
    assert asked == []


def test_what_was_started_ends_if_the_search_fails() -> None:
    def search() -> Iterator[int]:
        yield from range(FEW + 1)
        wait_until(lambda: children() > before)
        raise OSError("the disk is gone")

    before = children()
    with pytest.raises(OSError, match="the disk is gone"), HeadStart(lambda _: engine()) as start:
        list(start.during(search()))
    assert children() == before


def test_an_error_is_left_to_whoever_needs_the_network() -> None:
    def load(_: int) -> Engine:
        raise OptionError("no such GPU")

    with HeadStart(load) as start:
        assert len(list(start.during(range(FEW + 1)))) == FEW + 1


def test_an_engine_on_the_cpu_is_not_prepared() -> None:
    class OnCpu(FakeEngine):
        def prepare(self, levels: int = 0) -> None:
            raise AssertionError("it would be compiled twice where local features are stored")

    with HeadStart(lambda _: OnCpu()) as start:
        assert len(list(start.during(range(FEW + 1)))) == FEW + 1


def test_only_a_new_index_gets_a_head_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_start, "default_workers", lambda: 0)
    asked: list[int] = []
    one = engine()

    def load(photos: int) -> Engine:
        asked.append(photos)
        return one

    for seed in range(2):
        save_photo(tmp_path / "photos" / f"{seed}.jpg", seed=seed)
    store = Store.create(tmp_path / "index", FAKE_SPEC)
    update_index(store, tmp_path / "photos", load)
    assert sorted(asked) == [1, 2]  # the first file found, and both once they are to be embedded
    save_photo(tmp_path / "photos" / "new.jpg", seed=9)
    update_index(store, tmp_path / "photos", load)
    assert asked[2:] == [1]
