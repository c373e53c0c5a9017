"""Files through a pool of GPU processes, with pretended GPUs that decode what is wide, and the CPU for the rest."""

import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from tests.helpers.gpus import LETHAL, Load, die
from tests.test_gpu_pool import children
from vggsearch.defaults import EXTRACT
from vggsearch.errors import EngineError
from vggsearch.indexing.extract import extract
from vggsearch.indexing.feed import Feed
from vggsearch.indexing.update import update_index
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.model.gpu_pool import GpuPool
from vggsearch.photos.sources import walk_photos
from vggsearch.photos.walk import PhotoFile, Skipped, walk
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store

WIDE, TALL = (320, 240), (240, 320)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before, threads = children(), threading.active_count()
    yield
    assert children() <= before
    assert threading.active_count() == threads


def files_in(root: Path) -> list[PhotoFile]:
    return [item for item in walk(root) if isinstance(item, PhotoFile)]


def gpus(load: Load, count: int = 1) -> GpuEngine:
    return GpuEngine(load, ["a pretended GPU"] * count, name="fake", precision="fp32", batch_size=5)


def embedded_by(engine: GpuEngine | FakeEngine, root: Path, workers: int | None = None) -> list[Embedded | Skipped]:
    return list(extract(files_in(root), root, FAKE_SPEC, lambda: engine, workers=workers))


def assert_same(found: list[Embedded | Skipped], expected: list[Embedded | Skipped]) -> None:
    """All but the last value of an embedding is the same, which says who made it."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Skipped) or isinstance(other, Skipped):
            assert one == other
            continue
        facts = [
            (e.file, e.sha256, e.width, e.height, e.format, e.capture, e.is_blank, e.perceptual_hash)
            for e in (one, other)
        ]
        assert facts[0] == facts[1]
        np.testing.assert_array_equal(one.embedding[:-1], other.embedding[:-1])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Photos for the GPU, and among them others, of which some cannot be used."""
    for number in range(60):
        save_photo(tmp_path / f"{number:03}.jpg", number, TALL if number % 7 == 3 else WIDE)
    save_photo(tmp_path / "010.png", 100)
    (tmp_path / "020.jpg").write_bytes((tmp_path / "021.jpg").read_bytes()[:500])
    (tmp_path / "030.jpg").write_bytes(b"no picture")
    (tmp_path / "040.txt").write_bytes(b"notes")
    (tmp_path / "050.jpg").write_bytes((tmp_path / "051.jpg").read_bytes())
    return tmp_path


