import contextlib
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import FakeEngine, save_photo
from tests.helpers.decoders import InProcessDecoder
from tests.helpers.disks import IS_ROOT, mount
from vggsearch.photos.decoder_process import DecoderProcess

if TYPE_CHECKING:
    from vggsearch.image_index import ImageIndex

if "PYTEST_XDIST_WORKER" in os.environ:  # set before any library counts the processors: a worker has one to itself
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

with contextlib.suppress(ImportError):  # the tests for a GPU do without
    from hypothesis import settings

    from tests.helpers.examples import DEV_EXAMPLES

    is_ci = bool(os.environ.get("CI"))  # where the same commit must give the same result; elsewhere examples vary
    settings.register_profile("dev", max_examples=DEV_EXAMPLES, deadline=None, derandomize=is_ci)
    settings.register_profile("ci", max_examples=100, deadline=None, derandomize=is_ci)
    settings.load_profile("dev")  # pytest --hypothesis-profile ci chooses the other

with contextlib.suppress(ModuleNotFoundError):  # before a test imports OpenVINO, which would then report it
    from vggsearch.model import openvino_engine  # noqa: F401

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is not UTF-8 in captured output, such as a logged file name: pytest-xdist cannot send it."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def decoders_in_this_process() -> Iterator[None]:
    """Decode photos in this process: a decoder process for each of thousands of updates costs minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggsearch.photos.decoder_pool.DecoderProcess", InProcessDecoder)
        yield


@pytest.fixture(autouse=True)
def decoder_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in processes of their own in tests marked `decoders`, which are about them."""
    if request.node.get_closest_marker("decoders") is not None:
        monkeypatch.setattr("vggsearch.photos.decoder_pool.DecoderProcess", DecoderProcess)


@pytest.fixture(scope="session", autouse=True)
def keypoints_once() -> Iterator[None]:
    """Detect the keypoints of a picture once a session."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):  # the tests for a GPU do without OpenCV
            from tests.helpers.keypoints import RememberedSift

            patch.setattr("vggsearch.matching.keypoints._sift", RememberedSift)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled networks in a folder of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggsearch.system.places.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def six_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos of the fixture `photos`, made once: not to be changed."""
    folder = tmp_path_factory.mktemp("six") / "photos"
    for seed in range(6):
        save_photo(folder / ("summer" if seed < 4 else "winter") / f"{seed}.jpg", seed)
    return folder


@pytest.fixture(scope="session")
def six_indexed(six_photos: Path) -> FakeEngine:
    """Index them once, in indexes/ beside their folder; return the engine with its counts."""
    from vggsearch.image_index import ImageIndex  # not above: the tests for a GPU need none of what it imports

    engine = FakeEngine()
    with ImageIndex.create(six_photos.parent / "indexes" / "photos", engine=engine) as made:
        made.update(six_photos)
    return engine


@pytest.fixture
def photos(tmp_path: Path, six_photos: Path) -> Path:
    """A folder of six photos in two folders."""
    return Path(shutil.copytree(six_photos, tmp_path / "photos"))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def index(
    tmp_path: Path, photos: Path, engine: FakeEngine, six_photos: Path, six_indexed: FakeEngine
) -> Iterator["ImageIndex"]:
    """An index of those photos, made with the fake engine.

    It is a copy: the manifest names the photo folder relative to the index, and copies keep the files' times.
    """
    from vggsearch.image_index import ImageIndex

    shutil.copytree(six_photos.parent / "indexes", tmp_path / "indexes")
    engine.calls, engine.pictures = six_indexed.calls, six_indexed.pictures
    with ImageIndex.open(tmp_path / "indexes" / "photos", engine=engine) as opened:
        yield opened


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The photos to measure with, which are no part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the measuring photos in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sample_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's real photos and edited copies, out of the scikit-image and scikit-learn wheels."""
    from make_photos import make_photos

    folder = tmp_path_factory.mktemp("sample") / "photos"
    make_photos(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte, another volume than the test's."""
    if not IS_ROOT:
        pytest.skip("only root may mount a disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a reader may have files mapped
