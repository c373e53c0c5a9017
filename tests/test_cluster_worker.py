"""A worker of a cluster without a cluster, and what it returns."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vggsearch
from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from vggsearch.cluster.extract import _Chunk, _Plan, _Pool, chunks_at_once
from vggsearch.cluster.rows import Rows
from vggsearch.cluster.worker import Refusal, Worker
from vggsearch.defaults import CLUSTER, EXTRACT
from vggsearch.errors import WeightsError
from vggsearch.indexing.extract import extract
from vggsearch.model.engine import Engine
from vggsearch.photos.walk import PhotoFile, Skipped, walk
from vggsearch.store.records import Embedded


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for number in range(20):
        save_photo(tmp_path / f"{number:02}.jpg", number, (40, 30))
    (tmp_path / "05.jpg").write_bytes(b"no picture")
    (tmp_path / "zz.txt").write_bytes(b"notes")
    return tmp_path


def files_in(root: Path) -> list[PhotoFile]:
    return [item for item in walk(root) if isinstance(item, PhotoFile)]


def embedded_here(root: Path) -> list[Embedded | Skipped]:
    return list(extract(files_in(root), root, FAKE_SPEC, FakeEngine, workers=1))


def assert_same(found: Iterator[Embedded | Skipped], expected: list[Embedded | Skipped]) -> None:
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Skipped) or isinstance(other, Skipped):
            assert one == other
            continue
        facts = [
            (e.file, e.sha256, e.width, e.height, e.format, e.capture, e.is_blank, e.perceptual_hash, e.made_by)
            for e in (one, other)
        ]
        assert facts[0] == facts[1]
        assert np.array_equal(one.embedding, other.embedding.astype(np.float16))


def test_columns_hold_all_that_is_stored(mixed: Path) -> None:
    items = embedded_here(mixed)
    assert_same(Rows.of(items, FAKE_SPEC.dim).items(files_in(mixed)), items)


def test_a_chunk_without_a_photo_has_only_skipped_files(mixed: Path) -> None:
    files = [file for file in files_in(mixed) if file.path in ("05.jpg", "zz.txt")]
    items = list(extract(files, mixed, FAKE_SPEC, FakeEngine, workers=1))
    assert list(Rows.of(items, FAKE_SPEC.dim).items(files)) == items


def worker(root: Path, sample: list[PhotoFile]) -> Worker:
    return Worker(root, FAKE_SPEC, FakeEngine, 1, sample)


def test_chunks_at_once_go_through_one_pipeline_and_keep_their_files_apart(mixed: Path) -> None:
    files = files_in(mixed)
    embeds = worker(mixed, files)
    assert embeds.ready(vggsearch.__version__) is None
    chunks = [files[:7], files[7:8], files[8:]]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(embeds.embed, chunks))
    rows = [each for each in found if isinstance(each, Rows)]
    items = (item for chunk, each in zip(chunks, rows, strict=True) for item in each.items(chunk))
    assert_same(items, embedded_here(mixed))


def test_another_version_is_refused(mixed: Path) -> None:
    refusal = worker(mixed, files_in(mixed)).ready("0.0.0")
    assert isinstance(refusal, Refusal)
    assert "not 0.0.0" in refusal.message


def test_a_folder_that_is_not_mounted_is_refused(mixed: Path) -> None:
    refusal = worker(mixed / "none", files_in(mixed)).ready(vggsearch.__version__)
    assert isinstance(refusal, Refusal)
    assert "none of 21 photos can be read" in refusal.message


def test_photos_that_are_gone_amid_the_work_are_refused_and_not_reported_one_by_one(mixed: Path) -> None:
    files = files_in(mixed)
    embeds = worker(mixed, files)
    assert embeds.ready(vggsearch.__version__) is None
    mixed.rename(mixed.parent / "unmounted")
    try:
        assert isinstance(embeds.embed(files), Refusal)
    finally:
        (mixed.parent / "unmounted").rename(mixed)


def test_a_worker_without_a_network_is_refused(mixed: Path) -> None:
    def load() -> Engine:
        raise WeightsError("There are no weights.")

    refusal = Worker(mixed, FAKE_SPEC, load, 1, files_in(mixed)).ready(vggsearch.__version__)
    assert isinstance(refusal, Refusal)
    assert "There are no weights." in refusal.message


def test_a_gpu_never_waits_for_a_chunk_that_nobody_has_asked_for() -> None:
    ahead = EXTRACT.decoded_bytes // (FAKE_SPEC.size**2 * 3)
    assert (chunks_at_once(FAKE_SPEC, has_gpus=True) - 1) * CLUSTER.chunk > ahead
    assert chunks_at_once(FAKE_SPEC, has_gpus=False) == CLUSTER.chunks


class OneWorkerStarts:
    """Stands for Ray on a cluster where the first worker starts, and another one never finds room."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayError=RuntimeError, RayTaskError=KeyError)
        self.killed: list[object] = []
        self._answers: dict[str, object] = {}

    def start(self) -> tuple[object, str]:
        """Start a worker, as `_start` does."""
        if not self._answers:
            self._answers["ready"] = None
            return SimpleNamespace(embed=SimpleNamespace(remote=self._embed)), "ready"
        return "worker without room", "never ready"

    def _embed(self, files: list[PhotoFile]) -> str:
        reference = f"rows of {files[0].path}"
        self._answers[reference] = Rows.of(
            [Skipped(file.path, "gone", "unreadable") for file in files], FAKE_SPEC.dim
        )
        return reference

    def wait(self, awaited: list[str], num_returns: int, timeout: float | None) -> tuple[list[str], list[str]]:
        """Return what is ready; fail where Ray would wait for ever."""
        ready = [reference for reference in awaited if reference in self._answers][:num_returns]
        assert ready or timeout is not None
        return ready, [reference for reference in awaited if reference not in ready]

    def get(self, reference: str) -> object:
        """Return an answer."""
        return self._answers[reference]

    def kill(self, actor: object) -> None:
        """End a worker."""
        self.killed.append(actor)


def test_once_all_is_done_nobody_waits_for_a_worker_that_finds_no_room(mixed: Path) -> None:
    ray, files = OneWorkerStarts(), files_in(mixed)
    chunks = [_Chunk(number, [file]) for number, file in enumerate(files)]
    pool = _Pool(ray, ray.start, _Plan(count=2, cpus=1, gpus=0, chunks=2))
    found = [item.path for chunk in pool.run(iter(chunks)) for item in chunk.items() if isinstance(item, Skipped)]
    assert found == [file.path for file in files]
    pool.close()
    assert "worker without room" in ray.killed
