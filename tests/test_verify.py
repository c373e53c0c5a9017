import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.fakes import FakeEngine, save_photo
from tests.helpers.known_files import files_in
from tests.test_store import made, photo
from vggsearch.errors import IndexDamaged, IndexExists, IndexLocked, IndexMissing
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.knn.build import build
from vggsearch.knn.recipes import plan
from vggsearch.photos.walk import Skipped
from vggsearch.progress import SILENT, Progress
from vggsearch.store.dead_rows import DeadRows
from vggsearch.store.manifest import Manifest, Part, VectorIndexInfo, write_manifest
from vggsearch.store.records import Embedded
from vggsearch.store.store import Store
from vggsearch.store.writer import writing


def flip(path: Path, share: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0xFF
    path.write_bytes(data)


def flip_an_embedding(part: Path) -> None:
    with pq.ParquetFile(part) as file:
        group = file.metadata.row_group(0)
        pages = group.column(group.num_columns - 1)
        assert pages.path_in_schema.startswith("embedding")
        middle = pages.data_page_offset + pages.total_compressed_size // 2
    data = bytearray(part.read_bytes())
    data[middle] ^= 0xFF
    part.write_bytes(data)


def parts_of(index: ImageIndex) -> list[Path]:
    return sorted((index.directory / "embeddings").iterdir())


@pytest.fixture
def grown(index: ImageIndex, photos: Path) -> ImageIndex:
    """The index of six photos, two more in a second part, one skipped file."""
    save_photo(photos / "new0.jpg", 20)
    save_photo(photos / "new1.jpg", 21)
    (photos / "bad.jpg").write_bytes(b"")
    index.update()
    return index


def test_a_whole_index_is_whole_and_every_byte_of_it_was_read(grown: ImageIndex) -> None:
    told: list[Progress] = []
    report = grown.verify(progress=told.append)
    assert report.is_whole
    assert (report.findings, report.notes, report.photos, report.parts) == ((), (), 8, 2)
    files = [path for path in grown.directory.rglob("*") if path.suffix in (".parquet", ".faiss", ".npy")]
    assert report.bytes == sum(path.stat().st_size for path in files)
    assert told[0] == Progress("checking", 0, report.bytes, "bytes")
    assert told[-1] == Progress("checking", report.bytes, report.bytes, "bytes")


def test_a_damaged_part_is_named_with_its_photos_and_only_they_are_dropped(
    grown: ImageIndex, photos: Path, engine: FakeEngine
) -> None:
    expected = grown.query(photos / "summer" / "0.jpg", count=20)
    flip_an_embedding(parts_of(grown)[1])
    report = grown.verify()
    (finding,) = report.findings
    assert not report.is_whole
    assert finding.file == "embeddings/part-000002.parquet"
    assert "it holds 2 photos" in finding.problem
    assert finding.photos == ("new0.jpg", "new1.jpg")
    assert "verify --repair drops these photos" in finding.way_out.shell

    repaired = grown.verify(repair=True)
    assert (repaired.is_repaired, repaired.photos, repaired.findings[0].photos) == (True, 6, finding.photos)
    assert grown.verify().findings == ()
    assert grown.info().is_search_fresh
    assert len(grown) == 6
    pictures = engine.pictures
    assert grown.update().indexed == 2
    assert engine.pictures == pictures + 2
    assert grown.query(photos / "summer" / "0.jpg", count=20) == expected


def test_a_part_whose_paths_are_damaged_too_is_told_with_its_number_of_photos(grown: ImageIndex) -> None:
    parts_of(grown)[1].write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (finding,) = grown.verify().findings
    assert "has 108 bytes, but the manifest says" in finding.problem
    assert finding.problem.endswith("it holds 2 photos, which cannot be named")
    assert finding.photos == ()


def test_a_missing_part_is_repaired(grown: ImageIndex) -> None:
    parts_of(grown)[0].unlink()
    (finding,) = grown.verify().findings
    assert "is missing, but the manifest lists it; it holds 6 photos" in finding.problem
    assert grown.verify(repair=True).photos == 2
    assert grown.verify().findings == ()
    assert grown.paths() == ["new0.jpg", "new1.jpg"]


@pytest.mark.parametrize("name", ["index.faiss", "vectors.npy"])
def test_a_damaged_search_side_is_made_anew_from_the_parts(grown: ImageIndex, photos: Path, name: str) -> None:
    expected = grown.query(photos / "summer" / "0.jpg")
    grown.close()
    flip(next((grown.directory / "search").rglob(name)))
    (finding,) = grown.verify().findings
    assert finding.file.startswith("search/")
    assert finding.file.endswith(name)
    assert finding.photos == ()
    assert grown.verify(repair=True).photos == 8
    assert grown.verify().findings == ()
    with ImageIndex.open(grown.directory, engine=FakeEngine()) as reopened:
        assert reopened.query(photos / "summer" / "0.jpg") == expected


def test_a_search_side_of_other_rows_is_found_by_its_content(grown: ImageIndex) -> None:
    side = Store.open(grown.directory).manifest.search
    assert side is not None

    def make(directory: Path) -> VectorIndexInfo:
        planned = plan(8, grown.spec.dim, "flat", 10**9, 1.0)
        build(directory, [block[::-1] for block in Store.open(grown.directory).embeddings()], planned, None, SILENT)
        return side.facts

    with writing(Store.open(grown.directory)) as writer:
        writer.set_vector_index(make)
    (finding,) = grown.verify().findings
    assert finding.problem == "differs from the embeddings of the parts from row 0 on"
    assert grown.verify(repair=True).is_repaired
    assert grown.verify().findings == ()


def test_a_stale_search_side_is_a_note_and_no_damage(grown: ImageIndex) -> None:
    with writing(Store.open(grown.directory)) as writer:
        writer.commit([], removed=["new0.jpg"])
    report = grown.verify()
    assert report.is_whole
    [note] = report.notes
    assert note.shell == "the vector index is out of date: queries read the parts; vggsearch index updates it"
    assert not grown.verify(repair=True).findings
    assert grown.info().is_search_fresh


def test_leftovers_and_skipped_files_that_are_gone_are_notes(grown: ImageIndex, photos: Path) -> None:
    (grown.directory / "embeddings" / "part-000009.parquet").write_bytes(b"half of it")
    (photos / "bad.jpg").unlink()
    assert [note.shell for note in grown.verify().notes] == [
        "1 leftover files, 10 bytes: the next vggsearch index removes them",
        "1 skipped files no longer exist: the next vggsearch index forgets them",
    ]
    grown.verify(repair=True)
    assert len(parts_of(grown)) == 2


def test_a_damaged_list_of_skipped_files_is_dropped_and_the_files_are_tried_again(grown: ImageIndex) -> None:
    flip(grown.directory / "skipped.parquet", 0.2)
    with pytest.raises(IndexDamaged, match=r"skipped.parquet has sha256 .*vggsearch.verify\(INDEX, repair=True\)"):
        grown.skipped()
    (finding,) = grown.verify().findings
    assert finding.file == "skipped.parquet"
    assert grown.verify(repair=True).photos == 8
    assert grown.skipped() == ()
    assert [row.path for row in grown.update().newly_skipped] == ["bad.jpg"]
    assert grown.verify().findings == ()


def broken_row(path: str, value: float) -> Embedded:
    vector = photo(path).embedding.copy()
    vector[3] = value
    return replace(photo(path), embedding=vector)


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (0.5, "1.1"), (-60000.0, "6e")])
def test_embeddings_that_are_no_unit_vectors_are_dropped_alone(tmp_path: Path, value: float, shown: str) -> None:
    made(tmp_path / "x", [photo("a.jpg"), broken_row("b.jpg", value), photo("c.jpg", 2)])
    (finding,) = verify(tmp_path / "x").findings
    assert finding.photos == ("b.jpg",)
    assert f"has 1 embeddings that are not of unit length (row 1: {shown}" in finding.problem
    assert verify(tmp_path / "x", repair=True).photos == 2
    assert Store.open(tmp_path / "x").paths() == ["a.jpg", "c.jpg"]
    assert verify(tmp_path / "x").findings == ()


