"""The facts of photos that an open index keeps."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tests.fakes import FakeEngine, save_photo
from vggsearch import ImageIndex
from vggsearch.defaults import SearchDefaults
from vggsearch.image_index import latest_of
from vggsearch.query.snapshot import Snapshot
from vggsearch.store.manifest import Part
from vggsearch.store.store import Store


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    """Three photos of different sizes; a fourth one is gone, so a row of the first part is dead."""
    for seed in range(4):
        save_photo(tmp_path / "photos" / f"{seed}.jpg", seed, (300 + seed, 200 - seed))
    made = ImageIndex.create(tmp_path / "index", engine=FakeEngine())
    made.update(tmp_path / "photos")
    (tmp_path / "photos" / "1.jpg").unlink()
    made.update()
    return made


@pytest.mark.parametrize("most", [1000, 0])
def test_facts_are_those_of_the_rows(index: ImageIndex, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = Store.columns_of

    def counted(store: Store, part: Part, names: Sequence[str]) -> pa.Table:
        reads.extend(names)
        return read(store, part, names)

    monkeypatch.setattr(Store, "columns_of", counted)
    monkeypatch.setattr("vggsearch.query.snapshot.SEARCH", SearchDefaults(facts=most))

    def facts(state: Snapshot) -> list[tuple[str, int, int]]:
        reads.clear()
        return state.facts_of([2, 0])

    with index:
        latest = latest_of(index)
        expected = latest.read(lambda state: state.store.facts_of([2, 0]))
        assert [size for _, *size in expected] == [[303, 197], [300, 200]]
        assert latest.read(facts) == latest.read(facts) == expected
    assert bool(reads) == (most == 0), "of few photos, they are read once"
