import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from vggsearch.cli import cli
from vggsearch.errors import PhotosError
from vggsearch.evaluation import throughput
from vggsearch.evaluation.throughput import (
    BenchReport,
    EngineReport,
    compare,
    counted,
    make_pictures,
    measure,
    multiply_adds,
    sample,
)
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.walk import PhotoFile, Skipped, walk
from vggsearch.progress import Monitor, Progress
from vggsearch.render.bench import bench as bench_text
from vggsearch.render.bench import engines as engines_text

SPEEDS = ("DECODE_S", "FORWARD_S", "END_TO_END_S", "LIMIT_S", "COMPARE_S")


@pytest.fixture
def in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SPEEDS:
        monkeypatch.setattr(throughput, name, 0.3)


class Clock:
    """Stands in for the module `time`: it goes on where a test says so, and a little each time it is read."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def batches(
    clock: Clock, count: int, size: int, pause_s: float, skip_every: int = 0
) -> Generator[object, None, None]:
    for number in range(count):
        if number % size == 0:
            clock.now += pause_s
        is_bad = skip_every and number % skip_every == 0
        yield Skipped(str(number), "bad", "broken") if is_bad else number


@pytest.mark.parametrize("size", [1, 8])
def test_a_rate_is_not_flattered_by_photos_that_come_in_batches(size: int, clock: Clock) -> None:
    assert counted(batches(clock, 10_000, size, 0.05), 0.3, size) == pytest.approx(size / 0.05, rel=1e-3)


def test_what_is_skipped_is_no_photo(clock: Clock) -> None:
    every_second = counted(batches(clock, 10_000, 4, 0.02, skip_every=2), 0.3, 4)
    assert every_second == pytest.approx(2 / 0.02, rel=1e-3)


def test_the_work_of_a_photo_is_that_of_the_layers_up_to_the_cut() -> None:
    at_224 = 15_346_630_656  # VGG16's thirteen convolutions, as the usual counting tools have them
    assert multiply_adds(FAKE_SPEC) == at_224 * 192**2 // 224**2
    at_pool1 = EmbeddingOptions(layer="pool1", size=32).resolve()[0]
    assert multiply_adds(at_pool1) == 32 * 32 * 9 * (3 * 64 + 64 * 64)


class SlowEngine(FakeEngine):
    """Takes 0.05 s a batch, by a clock that otherwise hardly moves."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(batch_size=4)
        self.clock = clock

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.clock.now += 0.05
        return super().embed(squares)


@pytest.mark.usefixtures("in_a_moment")
def test_each_stage_is_measured_and_told(photos: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "DECODE_S", 50e-6)  # of a clock that only moves by being read
    told: list[Progress] = []
    report = measure(FAKE_SPEC, SlowEngine(clock), photos, workers=1, monitor=Monitor(told.append))
    assert (report.device, report.engine, report.precision) == ("nothing", "fake", "fp32")
    at_most = 4 / 0.05
    assert at_most / 3 < report.forward_per_s <= at_most
    assert at_most / 5 < report.end_to_end_per_s <= at_most
    assert report.decode_per_s > 0
    assert report.limit_per_s > 0
    assert [(each.done, each.note) for each in told] == [*enumerate(throughput.STAGES), (4, "")]


@pytest.mark.usefixtures("in_a_moment")
def test_without_a_folder_pictures_are_made_and_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(throughput, "MADE_PHOTOS", 2)
    assert measure(FAKE_SPEC, FakeEngine(), workers=1).decode_per_s > 0
    assert list(tmp_path.iterdir()) == []


def test_made_pictures_differ_and_compress_as_photos_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "MADE_PHOTOS", 3)
    make_pictures(tmp_path)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    pixels = throughput.MADE_SIZE[0] * throughput.MADE_SIZE[1]
    assert len(set(sizes)) == 3
    assert all(0.5 < 8 * size / pixels < 4 for size in sizes), "bits a pixel"


def test_a_sample_is_spread_over_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "MOST_PHOTOS", 4)
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    with sample(tmp_path) as (root, files):
        assert root == tmp_path
        assert [file.path for file in files] == ["0.jpg", "3.jpg", "6.jpg", "9.jpg"]


@pytest.mark.parametrize(("name", "message"), [(None, "is empty"), ("notes.txt", "no usable photo among 1")])
def test_a_folder_without_photos_is_said(tmp_path: Path, name: str | None, message: str) -> None:
    if name:
        (tmp_path / name).write_text("hello")
    with pytest.raises(PhotosError, match=message):
        measure(FAKE_SPEC, FakeEngine(), tmp_path)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("in_a_moment")
def test_every_engine_here_is_compared_with_fp32(sample_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "COMPARED_PHOTOS", 8)
    spec, weights = EmbeddingOptions().resolve()
    reports = compare(spec, weights, sample_photos)
    assert (reports[0].engine, reports[0].precision, reports[0].cosine) == ("torch", "fp32", 1.0)
    found = {(report.engine, report.precision): report for report in reports if report.device.startswith("cpu")}
    assert {("torch", "bf16"), ("openvino", "fp32"), ("openvino", "int8")} <= set(found)
    assert found["openvino", "fp32"].worst_cosine == 1.0
    assert 0.998 <= found["openvino", "int8"].cosine < 1.0
    assert all(report.worst_cosine <= report.cosine for report in reports)


@pytest.mark.network
@pytest.mark.usefixtures("in_a_moment")
def test_the_command_prints_the_documented_keys_and_no_progress_without_a_terminal(photos: Path) -> None:
    done = CliRunner().invoke(cli, ["bench", str(photos), "--format", "json", "--engine", "openvino"])
    assert done.exit_code == 0, done.output
    keys = ["device", "engine", "precision", "decode_per_s", "forward_per_s", "end_to_end_per_s", "limit_per_s"]
    assert list(json.loads(done.stdout)) == keys
    assert done.stderr == ""


def test_the_table_says_what_share_was_reached_and_how_long_many_photos_take() -> None:
    text = bench_text(BenchReport("cpu (2 threads)", "openvino", "int8", 300.0, 40.0, 36.0, 41.0), "table")
    assert "98% of the limit" in text
    assert "90% of the network alone" in text
    assert "100,000 photos take about 0:46:18" in text


def test_the_comparison_comes_as_json_too() -> None:
    row = EngineReport("torch", "cpu", "fp32", 10.0, 1.0, 1.0)
    assert json.loads(engines_text([row], "json")) == [asdict(row)]
    assert engines_text([row], "table").splitlines()[-1].split() == [
        "torch",
        "cpu",
        "fp32",
        "10.0",
        "1.00000",
        "1.00000",
    ]


def test_the_last_file_of_a_folder_that_shrinks_is_no_obstacle(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.jpg", 0)
    save_photo(tmp_path / "b.jpg", 1)
    files = [file for file in walk(tmp_path) if isinstance(file, PhotoFile)]
    (tmp_path / "a.jpg").unlink()
    seen = throughput.squares(files, tmp_path, FAKE_SPEC, 3)
    assert seen.shape == (3, FAKE_SPEC.size, FAKE_SPEC.size, 3)
    assert (seen[0] == seen[2]).all()
    assert seen.dtype == np.uint8