def rewritten(directory: Path, change: Callable[[Manifest], Manifest]) -> None:
    write_manifest(directory, change(Store.open(directory).manifest))


def test_a_photo_that_lives_twice_is_kept_once_the_newer(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg"), photo("b.jpg", 1)], [photo("c.jpg", 2)])
    with writing(store) as writer:
        writer.commit([photo("a.jpg", 7)])
    rewritten(
        tmp_path / "x", lambda old: replace(old, parts=tuple(replace(part, dead=DeadRows()) for part in old.parts))
    )
    (finding,) = verify(tmp_path / "x").findings
    assert (finding.file, finding.photos) == ("embeddings/part-000003.parquet", ("a.jpg",))
    verify(tmp_path / "x", repair=True)
    assert files_in(Store.open(tmp_path / "x"))["a.jpg"] == photo("a.jpg", 7).file
    assert verify(tmp_path / "x").findings == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda part: replace(part, rows=3), "has 2 rows, but the manifest says 3"),
        (lambda part: replace(part, dead=DeadRows.of([5])), "has 2 rows, but row 5 is listed as dead"),
        (lambda part: replace(part, sha256="0" * 64), "but the manifest says 000000000000..."),
    ],
)
def test_a_part_is_held_to_the_manifest(tmp_path: Path, change: Callable[[Part], Part], problem: str) -> None:
    made(tmp_path / "x", [photo("a.jpg"), photo("b.jpg", 1)])
    rewritten(tmp_path / "x", lambda old: replace(old, parts=(change(old.parts[0]),)))
    (finding,) = verify(tmp_path / "x").findings
    assert problem in finding.problem


