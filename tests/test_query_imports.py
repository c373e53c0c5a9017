"""What a query and an update import: only what they need, since importing takes a third of the time of a query."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, save_photo
from vggsearch import ImageIndex

QUERY = """
import sys
from tests.fakes import FakeEngine
from vggsearch import ImageIndex
with ImageIndex.open(sys.argv[1], engine=FakeEngine()) as index:
    for options in ({}, {"rerank": False}, {"filters": ["a*"]}, {"exclude_same_folder": True}):
        index.query(sys.argv[2], **options)
print(*sorted(sys.modules))
"""
NOT_NEEDED = (
    "pandas",
    "torch",
    "vggsearch.cluster",
    "vggsearch.duplicates",
    "vggsearch.learning",
    "vggsearch.published",
)


@pytest.fixture(params=[False, True], ids=["without local features", "with local features"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An index with a dead row, which is read in another way."""
    pytest.importorskip("pandas")
    for seed, name in enumerate(("a.jpg", "b.jpg", "trips/c.jpg")):
        save_photo(tmp_path / "photos" / name, seed)
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as made:
        made.update(tmp_path / "photos", local_features=request.param)
        (tmp_path / "photos" / "b.jpg").unlink()
        made.update()
    return tmp_path / "index"


def test_a_query_imports_nothing_that_it_does_not_need(index: Path) -> None:
    photo = index.parent / "photos" / "a.jpg"
    done = subprocess.run(
        [sys.executable, "-c", QUERY, str(index), str(photo)], capture_output=True, text=True, check=True
    )
    assert not set(NOT_NEEDED) & set(done.stdout.split())


def test_an_update_that_finds_nothing_new_imports_no_pandas(index: Path) -> None:
    code = """
import sys
from tests.fakes import FakeEngine
from vggsearch import ImageIndex
with ImageIndex.open(sys.argv[1], engine=FakeEngine()) as index:
    print(index.update().indexed, "pandas" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"
