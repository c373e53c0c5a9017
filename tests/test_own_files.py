"""No command deletes a file that it cannot prove is its own, whatever an index folder holds or leads to."""

import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fakes import FakeEngine, save_photo
from tests.helpers.removals import tree
from vggsearch.cli import cli
from vggsearch.errors import IndexLinked, IndexNotWritable
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.knn import files as knn_files
from vggsearch.store import own_files
from vggsearch.store.contents import (
    CACHES,
    DAMAGED_DECISIONS,
    DECISIONS,
    EMBEDDINGS,
    JOURNALS,
    LOCAL,
    LOCK,
    LOCK_HOLDER,
    MANIFEST,
    SEARCH_FOLDER,
    SEGMENT_FILES,
    VECTOR_INDEX_FILES,
)
from vggsearch.store.files import write_atomically
from vggsearch.store.lock import only_writer
from vggsearch.store.own_files import check_links

FOLDERS = (EMBEDDINGS, SEARCH_FOLDER, LOCAL, JOURNALS, f"{SEARCH_FOLDER}/000001", f"{LOCAL}/000001")
WRITERS = (["index", "photos"], ["build"], ["verify", "--repair"], ["verify"], ["query", "photos/summer/0.jpg"])


@pytest.fixture
def made(index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    """An index with everything in it that an index can have."""
    index.update(photos, local_features=True)
    (index.directory / JOURNALS).mkdir()
    monkeypatch.chdir(photos.parent)
    monkeypatch.setattr("vggsearch.query.session.load_engine", lambda *_: FakeEngine())
    return index


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of photos, some with names that an index has too."""
    folder = tmp_path / "precious"
    for name in ("a.jpg", "album/b.jpg", "000001/c.jpg", "000009/d.jpg", "part-000009.parquet/e.jpg"):
        save_photo(folder / name, 1)
    return folder


def run(words: list[str]) -> Result:
    return CliRunner().invoke(cli, words, prog_name="vggsearch")


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_link_in_place_of_a_folder_is_an_error_that_says_where_it_leads(
    made: ImageIndex, precious: Path, name: str, words: list[str]
) -> None:
    before = tree(precious)
    linked = made.directory / name
    shutil.rmtree(linked)
    linked.symlink_to(precious)
    done = run(words)
    assert done.exit_code == 1
    assert f"{name} is a symbolic link to {precious}." in done.stderr
    assert tree(precious) == before


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_link_that_is_named_as_the_index_is_the_folder_that_it_leads_to(
    made: ImageIndex, photos: Path, words: list[str]
) -> None:
    moved = photos.parent / "disk" / "elsewhere"  # as deep, since the photo folder is stored relative to the index
    moved.parent.mkdir()
    made.directory.rename(moved)
    made.directory.symlink_to(moved)
    done = run([*words, "--index", "indexes/photos"])
    assert done.exit_code == 0, done.output
    with ImageIndex.open("indexes/photos") as opened:
        assert (opened.root, len(opened), opened.verify().is_whole) == (photos, len(made), True)


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_link_to_the_photos_or_to_nothing_is_no_index(made: ImageIndex, photos: Path, words: list[str]) -> None:
    made.directory.rename(photos.parent / "elsewhere")
    before = tree(photos.parent)
    for target in (photos, photos.parent / "nothing"):
        made.directory.symlink_to(target)
        done = run([*words, "--index", "indexes/photos"])
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert tree(photos.parent) == before
        made.directory.unlink()


REPLACED = (*CACHES, DECISIONS, DAMAGED_DECISIONS, MANIFEST, "skipped.parquet", LOCK, LOCK_HOLDER)
FILES = (*REPLACED, f"{JOURNALS}/2026-01-01-000000.jsonl")
COMMANDS = (
    *WRITERS,
    ["info"],
    ["dups"],
    ["dups", "decide", "--keep", "photos/summer/0.jpg"],
    ["dups", "remove", "trash"],
)


@pytest.mark.parametrize("name", FILES)
def test_a_link_a_pipe_or_a_device_in_place_of_a_file_is_an_error_and_never_read(
    made: ImageIndex, tmp_path: Path, name: str
) -> None:
    path, target = made.directory / name, tmp_path / "target"
    target.write_bytes(path.read_bytes() if path.exists() else b"theirs")
    before = target.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    for words in COMMANDS:
        done = run(words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), words
        assert f"{name} is a symbolic link to {target}." in done.stderr
    assert target.read_bytes() == before
    path.unlink()
    os.mkfifo(path)
    for words in COMMANDS:
        done = run(words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), words
        assert f"{name} is a pipe, a socket or a device, not a file. Delete it." in done.stderr


def test_a_file_that_comes_and_goes_while_it_is_looked_at_is_no_damage(made: ImageIndex) -> None:
    holder, stop = made.directory / LOCK_HOLDER, threading.Event()

    def write_and_delete() -> None:
        while not stop.is_set():
            holder.write_text("process 1 on here")
            holder.unlink()

    writer = threading.Thread(target=write_and_delete)
    writer.start()
    try:
        for _ in range(1000):
            check_links(made.directory)
    finally:
        stop.set()
        writer.join()


def test_a_link_made_while_an_index_is_open_is_not_followed(made: ImageIndex, precious: Path) -> None:
    before = tree(precious)
    shutil.rmtree(made.directory / LOCAL)
    (made.directory / LOCAL).symlink_to(precious)
    with pytest.raises(IndexLinked):
        made.update()
    own_files.delete(made.directory, made.directory / LOCAL)
    with pytest.raises(NotADirectoryError):
        own_files.delete(made.directory, made.directory / LOCAL / "000001")
    assert own_files.leftovers(made.directory, ()) != []
    assert tree(precious) == before


def test_no_command_deletes_what_a_user_put_into_an_index(made: ImageIndex, photos: Path) -> None:
    mine = [
        *(f"{folder}/album/p.jpg" for folder in ("", EMBEDDINGS, SEARCH_FOLDER, LOCAL, f"{SEARCH_FOLDER}/000001")),
        *(f"{folder}/p.jpg" for folder in (EMBEDDINGS, SEARCH_FOLDER, LOCAL, f"{LOCAL}/000008", JOURNALS)),
        f"{EMBEDDINGS}/part-2025/p.jpg",
        f"{EMBEDDINGS}/part-000009.parquet.old",
        f"{SEARCH_FOLDER}/2025/index.faiss",
        f"{SEARCH_FOLDER}/000009.7.tmp/holiday/p.jpg",
        "notes.tmp",
        "notes.7.tmp",
        "pics.tmp/p.jpg",
        "manifest.json.backup.tmp",
    ]
    for name in mine:
        (made.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (made.directory / name).write_text("precious")
    for number, words in enumerate(WRITERS):
        save_photo(photos / f"{number}.jpg", 20 + number)
        run(words)
    assert run(["index", "photos", "--no-local-features", "--compact"]).exit_code == 0
    made.update(local_features=True)
    assert [name for name in mine if not (made.directory / name).is_file()] == []
    assert verify(made.directory).is_whole


def test_links_and_folders_with_the_names_of_our_files_stay(made: ImageIndex, precious: Path) -> None:
    names = (
        f"{EMBEDDINGS}/part-000099.parquet",
        "manifest.json.7.tmp",
        f"{SEARCH_FOLDER}/000001/edges.parquet.7.tmp",
    )
    for name in names:
        (made.directory / name).symlink_to(precious / "a.jpg")
    (made.directory / "skipped.parquet").unlink(missing_ok=True)
    (made.directory / "skipped.parquet").mkdir()
    made.update()
    assert all((made.directory / name).is_symlink() for name in names)
    assert (made.directory / "skipped.parquet").is_dir()


def test_the_files_of_killed_runs_are_deleted(made: ImageIndex) -> None:
    ours = [
        f"{EMBEDDINGS}/part-000077.parquet",
        f"{EMBEDDINGS}/part-000077.parquet.7.tmp",
        f"{SEARCH_FOLDER}/000077/index.faiss",
        f"{SEARCH_FOLDER}/000078.7.tmp/vectors.npy",
        f"{SEARCH_FOLDER}/000078.7.tmp/tmpab_12xyz/0/index.faiss",
        f"{SEARCH_FOLDER}/219841b73caa559b/index.faiss",
        f"{LOCAL}/000077/cells.npy",
        f"{LOCAL}/000078.7.tmp/keys.npy",
        "manifest.json.7.tmp",
        "decisions.jsonl.7.tmp",
        "skipped.parquet",
        LOCK_HOLDER,
    ]
    for name in ours:
        (made.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (made.directory / name).write_bytes(b"half of it")
    made.update()
    assert [name for name in ours if (made.directory / name).exists()] == []
    kept = {path.name for folder in (SEARCH_FOLDER, LOCAL) for path in (made.directory / folder).iterdir()}
    assert kept == {"000001"}


@pytest.mark.parametrize("name", [LOCK, LOCK_HOLDER])
def test_a_link_in_place_of_the_lock_does_not_cost_what_it_leads_to(
    made: ImageIndex, precious: Path, name: str
) -> None:
    before = tree(precious)
    (made.directory / name).unlink(missing_ok=True)
    (made.directory / name).symlink_to(precious / "a.jpg")
    with pytest.raises((IndexLinked, IndexNotWritable)), only_writer(made.directory):
        pass
    assert tree(precious) == before


def test_a_temporary_name_that_leads_elsewhere_is_not_written_through(
    made: ImageIndex, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(precious)
    monkeypatch.setattr("os.getpid", lambda: 7)
    (made.directory / f"{DECISIONS}.7.tmp").symlink_to(precious / "a.jpg")

    def write(path: Path) -> None:
        path.write_text("{}")

    with pytest.raises(IndexNotWritable, match="File exists"):
        write_atomically(made.directory / DECISIONS, write)
    assert tree(precious) == before


def test_deleting_without_descriptors_follows_no_link_either(
    made: ImageIndex, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "HAS_DESCRIPTORS", False)
    before = tree(precious)
    shutil.move(made.directory / SEARCH_FOLDER / "000001", made.directory / SEARCH_FOLDER / "000002")
    (made.directory / SEARCH_FOLDER / "000003").symlink_to(precious)
    own_files.delete(made.directory, made.directory / SEARCH_FOLDER / "000003")
    with pytest.raises(NotADirectoryError):
        own_files.delete(made.directory, made.directory / SEARCH_FOLDER / "000003" / "index.faiss")
    own_files.delete(made.directory, made.directory / SEARCH_FOLDER / "000002")
    assert [path.name for path in (made.directory / SEARCH_FOLDER).iterdir()] == ["000003"]
    assert tree(precious) == before


def test_the_names_of_the_vector_index_are_those_it_writes() -> None:
    names = ("INDEX_FILE", "VECTORS_FILE", "LIVE_FILE", "SLOTS_FILE", "WHITENING_FILE")
    assert tuple(getattr(knn_files, name) for name in names) == VECTOR_INDEX_FILES
    for name in ("index.faiss", "vectors.npy"):
        assert re.fullmatch(SEGMENT_FILES, knn_files.segment_file(name, 12))
        assert knn_files.segment_file(name, 0) == name