def test_a_part_of_another_kind_of_embedding_is_found(tmp_path: Path) -> None:
    made(tmp_path / "x", [photo("a.jpg")])
    rewritten(tmp_path / "x", lambda old: replace(old, embedding=replace(old.embedding, sizes=(160,))))
    (finding,) = verify(tmp_path / "x").findings
    assert "holds embeddings of vgg16 pool4+pool5 spoc, 192" in finding.problem
    assert "not of vgg16 pool4+pool5 spoc, 160" in finding.problem


def test_a_file_that_is_both_indexed_and_skipped_is_found_unless_it_changed_since(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg"), photo("b.jpg", 1), photo("c.jpg", 2)])
    same, unreadable = photo("a.jpg").file, photo("c.jpg", 2).file
    skipped = {
        "a.jpg": Skipped("a.jpg", "broken", "broken", same.bytes, same.mtime_ns),
        "b.jpg": Skipped("b.jpg", "a link", "link"),
        "c.jpg": Skipped("c.jpg", "I/O error", "unreadable", unreadable.bytes, unreadable.mtime_ns),
    }
    with writing(store) as writer:
        writer.commit([], skipped=skipped)
    (finding,) = verify(tmp_path / "x").findings
    assert (finding.file, finding.photos) == ("skipped.parquet", ("a.jpg",))
    verify(tmp_path / "x", repair=True)
    assert Store.open(tmp_path / "x").paths() == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("damage", [Path.unlink, flip, lambda path: path.write_bytes(b"")])
def test_a_lost_manifest_is_rebuilt_from_the_parts(
    grown: ImageIndex, photos: Path, engine: FakeEngine, damage: Callable[[Path], object]
) -> None:
    save_photo(photos / "new0.jpg", 40)  # now two parts have it
    grown.update()
    rows = dict(zip(grown.paths(), np.concatenate(list(Store.open(grown.directory).embeddings())), strict=True))
    damage(grown.directory / "manifest.json")
    (finding,) = verify(grown.directory).findings
    assert finding.file == "manifest.json"
    assert "rebuilds it from the parts; photos deleted since are back" in finding.way_out.shell
    report = verify(grown.directory, repair=True)
    assert (report.is_repaired, report.photos, report.parts) == (True, 8, 3)
    assert verify(grown.directory).findings == ()
    with ImageIndex.open(grown.directory, engine=engine) as rebuilt:
        assert rebuilt.spec == grown.spec
        stored = np.concatenate(list(Store.open(rebuilt.directory).embeddings()))
        for path, row in zip(rebuilt.paths(), stored, strict=True):
            np.testing.assert_array_equal(row, rows[path])
        assert [row.path for row in rebuilt.skipped()] == ["bad.jpg"]
        assert rebuilt.root is None
        assert rebuilt.update(photos).indexed == 0


def test_a_rebuilt_manifest_leaves_out_parts_that_cannot_be_read(grown: ImageIndex) -> None:
    (grown.directory / "manifest.json").unlink()
    parts_of(grown)[0].write_bytes(b"nothing")
    report = verify(grown.directory, repair=True)
    assert [finding.file for finding in report.findings] == ["manifest.json", "embeddings/part-000001.parquet"]
    assert Store.open(grown.directory).paths() == ["new0.jpg", "new1.jpg"]
    assert len(parts_of(grown)) == 1


def test_a_part_that_names_another_spec_than_the_others_does_not_decide(grown: ImageIndex) -> None:
    spec, last = grown.spec, parts_of(grown)[1]
    (grown.directory / "manifest.json").unlink()
    table = pq.read_table(last)
    made = table.schema.metadata[b"vggsearch"]
    assert b'"sizes": [192]' in made
    pq.write_table(
        table.replace_schema_metadata({b"vggsearch": made.replace(b"[192]", b"[193]")}),
        last,
        write_page_checksum=True,
    )
    report = verify(grown.directory, repair=True)
    assert [finding.file for finding in report.findings] == ["manifest.json", "embeddings/part-000002.parquet"]
    assert "holds embeddings of another kind than vgg16" in report.findings[1].problem
    repaired = Store.open(grown.directory)
    assert (repaired.spec, len(repaired)) == (spec, 6)


def test_an_index_that_lost_its_manifest_is_not_overwritten(grown: ImageIndex, photos: Path) -> None:
    (grown.directory / "manifest.json").unlink()
    with pytest.raises(IndexExists, match=r"has embeddings, but no manifest.json. Rebuild it: vggsearch.verify"):
        ImageIndex.for_photos(photos, grown.directory)


def test_where_there_is_no_index_nothing_is_verified(tmp_path: Path) -> None:
    for repair in (False, True):
        with pytest.raises(IndexMissing, match="is not an index"):
            verify(tmp_path / "nowhere", repair=repair)
    assert not (tmp_path / "nowhere").exists()


def test_a_repair_waits_for_no_writer_and_a_check_does_not_mind_one(grown: ImageIndex) -> None:
    with writing(Store.open(grown.directory)):
        assert verify(grown.directory).is_whole
        with pytest.raises(IndexLocked):
            verify(grown.directory, repair=True)


def test_an_index_that_was_copied_is_whole(grown: ImageIndex, tmp_path: Path) -> None:
    shutil.copytree(grown.directory, tmp_path / "copy")
    assert verify(tmp_path / "copy").findings == ()


def test_the_manifest_can_be_checked_by_hand_as_the_format_page_says(grown: ImageIndex) -> None:
    import hashlib

    values = json.loads((grown.directory / "manifest.json").read_text())
    told = values.pop("sha256")
    assert hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == told
