"""The memory of photos that were compared with a query."""

from pathlib import Path

from tests.fakes import FakeEngine, picture, save_photo
from vggsearch.image_index import ImageIndex
from vggsearch.matching.recent import Recent


def test_what_was_not_asked_for_longest_goes_first() -> None:
    recent = Recent[int](2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]


def test_a_photo_is_read_once_for_several_queries(index: ImageIndex, engine: FakeEngine) -> None:
    index.update(local_features=False)
    first = index.query(picture(1))
    before = engine.pictures
    assert index.query(picture(1)) == first
    assert engine.pictures - before < 6  # the query in its orientations, and no photo


def test_a_photo_that_changed_is_read_again(index: ImageIndex, engine: FakeEngine, photos: Path) -> None:
    index.update(local_features=False)
    first = index.query(picture(30))
    save_photo(photos / "summer" / "1.jpg", 30)
    for path in photos.rglob("*.jpg"):
        path.touch()
    before = engine.pictures
    again = index.query(picture(30))
    assert engine.pictures - before > 6
    found, was = ({match.path: match.similarity for match in each.matches} for each in (again, first))
    assert found["summer/1.jpg"] > was["summer/1.jpg"]
