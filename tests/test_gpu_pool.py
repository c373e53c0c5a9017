"""Several GPUs as one engine: real processes, each with a pretended GPU."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from tests.helpers.gpus import POISON, Ill, Load, PretendedGpu, chatter, die, raise_an_error
from tests.helpers.waiting import LIMIT_S, wait_until
from vggsearch.errors import EngineError
from vggsearch.indexing.extract import extract
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.model.gpu_pool import JOBS_PER_PROCESS, _Job, _Jobs
from vggsearch.model.gpu_worker import Files
from vggsearch.photos.walk import PhotoFile, walk
from vggsearch.store.records import Embedded

ROOT = Path(__file__).parent.parent
SIDE = 16


def engine_of(load: Load, gpus: int) -> GpuEngine:
    return GpuEngine(load, ["a pretended GPU"] * gpus, name="fake", precision="fp32", batch_size=5)


def batch(seed: int, count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 250, (count, SIDE, SIDE, 3), np.uint8)


def batches(count: int) -> list[NDArray[np.uint8]]:
    """Batches of 0 to 4 pictures."""
    return [batch(seed, count=seed * 2 % 5) for seed in range(1, count + 1)]


def assert_right(results: list[NDArray[np.float32]], asked: list[NDArray[np.uint8]]) -> None:
    """Each batch has its own embeddings, in its place, and nothing else is there."""
    single = FakeEngine()
    assert len(results) == len(asked)
    for rows, squares in zip(results, asked, strict=True):
        assert rows.dtype == np.float32
        assert len(rows) == len(squares)
        if len(squares):
            assert (rows[:, :-1] == single.embed(squares)[:, :-1]).all()


def gpus_of(results: list[NDArray[np.float32]]) -> list[int]:
    return [int(rows[0, -1]) for rows in results if len(rows)]


def children() -> set[int]:
    """The processes this one has started and that are still there."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return {int(pid) for pid, parent, command in rows if int(parent) == os.getpid() and command != "ps"}


class Counted:
    """Batches, and how many were asked for so far."""

    def __init__(self, items: list[NDArray[np.uint8]]) -> None:
        self.items = items
        self.pulled = 0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for item in self.items:
            self.pulled += 1
            yield item


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


@pytest.mark.slow
def test_batches_come_out_in_the_order_they_went_in_whatever_the_speed_of_a_gpu() -> None:
    asked = batches(45)
    load = Load(seconds_a_batch={0: 0.2, 1: 0.05}, falls_ill={1: (2, chatter)})
    results = list(engine_of(load, 2).embed_stream(asked))
    assert_right(results, asked)
    assert set(gpus_of(results)) == {0, 1}
    assert gpus_of(results).count(1) > gpus_of(results).count(0)


def test_a_query_starts_no_process_nor_does_a_stream_that_is_short() -> None:
    before, engine, asked = children(), engine_of(Load(), 3), [batch(1), batch(2)]
    assert gpus_of([engine.embed(batch(1))]) == [0]
    results = []
    for rows in engine.embed_stream(asked):
        results.append(rows)
        assert children() <= before
    assert_right(results, asked)
    assert gpus_of(results) == [0, 0]


def test_it_is_an_engine_like_its_gpus() -> None:
    engine = engine_of(Load(), 2)
    assert (engine.name, engine.precision, engine.batch_size) == ("fake", "fp32", 5)
    assert str(engine) == "fake, 2 x a pretended GPU, fp32"
    assert engine.multiply_adds_per_s(1.0) == 2 * PretendedGpu(0).multiply_adds_per_s(1.0)


def test_photos_go_through_it_as_through_one_gpu(tmp_path: Path) -> None:
    for number in range(20):
        save_photo(tmp_path / f"{number:02}.jpg", number, (40, 30))
    (tmp_path / "07.jpg").write_bytes(b"no picture")
    files = [item for item in walk(tmp_path) if isinstance(item, PhotoFile)]
    single = [item for item in extract(files, tmp_path, FAKE_SPEC, FakeEngine) if isinstance(item, Embedded)]
    many = [
        item
        for item in extract(files, tmp_path, FAKE_SPEC, lambda: engine_of(Load(), 2))
        if isinstance(item, Embedded)
    ]
    assert [item.file for item in many] == [item.file for item in single]
    for one, other in zip(many, single, strict=True):
        assert (one.embedding[:-1] == other.embedding[:-1]).all()


@pytest.mark.slow
def test_batches_larger_than_any_pipe_holds_pass_in_both_directions() -> None:
    asked = [batch(seed, count=2000) for seed in range(8)]  # 1.5 MB there, 8 MB back
    assert_right(list(engine_of(Load(), 2).embed_stream(asked)), asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("illness", "reason"),
    [(raise_an_error, "RuntimeError: out of memory"), (die, "its process was ended by signal 9, Killed")],
)
def test_the_others_do_the_work_of_a_gpu_that_fails(
    illness: Ill, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = batches(40)
    load = Load(falls_ill={1: (3, illness)}, seconds_to_load={0: 1.0}, seconds_a_batch={0: 0.05})
    results = list(engine_of(load, 2).embed_stream(asked))
    assert_right(results, asked)
    assert set(gpus_of(results)) == {0, 1}
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"GPU 1 failed ({reason}); the other processes take over its work."
    ]


