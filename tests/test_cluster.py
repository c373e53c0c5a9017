"""Indexing on a real Ray cluster: three nodes on this machine, of which some are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import SHARED_DATA
from tests.fakes import FakeEngine, save_photo
from tests.helpers.object_storage import S3Server, s3_in_environment
from tests.helpers.vectors import DIM, families
from tests.helpers.waiting import wait_until
from vggsearch.cluster.tasks import RayTasks
from vggsearch.defaults import CLUSTER, PAIRS
from vggsearch.errors import ClusterError, OptionError, PhotosError, Stopped, VectorsDamaged
from vggsearch.image_index import ImageIndex
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.build import build
from vggsearch.knn.files import INDEX_FILE, VECTORS_FILE
from vggsearch.knn.recipes import plan
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.walk import walk
from vggsearch.progress import SILENT, Monitor

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # of Ray's own
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray"),
]

ROOT = Path(__file__).parent.parent
COUNT = 300


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that all nodes know by their environment."""
    with s3_in_environment(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[Any]:
    """A head without CPUs, and two nodes with one each."""
    import ray  # not above: collecting the tests should not import it
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # 15 otherwise: the rest of the machine would go first
        patch.setenv("PYTHONPATH", str(ROOT))
        head = {"num_cpus": 0, "num_gpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            add_node(made)
        yield made
        ray.shutdown()
        made.shutdown()


def add_node(cluster: Any) -> Any:
    """Add a node; Ray waits 30 s for it, which a busy machine may need more than once."""
    for _ in range(2):
        with suppress(Exception):
            return cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=100 << 20)
    return cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=100 << 20)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 real photos, or generated ones where there are none."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    found = sorted(path for path in SHARED_DATA.rglob("*.jpg") if path.stat().st_size < 1_000_000)
    for number in range(COUNT):
        target = folder / str(number % 7) / f"{number:03}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if len(found) < COUNT:
            save_photo(target, number)
        else:
            shutil.copyfile(found[number * (len(found) // COUNT)], target)
    return folder


@pytest.fixture(scope="module")
def alone(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their index, made by this machine."""
    directory = tmp_path_factory.mktemp("alone") / "index"
    with ImageIndex.for_photos(many, directory, FAST) as index:
        assert index.update(many).photos == COUNT
    return directory


FAST = EmbeddingOptions(model="vgg16_half")


def check_equal(made: Path, alone: Path) -> None:
    """Fail unless two indexes have the same rows, with embeddings that are equal bit for bit."""
    with ImageIndex.open(made) as one, ImageIndex.open(alone) as other:
        assert one.paths() == other.paths()
        assert one.to_arrow().drop(["embedding"]) == other.to_arrow().drop(["embedding"])
        assert np.array_equal(one.embeddings(), other.embeddings())


def test_a_node_that_is_killed_costs_no_photo(cluster: Any, many: Path, alone: Path, tmp_path: Path) -> None:
    node = add_node(cluster)
    seen: list[int] = []

    def kill(progress: Any) -> None:
        if progress.stage == "embedding photos" and progress.done > 64 and not seen:
            seen.append(progress.done)
            cluster.remove_node(node, allow_graceful=False)

    with ImageIndex.for_photos(many, tmp_path / "made", FAST) as index:
        report = index.update(many, ray=cluster.address, ray_workers=3, progress=kill)
    assert seen
    assert (report.indexed, report.photos) == (COUNT, COUNT)
    check_equal(tmp_path / "made", alone)


def test_a_driver_that_is_killed_goes_on_with_the_same_command(
    cluster: Any, many: Path, alone: Path, tmp_path: Path
) -> None:
    often = "import vggsearch.defaults as d; object.__setattr__(d.EXTRACT, 'part_seconds', 0.2); "
    run = "import sys; from vggsearch.cli import cli; cli(sys.argv[1:])"
    directory = tmp_path / "made"
    asked = ["index", str(many), "--index", str(directory), "--model", "vgg16_half", "--ray", str(cluster.address)]
    parts = directory / "embeddings"
    with subprocess.Popen(
        [sys.executable, "-c", often + run, *asked], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        wait_until(lambda: driver.poll() is not None or len(list(parts.glob("part-*"))) > 1)
        driver.send_signal(signal.SIGKILL)
    with ImageIndex.open(directory) as index:
        assert 0 < len(index) < COUNT
    subprocess.run([sys.executable, "-c", run, *asked], check=True, capture_output=True, timeout=300)
    check_equal(directory, alone)


@pytest.mark.parametrize("recipe", ["ivf-sq8", "ivf-pq"])
def test_vectors_that_a_cluster_encodes_give_the_same_index_though_a_node_is_killed(
    cluster: Any, recipe: str, tmp_path: Path
) -> None:
    node = add_node(cluster)
    stored = families(60_000)
    planned = replace(plan(len(stored), DIM, recipe, 10**9, 0.99), shard_rows=5000)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    build(tmp_path / "here", [stored], planned, None, SILENT)
    killed: list[int] = []

    def kill(progress: Any) -> None:
        if progress.stage == "adding vectors" and not killed:
            killed.append(progress.done)
            cluster.remove_node(node, allow_graceful=False)

    with RayTasks(cluster.address) as tasks:
        build(tmp_path / "there", [stored], planned, None, Monitor(kill), tasks)
    assert killed
    for name in (INDEX_FILE, VECTORS_FILE):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_cluster_builds_the_vector_index_that_this_machine_builds(
    cluster: Any, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.cluster.tasks.CLUSTER", replace(CLUSTER, task_rows=50))
    found, shown = [], list[Any]()
    for name, address in (("here", None), ("there", str(cluster.address))):
        shutil.copytree(alone, tmp_path / name)
        with ImageIndex.open(tmp_path / name) as index:
            index.build(recipe="ivf-sq8", ray=address, progress=shown.append)
        [file] = (tmp_path / name).rglob(INDEX_FILE)
        found.append(file.read_bytes())
    assert found[0] == found[1]
    assert [each.done for each in shown if each.stage == "adding vectors"][-6:] == [50, 100, 150, 200, 250, 300]


def test_a_cluster_finds_the_near_pairs_that_this_machine_finds_though_a_node_is_killed(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = add_node(cluster)
    for module in ("all_pairs", "near_pairs"):
        monkeypatch.setattr(f"vggsearch.knn.{module}.PAIRS", replace(PAIRS, most_exact=1000, near_rows=4000))
    stored, without = families(40_000), np.arange(0, 40_000, 99)
    killed: list[int] = []

    def kill(progress: Any) -> None:
        if progress.stage == "comparing near photos" and not killed:
            killed.append(progress.done)
            cluster.remove_node(node, allow_graceful=False)

    with RayTasks(cluster.address) as tasks:
        found = all_pairs(stored, 8, 0.5, without, Monitor(kill), tasks)
    expected = all_pairs(stored, 8, 0.5, without)
    assert killed
    assert len(found) > 40_000
    for name in ("first", "second", "similarity"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_duplicates_that_a_cluster_finds_are_those_that_this_machine_finds(
    cluster: Any, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("all_pairs", "near_pairs"):
        monkeypatch.setattr(f"vggsearch.knn.{module}.PAIRS", replace(PAIRS, most_exact=100, near_lists=0.5))
    found = []
    for name, address in (("here", None), ("there", str(cluster.address))):
        shutil.copytree(alone, tmp_path / name)
        with ImageIndex.open(tmp_path / name) as index:
            report = index.duplicates(threshold=0.3, confirm=False, ray=address)
            found.append(report.pairs.to_arrow())
    assert len(found[0])
    assert found[0] == found[1]


def test_a_task_that_fails_ends_the_run_with_its_error(cluster: Any) -> None:
    with RayTasks(cluster.address) as tasks:
        assert list(tasks.run(halved, [4, 6], SILENT)) == [2, 3]
        with pytest.raises(VectorsDamaged, match="7 is odd"):
            list(tasks.run(halved, [2, 7], SILENT))
        with pytest.raises(ClusterError, match="3 workers died over the same task"):
            list(tasks.run(dying, [1], SILENT))
        with pytest.raises(Stopped):
            list(tasks.run(sleeping, [60], Monitor(stop=lambda: True)))


def halved(number: int, _monitor: Monitor) -> int:
    if number % 2:
        raise VectorsDamaged(f"{number} is odd")
    return number // 2


def dying(_number: int, _monitor: Monitor) -> None:
    os._exit(9)


def sleeping(seconds: int, _monitor: Monitor) -> None:
    time.sleep(seconds)


class Dying(FakeEngine):
    """An engine whose process ends at the picture of one colour."""

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        if (squares.max(axis=(1, 2, 3)) == squares.min(axis=(1, 2, 3))).any():
            os._exit(9)
        return super().embed(squares)


def test_files_that_kill_every_worker_end_the_run_with_their_names(cluster: Any, tmp_path: Path) -> None:
    from PIL import Image

    save_photo(tmp_path / "photos/a.jpg", 1)
    Image.new("RGB", (40, 30), (7, 7, 7)).save(tmp_path / "photos/deadly.png")
    with (
        ImageIndex.for_photos(tmp_path / "photos", tmp_path / "made", engine=Dying()) as index,
        pytest.raises(ClusterError, match=r"3 workers died .* a\.jpg, deadly\.png"),
    ):
        index.update(ray=cluster.address, folder=tmp_path / "photos")
    with ImageIndex.open(tmp_path / "made") as index:
        assert len(index) == 0


def test_copies_renames_and_files_that_are_no_pictures_come_out_as_on_one_machine(
    cluster: Any, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for seed in range(100):
        save_photo(photos / f"{seed:03}.jpg", seed % 60, (40, 30))
    (photos / "050.jpg").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("nothing")
    reports = []
    for name, address in (("alone", None), ("cluster", str(cluster.address))):
        with ImageIndex.for_photos(photos, tmp_path / name, engine=FakeEngine()) as index:
            index.update(photos, ray=address)
            reports.append((index.paths(), index.skipped(), index.embeddings().tolist()))
    assert reports[0] == reports[1]
    (photos / "001.jpg").rename(photos / "renamed.jpg")
    with ImageIndex.open(tmp_path / "cluster", engine=FakeEngine()) as index:
        report = index.update(ray=str(cluster.address))
        assert (report.indexed, report.reused, report.gone) == (0, 1, 1)


class Refusing(FakeEngine):
    """An engine whose process ends when a photo is embedded."""

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        os._exit(9)


def test_renamed_copied_and_changed_photos_come_out_as_on_one_machine(cluster: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for seed in range(150):
        save_photo(photos / f"{seed:03}.jpg", seed, (40, 30))
    for name in ("alone", "cluster"):
        with ImageIndex.for_photos(photos, tmp_path / name, engine=FakeEngine()) as index:
            index.update(photos)
    (photos / "trip").mkdir()
    for number in range(0, 60, 2):
        (photos / f"{number:03}.jpg").rename(photos / f"trip/{number:03}.jpg")
    for number in range(1, 40, 2):
        shutil.copyfile(photos / f"{number:03}.jpg", photos / f"copy-{number:03}.jpg")
    for number in range(100, 110):
        save_photo(photos / f"{number:03}.jpg", 1000 + number, (40, 30))
    os.utime(photos / "120.jpg")
    (photos / "121.jpg").write_bytes((photos / "122.jpg").read_bytes())
    save_photo(photos / "new.jpg", 2000, (40, 30))
    shutil.copyfile(photos / "new.jpg", photos / "new-copy.jpg")
    reports = []
    for name, address in (("alone", None), ("cluster", str(cluster.address))):
        with ImageIndex.open(tmp_path / name, engine=FakeEngine()) as index:
            report = index.update(ray=address)
            reports.append((report.indexed, report.reused, report.unchanged, report.gone, report.photos))
    assert reports[0] == reports[1]
    assert reports[0][1] >= 30 + 20 + 1
    check_equal(tmp_path / "cluster", tmp_path / "alone")


@pytest.mark.parametrize("is_touched", [False, True])
def test_no_photo_that_was_renamed_is_embedded_again(cluster: Any, tmp_path: Path, is_touched: bool) -> None:
    photos = tmp_path / "photos"
    for seed in range(100):
        save_photo(photos / f"{seed:03}.jpg", seed, (40, 30))
    with ImageIndex.for_photos(photos, tmp_path / "made", engine=FakeEngine()) as index:
        index.update(photos)
        before = index.embeddings()
    for path in list(photos.iterdir()):
        path.rename(photos / f"renamed-{path.name}")
        if is_touched:
            os.utime(photos / f"renamed-{path.name}")
    with ImageIndex.open(tmp_path / "made", engine=Refusing()) as index:
        report = index.update(ray=cluster.address)
        assert (report.indexed, report.reused, report.gone) == (0, 100, 100)
        assert np.array_equal(index.embeddings(), before)


def test_photos_in_a_bucket_are_read_by_the_workers(
    cluster: Any, s3: S3Server, photos: Path, tmp_path: Path
) -> None:
    files = s3.file_system()
    files.create_dir("bucket/photos")
    for found in walk(photos):
        with files.open_output_stream(f"bucket/photos/{found.path}") as file:
            file.write((photos / found.path).read_bytes())
    rows = []
    for source, address in ((photos, None), ("s3://bucket/photos", str(cluster.address))):
        with ImageIndex.for_photos(source, tmp_path / str(address is None), engine=FakeEngine()) as index:
            index.update(source, ray=address)
            rows.append((index.paths(), index.to_arrow().column("sha256").to_pylist(), index.embeddings().tolist()))
    assert rows[0] == rows[1]


def test_a_worker_that_does_not_see_the_photos_refuses(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "photos/a.jpg", 1)
    monkeypatch.setattr("vggsearch.cluster.extract.place_of", lambda _: Path("/not/mounted"))
    with (
        ImageIndex.for_photos(tmp_path / "photos", tmp_path / "made", engine=FakeEngine()) as index,
        pytest.raises(PhotosError, match="none of 1 photos can be read in /not/mounted"),
    ):
        index.update(tmp_path / "photos", ray=cluster.address)
    with ImageIndex.open(tmp_path / "made") as index:
        assert (len(index), len(index.skipped())) == (0, 0)


def test_more_workers_than_there_is_room_for_are_refused(cluster: Any, photos: Path, tmp_path: Path) -> None:
    with (
        ImageIndex.for_photos(photos, tmp_path / "made", engine=FakeEngine()) as index,
        pytest.raises(OptionError, match=r"ray_workers=100 is more than the cluster has room for"),
    ):
        index.update(photos, ray=cluster.address, ray_workers=100)


def test_an_address_without_a_cluster_is_an_error(photos: Path, tmp_path: Path) -> None:
    with (
        ImageIndex.for_photos(photos, tmp_path / "made", engine=FakeEngine()) as index,
        pytest.raises(ClusterError, match=r"There is no Ray cluster at 127\.0\.0\.1:1"),
    ):
        index.update(photos, ray="127.0.0.1:1")
