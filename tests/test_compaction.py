import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from tests.test_store import all_embeddings, made, photo
from vggsearch.defaults import COMPACT, EXTRACT
from vggsearch.errors import IndexDamaged
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.store.compaction import is_compact, is_due, plan_groups
from vggsearch.store.manifest import Manifest, Part
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

ROW = FAKE_SPEC.dim * 2
FULL = EXTRACT.part_bytes // ROW  # rows


def manifest_of(*rows: int, engines: str = "") -> Manifest:
    names = engines or "a" * len(rows)
    parts = tuple(
        Part(f"part-{at:06}", 1, "", count, name, "fp32")
        for at, (count, name) in enumerate(zip(rows, names, strict=True))
    )
    return Manifest(FAKE_SPEC, parts=parts)


def sizes(manifest: Manifest) -> list[list[int]]:
    return [[part.rows for part in group] for group in plan_groups(manifest)]


def test_neighbours_are_merged_up_to_the_size_of_a_part() -> None:
    half = FULL // 2
    assert sizes(manifest_of(1, 1, 1)) == [[1, 1, 1]]
    assert sizes(manifest_of(FULL, 1, 1)) == [[FULL], [1, 1]]
    assert sizes(manifest_of(half, half, 1, half)) == [[half, half], [1, half]]
    assert sizes(manifest_of(FULL + 1, FULL + 1)) == [[FULL + 1], [FULL + 1]]
    assert sizes(manifest_of()) == []


def test_parts_of_two_engines_are_not_merged() -> None:
    assert sizes(manifest_of(1, 2, 3, 4, engines="aabb")) == [[1, 2], [3, 4]]


def test_dead_rows_do_not_count_towards_the_size_and_justify_rewriting_a_part() -> None:
    manifest = manifest_of(FULL, 1)
    fewer = manifest.without_rows({"part-000000": {0}})
    assert sizes(fewer) == [[FULL, 1]]
    assert not any(map(is_compact, plan_groups(fewer)))
    assert all(map(is_compact, plan_groups(manifest)))


def test_compaction_is_due_only_for_many_small_parts_or_many_dead_rows() -> None:
    def due(manifest: Manifest) -> bool:
        return is_due(manifest, plan_groups(manifest))

    assert not due(manifest_of(*[1] * COMPACT.spare_parts))
    assert due(manifest_of(*[1] * (COMPACT.spare_parts + 1)))
    assert not due(manifest_of(*[FULL] * 1000))
    few, many = set(range(25)), set(range(26))
    assert not due(manifest_of(100).without_rows({"part-000000": few}))
    assert due(manifest_of(100).without_rows({"part-000000": many}))


def test_compaction_keeps_rows_order_and_embeddings_and_drops_dead_rows(tmp_path: Path) -> None:
    store = made(tmp_path / "x", *([photo(f"{seed}.jpg", seed)] for seed in range(5)))
    with writing(store) as writer:
        writer.commit([photo("1.jpg", 11)], removed=["3.jpg"])
        writer.commit([photo("6.jpg", 6), photo("7.jpg", 7)])
        writer.commit([], removed=["6.jpg"])
    before = [store.read_part(part).take(store.live_rows(part)).to_pylist() for part in store.manifest.parts]
    numbers = all_embeddings(store)
    with writing(store) as writer:
        assert writer.compact() == (6 - 1, 1)
        writer.commit([photo("0.jpg", 99)])  # the writer knows the new position of the rows
    after = Store.open(tmp_path / "x")
    assert after.paths() == ["2.jpg", "4.jpg", "1.jpg", "7.jpg", "0.jpg"]
    np.testing.assert_array_equal(all_embeddings(after)[:-1], numbers[1:])
    assert after.read_part(after.manifest.parts[0]).to_pylist() == [row for part in before for row in part]
    assert [part.name for part in after.manifest.parts] == ["part-000008.parquet", "part-000009.parquet"]
    assert {path.name for path in (tmp_path / "x" / "embeddings").iterdir()} == {
        part.name for part in after.manifest.parts
    }
    assert verify(tmp_path / "x").findings == ()