@pytest.mark.usefixtures("gpus_only")
def test_the_gpus_embed_what_they_can_decode(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    diary = tmp_path_factory.mktemp("diary")
    items = embedded_by(gpus(Load(decodes=True, diary=diary)), mixed)
    assert_same(items, embedded_by(FakeEngine(), mixed))
    assert (diary / "GPU 0 decoded").exists()


@pytest.mark.decoders
@pytest.mark.parametrize("decodes", [True, False])
def test_every_file_has_its_own_result_in_its_place(mixed: Path, decodes: bool) -> None:
    expected = embedded_by(FakeEngine(), mixed)
    assert_same(embedded_by(gpus(Load(decodes=decodes), 2), mixed, workers=2), expected)


def test_what_is_in_no_folder_is_decoded_by_the_cpu(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tars, diary = tmp_path_factory.mktemp("tars"), tmp_path_factory.mktemp("diary")
    with tarfile.open(tars / "a.tar", "w") as tar:
        for path in sorted(mixed.glob("*.jpg")):
            tar.add(path, path.name)
    root = Path(f"tar:{tars}")
    files = [item for item in walk_photos(root) if isinstance(item, PhotoFile)]
    on_gpus, on_cpu = (
        list(extract(files, root, FAKE_SPEC, lambda: engine, workers=2))  # noqa: B023
        for engine in (gpus(Load(decodes=True, diary=diary)), FakeEngine())
    )
    assert_same(on_gpus, on_cpu)
    assert not (diary / "GPU 0 decoded").exists()


@pytest.mark.slow
def test_the_cpu_decodes_while_the_gpus_start(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    diary = tmp_path_factory.mktemp("diary")
    load = Load(seconds_to_load={0: 3.0}, diary=diary, decodes=True)
    assert_same(embedded_by(gpus(load), mixed), embedded_by(FakeEngine(), mixed))
    assert not (diary / "GPU 0 decoded").exists(), "no file was left for it"


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(5, 1, [5, 5, 2]), (5, 1000, [3, 3, 3, 3]), (1, 1, [1] * 12)]
)
def test_a_batch_has_as_many_files_as_the_network_takes_and_memory_allows(
    count: int, size: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.indexing.feed.EXTRACT", replace(EXTRACT, batch_bytes=2500))
    files = [PhotoFile(f"{number}.jpg", size, 0) for number in range(12)]
    with GpuPool(Load(), [0]) as pool:
        feed = Feed(pool, lambda _: Future(), Path(), FAKE_SPEC, EngineInfo("fake", "fp32"), count)
        remaining = iter(files)
        batches = list(iter(lambda: feed._next_batch(remaining), []))
        feed.close()
    assert [len(batch) for batch in batches] == lengths
    assert [file for batch in batches for file in batch] == files


def test_copies_take_the_embedding_of_the_first(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store.create(tmp_path_factory.mktemp("index") / "x", FAKE_SPEC)
    report = update_index(store, mixed, lambda _: gpus(Load(decodes=True), 2))
    assert (report.indexed, report.reused, len(report.skipped)) == (58, 1, 3)
    (mixed / "000.jpg").rename(mixed / "zero.jpg")
    (mixed / "sub").mkdir()
    save_photo(mixed / "sub" / "new.jpg", 200)
    report = update_index(store, mixed, lambda _: gpus(Load(decodes=True)))
    assert (report.indexed, report.reused, report.gone) == (1, 1, 1)


@pytest.fixture
def gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the CPU from taking files from the GPUs."""
    monkeypatch.setattr("vggsearch.indexing.feed.CPU_BATCHES", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("gpus_only")
def test_a_file_that_kills_processes_is_decoded_by_the_cpu(mixed: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (2, 17, 33, 34, 45):
        save_photo(mixed / f"{number:03}.jpg", number, comment=LETHAL)
    expected = embedded_by(FakeEngine(), mixed)
    assert_same(embedded_by(gpus(Load(decodes=True)), mixed, workers=1), expected)
    assert "GPU 0 was restarted (its process was ended by signal 9, Killed)" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("gpus_only")
def test_gpus_that_decode_nothing_are_not_restarted_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.model.gpu_pool.RESTARTS", 1)
    for number in range(120):
        save_photo(tmp_path / f"{number:03}.jpg", number, comment=LETHAL)
    with pytest.raises(EngineError, match="No GPU is left to run the network: GPU 0"):
        embedded_by(gpus(Load(decodes=True)), tmp_path, workers=1)


@pytest.mark.usefixtures("gpus_only")
def test_a_file_that_changes_is_reported_by_the_cpu(mixed: Path) -> None:
    files = files_in(mixed)
    save_photo(mixed / "005.jpg", 77, (400, 300))
    items = list(extract(files, mixed, FAKE_SPEC, lambda: gpus(Load(decodes=True))))
    [changed] = [item for item in items if isinstance(item, Skipped) and item.kind == "unreadable"]
    assert (changed.path, changed.reason) == ("005.jpg", "changed while it was read; the next update indexes it")


def test_when_no_gpu_is_left_the_error_names_the_reason(mixed: Path) -> None:
    with pytest.raises(EngineError, match=r"GPU 0 \(OptionError: there is no GPU 0\)"):
        embedded_by(gpus(Load(does_not_load=(0,), decodes=True)), mixed)


def test_gpus_that_fail_amid_the_work_are_heard(mixed: Path) -> None:
    with pytest.raises(EngineError, match="its process was ended by signal 9"):
        embedded_by(gpus(Load(falls_ill={0: (1, die)}, decodes=False)), mixed)


@pytest.mark.parametrize("after", [1, 30])
def test_leaving_early_ends_processes_and_threads(mixed: Path, after: int) -> None:
    items = extract(files_in(mixed), mixed, FAKE_SPEC, lambda: gpus(Load(decodes=True), 2))
    for _ in range(after):
        next(items)
    items.close()
