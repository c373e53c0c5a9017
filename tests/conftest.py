import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.disks import IS_ROOT, mount
from tests.fakes import FakeEngine, save_photo

if TYPE_CHECKING:
    from vggsearch.image_index import ImageIndex

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six photos in two folders."""
    folder = tmp_path / "photos"
    for seed in range(6):
        save_photo(folder / ("summer" if seed < 4 else "winter") / f"{seed}.jpg", seed)
    return folder


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def index(tmp_path: Path, photos: Path, engine: FakeEngine) -> Iterator["ImageIndex"]:
    """An index of those photos, made with the fake engine."""
    from vggsearch.image_index import ImageIndex  # not above: the tests for a GPU need none of what it imports

    with ImageIndex.create(tmp_path / "indexes" / "photos", engine=engine) as made:
        made.update(photos)
        yield made


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