@pytest.mark.slow
def test_a_gpu_that_does_not_load_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    asked = batches(10)
    load = Load(does_not_load=(0,), seconds_to_load={1: 2.0})
    assert_right(list(engine_of(load, 2).embed_stream(asked)), asked)
    assert "GPU 0 failed (OptionError: there is no GPU 0); the other processes take over its work." in caplog.text


def test_work_starts_on_the_first_gpu_that_is_up(tmp_path: Path) -> None:
    asked = batches(10)
    load = Load(seconds_to_load={0: 60.0}, diary=tmp_path)
    assert_right(list(engine_of(load, 2).embed_stream(asked)), asked)
    assert not (tmp_path / "GPU 0 is up").exists()


def test_when_the_last_gpu_fails_each_is_named_with_its_reason() -> None:
    load = Load(falls_ill={0: (2, raise_an_error), 1: (4, die)})
    engine = engine_of(load, 2)
    with pytest.raises(EngineError) as raised:
        list(engine.embed_stream(batches(40)))
    assert "GPU 0 (RuntimeError: out of memory)" in str(raised.value)
    assert "GPU 1 (its process was ended by signal 9, Killed)" in str(raised.value)


def test_a_batch_that_no_gpu_survives_is_tried_once_on_each() -> None:
    asked = [*batches(6), np.full((2, SIDE, SIDE, 3), POISON, np.uint8), *batches(6)]
    with pytest.raises(EngineError) as raised:
        list(engine_of(Load(), 2).embed_stream(asked))
    assert str(raised.value).count("ValueError: poison") == 2


def test_the_look_ahead_stays_bounded_behind_a_slow_gpu_and_among_empty_batches() -> None:
    counted = Counted([batch(seed, count=seed % 3) for seed in range(45)])
    engine = engine_of(Load(seconds_a_batch={0: 0.1}), 2)
    stream = engine.embed_stream(counted)
    assert counted.pulled == 0
    ahead = [counted.pulled - number for number, _ in enumerate(stream)]
    assert len(ahead) == 45
    assert max(ahead) <= 2 * JOBS_PER_PROCESS


def test_a_stream_that_is_left_early_ends_its_processes() -> None:
    before, asked = children(), batches(40)
    left = engine_of(Load(), 2).embed_stream(asked)
    assert isinstance(left, Generator)
    with closing(left):
        assert_right([next(left)], asked[:1])
        assert len(children() - before) == 2
    assert children() <= before


def test_an_error_in_the_source_is_heard_and_ends_processes_that_load_or_work(tmp_path: Path) -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from (batch(seed) for seed in range(4))
        wait_until((tmp_path / "GPU 1 began").exists)
        raise OSError("disk gone")

    load = Load(seconds_to_load={0: 60.0}, seconds_a_batch={1: 60.0}, diary=tmp_path)
    with pytest.raises(OSError, match="disk gone"):
        list(engine_of(load, 2).embed_stream(broken()))
    assert {path.name for path in tmp_path.iterdir()} == {"GPU 1 is up", "GPU 1 began"}


def files(number: int, size: int) -> _Job:
    return _Job(number, Files("photos", SIDE, [PhotoFile(f"{number}.jpg", size, 0)] * 2))


def test_the_cpu_takes_files_until_a_gpu_decodes_and_then_only_large_ones() -> None:
    jobs, taken = _Jobs(), list[_Job | None]()
    first, small, large = files(0, 10), files(1, 10), files(2, 1000)
    jobs.put(first)
    assert jobs.take(files=False, wait=False) is None
    assert jobs.take_files(min_bytes=100) is first
    jobs.put(small)
    assert jobs.take(files=True, wait=False) is small
    jobs.put(small)
    cpu = Thread(target=lambda: taken.append(jobs.take_files(min_bytes=100)))
    cpu.start()
    cpu.join(0.2)
    assert cpu.is_alive(), "small files are left to the GPU"
    jobs.put(large)
    assert jobs.take(files=True, wait=False) is small
    jobs.put(files(3, 10))
    cpu.join(LIMIT_S)
    assert taken == [large]
    assert [job.number for job in jobs.close()] == [3]
    assert jobs.take_files(min_bytes=1) is None


SCRIPT = """
import signal, sys, time
from itertools import count
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
from tests.test_gpu_pool import batch, engine_of
from tests.helpers.gpus import Load
try:
    for _ in engine_of(Load(seconds_a_batch={0: 0.01, 1: 0.01}), 2).embed_stream(map(batch, count())):
        print("embedded", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_script_without_a_guard_may_be_interrupted_or_killed(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "embedded\n"
        os.killpg(process.pid, number)  # as a terminal does: every process of the session
        # Its output ends only when all who inherited it are gone.
        said, complained = process.communicate(timeout=LIMIT_S)
    if number == signal.SIGINT:
        assert said.endswith("interrupted\n")
        assert process.returncode == 0
    assert complained == ""
