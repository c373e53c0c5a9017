"""Stored local features: as good as computed ones, shared by content, checked for damage, used by `containing`."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from vggsearch.cli import cli
from vggsearch.defaults import EXTRACT
from vggsearch.errors import IndexDamaged, OptionError, Stopped
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.local_features import from_store, most_by_default, to_store
from vggsearch.matching.evidence import COPY
from vggsearch.matching.feature_maps import encode
from vggsearch.matching.regions import best_similarities, query_vectors, region_vectors
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.progress import Progress
from vggsearch.store.contents import LOCAL, STAMPS
from vggsearch.store.local_features import CELLS, REGIONS, StoredFeatures
from vggsearch.store.store import Store
from vggsearch.store.writer import StoreWriter, writing


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        save_photo(tmp_path / "photos" / f"{seed}.png", seed)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    Store.create(tmp_path / "index", FAKE_SPEC)
    return ImageIndex.open(tmp_path / "index", engine=FakeEngine())


def kept(index: ImageIndex) -> int:
    return sum(part.rows for part in Store.open(index.directory).manifest.local)


def tamper(path: Path, index: ImageIndex) -> None:
    """Change a byte, but neither size nor time, and lose the stamps, so that only the hash differs."""
    (index.directory / STAMPS).unlink(missing_ok=True)
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_stored_cells_are_nearly_the_computed_ones() -> None:
    random = np.random.default_rng(0)
    made = random.standard_normal((12, 12, 8)).astype(np.float32)
    made /= np.linalg.norm(made, axis=-1, keepdims=True)
    stored = to_store(made)
    assert stored.cells.nbytes == 144 * 8
    assert stored.regions.shape == (30, 8)
    found = from_store(stored, 12)
    assert found.shape == made.shape
    assert (found * made).sum(axis=-1).min() > 0.999


def test_region_vectors_are_means_of_their_cells() -> None:
    cells = np.random.default_rng(1).standard_normal((12, 12, 4)).astype(np.float32)
    vectors = region_vectors(cells)
    whole = cells.mean(axis=(0, 1))
    np.testing.assert_allclose(vectors[0], whole / np.linalg.norm(whole), atol=1e-6)
    corner = cells[:8, :8].mean(axis=(0, 1))
    np.testing.assert_allclose(vectors[1], corner / np.linalg.norm(corner), atol=1e-6)
    parts = query_vectors([cells[8:, 8:], cells[:8, :8]])
    regions = np.stack([encode(vectors), encode(-vectors)])
    expected = (vectors @ parts.T).max(), (-vectors @ parts.T).max()
    np.testing.assert_allclose(best_similarities(parts, regions), expected, atol=0.01)


def test_queries_are_re_ranked_alike_with_and_without_stored_features(index: ImageIndex, photos: Path) -> None:
    index.update(photos)
    query = Image.open(photos / "3.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    made = index.query(query, 6).matches
    index.update(local_features=True)
    assert kept(index) == 6
    found = index.query(query, 6).matches
    similarities = {match.path: match.similarity for match in made}
    assert {match.path: match.similarity for match in found} == pytest.approx(similarities, abs=0.01)
    assert found[0].alignment is not None
    assert found[0].alignment.mirrored


def test_one_pass_of_the_network_gives_embeddings_and_local_features(
    index: ImageIndex, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "0.png", photos / "copy of 0.png")
    index.update(photos, local_features=True)
    engine = FakeEngine(batch_size=4)
    with ImageIndex.create(tmp_path / "later", engine=engine) as later:
        later.update(photos, local_features=False)
        embedded = engine.pictures
        later.update(local_features=True)
        assert engine.pictures == 2 * embedded
        np.testing.assert_array_equal(index.embeddings(), later.embeddings())
        assert features_of(index).keys() == features_of(later).keys()
        for one, other in zip(features_of(index).values(), features_of(later).values(), strict=True):
            np.testing.assert_array_equal(one.cells, other.cells)
            np.testing.assert_array_equal(one.regions, other.regions)
    with ImageIndex.create(tmp_path / "once", engine=(once := FakeEngine(batch_size=4))) as made:
        made.update(photos, local_features=True)
        assert (once.pictures, kept(made)) == (embedded, 6)
        save_photo(photos / "new.png", 50)
        made.update()
        assert (once.pictures, kept(made)) == (embedded + 1, 7)


def features_of(index: ImageIndex) -> dict[str, StoredFeatures]:
    store = index._store.read_consistently(lambda store: store.local())
    return dict(sorted(store.features(store.all_keys())))


def test_with_stored_features_re_ranking_needs_no_photo(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    query = Image.open(photos / "3.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    before = index.query(query, 6).matches
    shutil.move(photos, photos.with_name("elsewhere"))
    after = index.query(query, 6).matches
    assert after[0].path == before[0].path == "3.png"
    assert after[0].alignment is not None
    assert after[0].alignment.mirrored
    assert all((match.confidence or 0) < COPY for match in after)  # only a comparison of the photos makes certain


def test_features_follow_a_renamed_photo_and_are_computed_once_for_copies(index: ImageIndex, photos: Path) -> None:
    shutil.copy(photos / "0.png", photos / "copy.png")
    index.update(photos, local_features=True)
    assert kept(index) == 6
    engine = index.engine
    assert isinstance(engine, FakeEngine)
    seen = engine.pictures
    (photos / "1.png").rename(photos / "renamed.png")
    index.update()
    assert engine.pictures == seen
    assert kept(index) == 6


def test_features_of_removed_photos_are_deleted_once_they_are_many(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    (photos / "0.png").unlink()
    index.update()
    assert kept(index) == 6, "one of six is not worth it"
    (photos / "1.png").unlink()
    index.update()
    assert kept(index) == 4
    assert len(list((index.directory / LOCAL).iterdir())) == 1
    assert index.query(photos / "2.png", 1).matches[0].path == "2.png"


def test_damaged_features_get_no_new_hash_when_folders_are_compacted(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    [folder] = (index.directory / LOCAL).iterdir()
    data = bytearray((folder / CELLS).read_bytes())
    data[-3] ^= 0x40
    (folder / CELLS).write_bytes(data)
    for seed in range(3):
        (photos / f"{seed}.png").unlink()
    index.update()
    assert [path.name for path in (index.directory / LOCAL).iterdir()] == [folder.name]
    [finding] = index.verify().findings
    assert "sha256" in finding.problem


def test_folders_are_compacted_even_if_as_many_photos_have_no_features(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    for seed in range(6, 9):
        save_photo(photos / f"{seed}.png", seed)
    index.update(local_features=False)
    for seed in range(6, 9):
        tamper(photos / f"{seed}.png", index)
    index.update(local_features=True)
    assert (kept(index), len(index)) == (6, 9)
    for seed in range(3):
        (photos / f"{seed}.png").unlink()
    index.update()
    assert (kept(index), len(index)) == (3, 6)


def test_leftovers_of_a_killed_run_are_removed(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    (index.directory / LOCAL / "000007").mkdir()
    index.update()
    assert [path.name for path in (index.directory / LOCAL).iterdir()] == ["000001"]
    assert index.info().local_features == 6


def test_features_are_removed_when_the_option_is_switched_off(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    index.update(local_features=False)
    assert kept(index) == 0
    assert not list((index.directory / LOCAL).iterdir())


def test_a_stopped_run_keeps_what_it_computed(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.update(photos)
    engine = index.engine
    engine.batch_size = 2
    told: list[Progress] = []
    with pytest.raises(Stopped):
        index.update(local_features=True, progress=told.append, stop=lambda: len(told) >= 2)
    assert kept(index) == 4
    monkeypatch.setattr("vggsearch.indexing.local_features.ROWS", 1)
    index.update()
    assert kept(index) == 6


def test_a_photo_that_changed_since_indexing_gets_no_features(index: ImageIndex, photos: Path) -> None:
    index.update(photos)
    tamper(photos / "2.png", index)
    index.update(local_features=True)
    assert kept(index) == 5


@pytest.mark.parametrize("name", [CELLS, REGIONS, "keys.npy"])
def test_every_flipped_byte_is_reported_and_repaired(index: ImageIndex, photos: Path, name: str) -> None:
    index.update(photos, local_features=True)
    [folder] = (index.directory / LOCAL).iterdir()
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 0x40
    (folder / name).write_bytes(data)
    [finding] = index.verify().findings
    assert "local/000001" in finding.file
    assert index.verify(repair=True).is_whole
    assert kept(index) == 0
    index.update()
    assert kept(index) == 6
    assert index.verify().is_whole


def test_truncated_features_are_recomputed_from_the_photos(
    index: ImageIndex, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.update(photos, local_features=True)
    [folder] = (index.directory / LOCAL).iterdir()
    os.truncate(folder / CELLS, 500)
    query = Image.open(photos / "3.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert index.query(query, 2).matches[0].alignment is not None
    assert "cells.npy has 500 bytes" in caplog.text


def test_containing_needs_stored_features(index: ImageIndex, photos: Path) -> None:
    index.update(photos)
    with pytest.raises(OptionError, match=r"index\.update\(local_features=True\)$") as refused:
        index.query(photos / "1.png", containing=True)
    assert "--local-features" in refused.value.for_shell()


def test_containing_works_without_re_ranking_and_never_finds_blank_photos(index: ImageIndex, photos: Path) -> None:
    Image.new("RGB", (320, 240), (127, 128, 128)).save(photos / "blank.png")
    index.update(photos, local_features=True)
    assert kept(index) == 7
    photo = Image.open(photos / "2.png")
    for verify in (True, False):
        found = index.query(photo.crop((0, 0, 160, 120)), 10, containing=True, rerank=verify).matches
        assert {match.path for match in found} == {f"{seed}.png" for seed in range(6)}
        assert verify or all(match.alignment is None for match in found)


def test_containing_finds_nothing_where_only_removed_photos_have_features(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.update(photos, local_features=True)
    for path in photos.iterdir():
        path.unlink()
    save_photo(photos / "new.png", 20)
    monkeypatch.setattr("vggsearch.indexing.update.keep_local_features", lambda *_, **__: None)
    monkeypatch.setattr(StoreWriter, "add_local", lambda *_: None)
    index.update(allow_empty=True)
    assert index.paths() == ["new.png"]
    assert kept(index) == 6
    assert index.query(photos / "new.png", containing=True).matches == ()


@pytest.mark.network
def test_a_detail_finds_the_photo_that_contains_it(sample_photos: Path, tmp_path: Path) -> None:
    with ImageIndex.create(tmp_path / "index") as index:
        index.update(sample_photos / "originals", local_features=True)
    photo = Image.open(sample_photos / "originals" / "astronaut.jpg").convert("RGB")
    width, height = photo.size
    photo.crop((width // 8, height // 8, width // 8 + width // 3, height // 8 + height // 3)).save(
        tmp_path / "part.png"
    )
    arguments = ["query", str(tmp_path / "part.png"), "--containing", "-k", "2", "--index", str(tmp_path / "index")]
    done = CliRunner().invoke(cli, [*arguments, "--format", "paths"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].endswith("astronaut.jpg")


def test_a_new_index_keeps_local_features_unless_they_are_many(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ImageIndex.create(tmp_path / "usual", engine=FakeEngine()) as index:
        index.update(photos)
        facts = index.info()
        assert (facts.local_features, facts.local_features_by_default) == (6, 100_000)
        index.update(local_features=False)
        index.update()
        assert kept(index) == 0
    monkeypatch.setattr("vggsearch.indexing.local_features.EXTRACT", replace(EXTRACT, local_bytes=5 * 11_136))
    with ImageIndex.create(tmp_path / "many", engine=FakeEngine()) as many:
        many.update(photos)
        assert kept(many) == 0
        for path in sorted(photos.iterdir())[1:]:
            path.unlink()
        many.update()
        assert kept(many) == 0, "decided when the index was new"
    with ImageIndex.create(tmp_path / "few", engine=FakeEngine()) as few:
        few.update(photos)
        assert kept(few) == 1


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (EmbeddingOptions(), 100_000),
        (EmbeddingOptions(model="vgg16_half"), 100_000),
        (EmbeddingOptions(size="384"), 28_712),
        (EmbeddingOptions(layer="pool4"), 0),  # the maps with the cells come later
    ],
)
def test_local_features_are_kept_unasked_while_they_cost_little(options: EmbeddingOptions, most: int) -> None:
    spec, _ = options.resolve()
    assert most_by_default(spec) == most
    assert most_by_default(replace(spec, weights_sha256="0" * 64)) == 0, "of all 512 channels"


def test_cells_of_an_earlier_version_are_read_without_those_of_half_the_size(
    index: ImageIndex, photos: Path
) -> None:
    index.update(photos, local_features=True)
    before = features_of(index)
    query = Image.open(photos / "3.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = index.query(query, 6).matches
    earlier = {
        key: StoredFeatures(np.concatenate([found.cells, np.ones(36 * 12, np.int8)]), found.regions)
        for key, found in before.items()
    }
    with writing(Store.open(index.directory)) as writer:
        writer.set_local(False)
        writer.set_local(True)
        writer.add_local(earlier)
    save_photo(photos / "new.png", 50)
    index.update(compact=True)
    found = features_of(index)
    assert len(found) == 7
    for key, its in before.items():
        np.testing.assert_array_equal(found[key].cells, its.cells)
    (photos / "new.png").unlink()
    index.update()
    assert index.query(query, 6).matches == expected


def test_too_few_cells_are_damage(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    short = {key: StoredFeatures(found.cells[:-1], found.regions) for key, found in features_of(index).items()}
    with writing(Store.open(index.directory)) as writer:
        writer.set_local(False)
        writer.set_local(True)
        writer.add_local(short)
    with pytest.raises(IndexDamaged, match=r"cells\.npy .*a photo has 144 cells of 12 numbers"):
        features_of(index)


def test_features_are_found_without_reading_what_other_photos_have(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    [first] = Store.open(index.directory).manifest.local
    save_photo(photos / "new.png", 50)
    index.update()
    store = Store.open(index.directory)
    [other] = [part for part in store.manifest.local if part != first]
    (index.directory / LOCAL / other.name / CELLS).write_bytes(b"damaged")
    keys = store.array("sha256").tolist()
    of_first = [key for key in keys if key.encode() in store.local().keys(first)]
    assert all(store.local().find(of_first))
    with pytest.raises(IndexDamaged, match="cells"):
        store.local().find(keys)
