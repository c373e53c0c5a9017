"""Every earlier format opens, returns what it did, and is converted to the current one when it is written to."""

import json
import shutil
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, save_photo
from tests.make_golden_index import DATA, SMALL_SPEC, answers
from vggsearch.errors import IndexDamaged, IndexFormatError
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.store.manifest import FORMAT, read_manifest
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

FORMATS = range(1, FORMAT + 1)


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the golden index of each format."""
    directory = tmp_path / f"format-{request.param}"
    shutil.copytree(DATA / directory.name, directory)
    return directory


def expected(golden: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((DATA / f"{golden.name}.json").read_text(encoding="utf-8"))
    return found


def number_of(golden: Path) -> int:
    return int(golden.name.removeprefix("format-"))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_same(found: dict[str, object], wanted: dict[str, object]) -> None:
    assert (found["paths"], found["skipped"]) == (wanted["paths"], wanted["skipped"])
    for (path, similarity), (wanted_path, wanted_similarity) in zip(found["query"], wanted["query"], strict=True):  # type: ignore[call-overload]
        assert path == wanted_path
        assert similarity == pytest.approx(wanted_similarity, abs=2e-3)  # decoders and resizing differ a little


def test_there_is_a_golden_index_of_every_format() -> None:
    assert {path.name for path in DATA.glob("format-*") if path.is_dir()} == {f"format-{n}" for n in FORMATS}
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 25_000 * len(FORMATS)


def test_photos_of_earlier_formats_have_no_perceptual_hash_and_go_without(golden: Path) -> None:
    with ImageIndex.open(golden, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        hashes = index.to_arrow().column("perceptual_hash")
        assert hashes.null_count == index.info().without_hash == (4 if number_of(golden) < 6 else 0)
        assert index.duplicates(confirm=False).photos == 4
    assert Store.open(golden).perceptual_hashes().any(axis=1).all() == (hashes.null_count == 0)


def test_photos_of_earlier_formats_have_no_camera_and_go_without(golden: Path) -> None:
    with ImageIndex.open(golden, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        photos = index.to_arrow()
        is_new = number_of(golden) >= 7
        for name in ("taken_kind", "camera"):
            assert photos.column(name).null_count == (1 if is_new else 4)
        assert index.duplicates(confirm=False, threshold=0.1).groups


def test_a_golden_index_returns_the_same_and_is_not_changed(golden: Path) -> None:
    before = snapshot(golden)
    with ImageIndex.open(golden, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        assert_same(answers(index), expected(golden))
        assert index.info().photos == 4
    assert verify(golden).findings == ()
    assert snapshot(golden) == before


def test_the_next_update_writes_the_current_format(golden: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_photo(photos / "new.jpg", 12, size=(64, 48))
    with ImageIndex.open(golden, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        report = index.update(photos, allow_empty=True)
    assert (report.indexed, report.gone) == (1, 4)
    assert json.loads((golden / "manifest.json").read_text())["format"] == FORMAT
    assert read_manifest(golden).fresh_vector_index is not None
    assert verify(golden).findings == ()


def test_an_unchanged_old_index_is_converted_without_the_network(golden: Path, tmp_path: Path) -> None:
    engine = FakeEngine(SMALL_SPEC.dim)
    with ImageIndex.open(golden, engine=engine) as index:
        with writing(Store.open(index.directory)) as writer:
            writer.compact()
        assert_same(answers(index), expected(golden))
    assert json.loads((golden / "manifest.json").read_text())["format"] == FORMAT
    assert len(read_manifest(golden).parts) == 1
    assert engine.pictures == 1  # the query
    assert verify(golden).findings == ()


def test_a_newer_format_is_refused_with_advice_and_not_changed(golden: Path) -> None:
    manifest = golden / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": FORMAT + 1, "what": "ever"}))
    before = snapshot(golden)
    for attempt in (ImageIndex.open, verify):
        with pytest.raises(IndexFormatError, match=rf"format {FORMAT + 1}, .* formats 1 to {FORMAT}\. Upgrade"):
            attempt(golden)
    with pytest.raises(IndexFormatError):
        verify(golden, repair=True)
    assert {**snapshot(golden), "writer.lock": b""} == {**before, "writer.lock": b""}


def test_old_embeddings_have_one_size_and_no_mirroring(golden: Path) -> None:
    assert read_manifest(golden).embedding == SMALL_SPEC
    assert (SMALL_SPEC.sizes, SMALL_SPEC.mirror) == ((32,), False)


@pytest.mark.parametrize("format", FORMATS[1:])  # a part of format 1 does not record what computed it
def test_a_lost_manifest_is_rebuilt_from_the_parts_of_any_format(format: int, tmp_path: Path) -> None:
    shutil.copytree(DATA / f"format-{format}", tmp_path / "x")
    (tmp_path / "x" / "manifest.json").unlink()
    assert verify(tmp_path / "x", repair=True).is_repaired
    assert verify(tmp_path / "x").findings == ()
    manifest = read_manifest(tmp_path / "x")
    assert (manifest.embedding, manifest.format) == (SMALL_SPEC, FORMAT)
    assert len(manifest.parts) == 2


@pytest.mark.parametrize("format", [0, -1, None, "2", 1.5])
def test_a_missing_format_is_damage(golden: Path, format: object) -> None:
    manifest = golden / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": format}))
    with pytest.raises(IndexDamaged, match="its format is"):
        read_manifest(golden)


def test_a_later_manifest_is_not_accepted_as_format_1(tmp_path: Path) -> None:
    shutil.copytree(DATA / f"format-{FORMAT}", tmp_path / "x")
    manifest = tmp_path / "x" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 1'))
    with pytest.raises(IndexDamaged, match="checksum of a later format"):
        read_manifest(tmp_path / "x")