def test_the_vector_index_is_kept(index: ImageIndex, photos: Path) -> None:
    save_photo(photos / "new.jpg", 20)
    (photos / "winter" / "4.jpg").unlink()
    index.update()
    expected = index.query(photos / "new.jpg")
    files = {path: path.stat().st_ino for path in (index.directory / "search").rglob("*.*")}
    index.update(compact=True)
    assert index.info().parts == 1
    assert index.info().is_search_fresh
    assert {path: path.stat().st_ino for path in (index.directory / "search").rglob("*.*")} == files
    assert index.query(photos / "new.jpg") == expected
    assert index.verify().findings == ()


def test_a_stale_vector_index_stays_stale(index: ImageIndex) -> None:
    with writing(Store.open(index.directory)) as writer:
        writer.commit([], removed=["winter/4.jpg"])
        writer.compact()
    assert not index.info().is_search_fresh


def test_compaction_is_automatic_beyond_the_limit(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vggsearch.store.compaction.COMPACT", replace(COMPACT, spare_parts=3))
    for seed in range(30, 33):
        assert index.info().parts == seed - 29
        save_photo(photos / f"{seed}.jpg", seed)
        with caplog.at_level("INFO"):
            index.update()
    assert index.info().parts == 1
    assert "4 parts were merged into 1." in caplog.text
    assert index.update().indexed == 0


@pytest.mark.parametrize("fails", ["vggsearch.store.store.write_manifest", "vggsearch.store.writer.merge_parts"])
def test_a_failed_merge_leaves_the_index_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    store = made(tmp_path / "x", *([photo(f"{seed}.jpg", seed)] for seed in range(5)))
    before = json.loads((tmp_path / "x" / "manifest.json").read_text())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with writing(store) as writer, monkeypatch.context() as patched:
        patched.setattr(fails, full)
        with pytest.raises(OSError, match="No space"):
            writer.compact()
    assert json.loads((tmp_path / "x" / "manifest.json").read_text()) == before
    assert verify(tmp_path / "x").findings == ()
    with writing(store):
        pass
    assert len(list((tmp_path / "x" / "embeddings").iterdir())) == 5


def test_damaged_parts_are_not_merged_into_one_that_looks_intact(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg")], [photo("b.jpg", 1)])
    part = tmp_path / "x" / "embeddings" / "part-000001.parquet"
    data = part.read_bytes()
    at = data.rindex(b"parquet-cpp-arrow")  # the name of the writer, which readers ignore
    part.write_bytes(data[:at] + b"X" + data[at + 1 :])
    assert store.paths() == ["a.jpg", "b.jpg"]
    with writing(store) as writer, pytest.raises(IndexDamaged, match="but the manifest says"):
        writer.compact()
    assert [part.name for part in store.manifest.parts] == ["part-000001.parquet", "part-000002.parquet"]


def test_a_merged_part_is_no_larger_than_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.store.compaction.EXTRACT", replace(EXTRACT, part_bytes=3 * ROW))
    store = made(tmp_path / "x", *([photo(f"{seed}.jpg", seed)] for seed in range(8)))
    paths = store.paths()
    with writing(store) as writer:
        assert writer.compact() == (8, 3)
    assert [part.rows for part in store.manifest.parts] == [3, 3, 2]
    assert store.paths() == paths


def test_merging_needs_no_network(photos: Path, index: ImageIndex) -> None:
    save_photo(photos / "new.jpg", 20)
    index.update()
    assert index.info().parts == 2
    engine = FakeEngine()
    with ImageIndex.open(index.directory, engine=engine) as opened:
        opened.update(compact=True)
    assert (index.verify().parts, engine.pictures) == (1, 0)
