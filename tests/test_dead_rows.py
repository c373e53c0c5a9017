"""Dead rows: a set of rows, listed in the manifest or held by a file, which may be lost."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from tests.helpers.known_files import files_in
from tests.test_store import photo
from vggsearch.errors import IndexDamaged
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import renew_vector_index
from vggsearch.indexing.integrity import verify
from vggsearch.progress import SILENT
from vggsearch.store import dead_rows, store
from vggsearch.store.contents import EMBEDDINGS, MANIFEST
from vggsearch.store.dead_rows import LISTED, DeadRows
from vggsearch.store.manifest import Manifest, checksum, read_manifest
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

MANY = 2 * LISTED
row_sets = st.sets(st.integers(0, 70))


def bitmaps(directory: Path) -> list[Path]:
    return sorted((directory / EMBEDDINGS).glob("dead-*"))


def written(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / MANIFEST).read_text())["parts"][0]
    return found


@pytest.fixture
def many_dead(tmp_path: Path) -> Store:
    """An index in which so many rows of its first part are dead that they are in a file."""
    made = Store.create(tmp_path / "x", FAKE_SPEC)
    with writing(made) as writer:
        writer.set_whitened(False)
        writer.commit([photo(f"{number:03}.jpg", number) for number in range(2 * MANY)])
        writer.commit([], removed=[f"{number:03}.jpg" for number in range(MANY)])
    return made


@given(one=row_sets, other=row_sets, count=st.integers(0, 80))
def test_dead_rows_are_a_set_of_rows(one: set[int], other: set[int], count: int) -> None:
    dead = DeadRows.of(one) | DeadRows.of(other)
    assert dead == DeadRows.of(one | other)
    assert (len(dead), dead.rows.tolist(), dead.last) == (
        len(one | other),
        sorted(one | other),
        max(one | other, default=-1),
    )
    assert dead.live(count).tolist() == [row not in one | other for row in range(count)]


def test_few_dead_rows_are_listed_and_many_are_in_a_file(tmp_path: Path) -> None:
    made = Store.create(tmp_path / "x", FAKE_SPEC)
    paths = [f"{number:03}.jpg" for number in range(MANY)]
    with writing(made) as writer:
        writer.commit([photo(path, number) for number, path in enumerate(paths)])
        writer.commit([], removed=paths[:LISTED])
        assert (written(made.directory)["dead"], bitmaps(made.directory)) == (list(range(LISTED)), [])
        writer.commit([], removed=[paths[LISTED]])
    assert written(made.directory)["dead"] == []
    assert len(bitmaps(made.directory)) == 1
    reopened = Store.open(made.directory)
    assert reopened.paths() == paths[LISTED + 1 :]
    assert reopened.manifest == made.manifest
    assert verify(made.directory).findings == ()


def test_the_files_of_earlier_states_are_removed_unless_a_vector_index_was_made_of_them(many_dead: Store) -> None:
    with writing(many_dead) as writer:
        renew_vector_index(many_dead, writer, SILENT)
        before = bitmaps(many_dead.directory)
        for number in range(MANY, MANY + 2):
            writer.commit([], removed=[f"{number:03}.jpg"])
    assert len(bitmaps(many_dead.directory)) == 3
    with writing(many_dead) as writer:
        assert set(before) < set(bitmaps(many_dead.directory))
        assert len(bitmaps(many_dead.directory)) == 2
        renew_vector_index(many_dead, writer, SILENT)
    assert len(bitmaps(many_dead.directory)) == 1
    assert verify(many_dead.directory).findings == ()


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, flipped])
def test_a_lost_file_of_dead_rows_is_told_and_a_repair_keeps_the_newest_row_of_each_photo(
    index: ImageIndex,
    photos: Path,
    engine: FakeEngine,
    damage: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_rows, "LISTED", 0)
    for seed in range(20, 26):
        save_photo(photos / f"{seed}.jpg", seed)
    index.update()
    gone, changed, *_ = sorted(index.paths())
    (photos / gone).unlink()
    save_photo(photos / changed, seed=50, size=(80, 64))
    index.update()
    right, root = files_in(index._store), index.root
    with writing(index._store):
        [file] = bitmaps(index.directory)
    damage(file)
    with pytest.raises(IndexDamaged, match=file.name):
        Store.open(index.directory)
    (finding,) = verify(index.directory).findings
    assert (finding.file, finding.is_repaired) == (f"{EMBEDDINGS}/{file.name}", False)
    assert "photos deleted since are back until the next" in str(
        verify(index.directory, repair=True).findings[0].way_out
    )
    assert verify(index.directory).findings == ()
    found = files_in(Store.open(index.directory))
    assert {path: found[path] for path in right} == right
    assert set(found) - set(right) == {gone}
    assert index.root == root
    before = engine.pictures
    report = index.update()
    assert (report.indexed, report.gone, engine.pictures) == (0, 1, before)
    assert files_in(index._store) == right


def test_a_reader_that_meets_a_commit_reads_the_newer_state(
    many_dead: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_after_a_commit(directory: Path) -> Manifest:
        monkeypatch.setattr(store, "read_manifest", read_manifest)
        old = (directory / MANIFEST).read_bytes()
        with writing(many_dead) as writer:
            writer.commit([], removed=[f"{MANY:03}.jpg"])
        with writing(many_dead):  # removes the file of the state before
            new = (directory / MANIFEST).read_bytes()
        try:
            (directory / MANIFEST).write_bytes(old)
            return read_manifest(directory)
        finally:
            (directory / MANIFEST).write_bytes(new)

    monkeypatch.setattr(store, "read_manifest", read_after_a_commit)
    assert len(Store.open(many_dead.directory)) == MANY - 1


def test_a_vector_index_of_format_8_stays_in_use(many_dead: Store) -> None:
    with writing(many_dead) as writer:
        renew_vector_index(many_dead, writer, SILENT)
    manifest = many_dead.manifest
    path = many_dead.directory / MANIFEST
    values = json.loads(path.read_text())
    for part in (*values["parts"], *values["search"]["made_from"]):
        del part["dead_file"]
        part["dead"] = list(range(MANY))
    listed = [[part["name"], part["sha256"], part["dead"]] for part in values["parts"]]
    state = json.dumps([asdict(manifest.embedding), listed])
    values["search"]["fingerprint"] = hashlib.sha256(state.encode()).hexdigest()
    values["format"] = 8
    path.write_text(json.dumps({**values, "sha256": checksum(values)}))
    assert read_manifest(many_dead.directory) == manifest
    assert manifest.fresh_vector_index is not None


@pytest.mark.parametrize("rows", [[-1], [10**30], ["1"], [True], {"0": 1}, [dead_rows.MOST_ROWS]])
def test_rows_that_no_part_has_are_damage(many_dead: Store, rows: object) -> None:
    path = many_dead.directory / MANIFEST
    values = json.loads(path.read_text())
    values["parts"][0] |= {"dead": rows, "dead_file": None}
    path.write_text(json.dumps({**values, "sha256": checksum(values)}))
    with pytest.raises(IndexDamaged, match="is damaged"):
        read_manifest(many_dead.directory)
