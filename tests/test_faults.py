"""Full disks, read-only disks and missing permissions: a one-line message, and the index is unchanged."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine, picture, save_photo
from tests.helpers.disks import IS_ROOT, mount
from tests.make_golden_index import SMALL_SPEC
from tests.test_store import made, photo
from vggsearch.cli import cli
from vggsearch.errors import IndexNotReadable, IndexNotWritable, PhotosError
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import build_vector_index
from vggsearch.indexing.integrity import verify
from vggsearch.knn.faiss_import import faiss
from vggsearch.photos.walk import Skipped
from vggsearch.store.store import Store
from vggsearch.store.writer import writing


def make_index(directory: Path, photos: Path) -> None:
    for seed in range(6):
        save_photo(photos / f"{seed}.jpg", seed, size=(64, 48))
    Store.create(directory, SMALL_SPEC)
    update(directory, photos)


def update(directory: Path, photos: Path) -> None:
    with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        index.update(photos, compact=True)


def change(photos: Path) -> None:
    """Give an update everything to do: new, removed and skipped photos."""
    for seed in range(10, 30):
        save_photo(photos / f"{seed}.jpg", seed, size=(64, 48))
    (photos / "0.jpg").unlink()
    (photos / "bad.jpg").write_bytes(b"")


def content(directory: Path) -> tuple[list[str], bytes, list[str], object]:
    with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        numbers = np.concatenate(list(Store.open(index.directory).embeddings()))
        skipped = [row.path for row in index.skipped()]
        # Not re-ranked, which compares the files as they are now.
        matches = index.query(picture(2), count=5, rerank=False).matches
        return index.paths(), numbers.tobytes(), skipped, matches


def message_of(write: Callable[[], None]) -> str | None:
    """Return the message if writing is refused, else None."""
    try:
        write()
    except IndexNotWritable as error:
        return str(error)
    return None


@pytest.mark.parametrize("free", range(0, 120, 24))
def test_a_full_disk_leaves_the_index_unchanged_or_finished(small_disk: Path, tmp_path: Path, free: int) -> None:
    directory, photos = small_disk / "index", tmp_path / "photos"
    make_index(directory, photos)
    before = content(directory)
    change(photos)
    with (small_disk / "filler").open("wb") as filler:
        room = os.statvfs(small_disk)
        filler.write(bytes(max(0, room.f_bavail * room.f_frsize - free * 1024)))
    message = message_of(lambda: update(directory, photos))
    if message is None:
        assert free > 30
    else:
        assert message.startswith(str(directory))
        assert "No space left on device" in message or "is the disk full?" in message
        assert "\n" not in message
    after = content(directory)
    assert after == before or len(after[0]) == 25  # nothing or everything was committed, and both are intact
    assert verify(directory).findings == ()
    (small_disk / "filler").unlink()
    update(directory, photos)
    assert len(content(directory)[0]) == 25
    assert verify(directory).findings == ()
    assert not [path for path in directory.rglob("*") if path.name.endswith(".tmp")]


@dataclass
class Failing:
    """Makes the n-th call fail, counted over all wrapped functions."""

    fails_at: int
    number: int
    calls: int = 0

    def wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.calls += 1
            if self.calls == self.fails_at:
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **named)

        return call


def write_all(directory: Path) -> None:
    """Write every kind of file: add, remove and skip photos, merge parts, and rebuild the vector index."""
    store = Store.open(directory)
    with writing(store) as writer:
        writer.set_root(directory.parent / "elsewhere")
        skipped = {"bad.jpg": Skipped("bad.jpg", "empty", "broken")}
        writer.commit([photo("new.jpg", 9)], removed=["0.jpg"], skipped=skipped)
        writer.compact()
        build_vector_index(store, writer)


def rows(directory: Path) -> list[dict[str, object]]:
    store = Store.open(directory)
    return [
        row
        for part in store.manifest.parts
        for row in store.read_part(part).take(store.live_rows(part)).to_pylist()
    ]


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (errno.EROFS, errno.EACCES, errno.EIO)),
    ],
)
def test_any_step_of_writing_may_fail(tmp_path: Path, number: int) -> None:
    """Let each call that writes fail in turn, until there are no more calls."""
    original = tmp_path / "original"
    store = made(original, [photo(f"{seed}.jpg", seed) for seed in range(4)])
    with writing(store) as writer:
        writer.commit([], skipped={"old.txt": Skipped("old.txt", "text", "not a picture")})
        build_vector_index(store, writer)
    before = rows(original)
    for fails_at in range(1, 100):
        directory = tmp_path / f"index{fails_at}"
        shutil.copytree(original, directory)
        failing = Failing(fails_at, number)
        with pytest.MonkeyPatch.context() as patched:
            for owner, name in (
                (os, "fsync"),
                (os, "replace"),
                (pq, "write_table"),
                (np, "save"),
                (Path, "write_text"),
                (faiss(), "write_index"),
            ):
                patched.setattr(owner, name, failing.wrap(getattr(owner, name)))
            message = message_of(lambda: write_all(directory))  # noqa: B023
        if message is None:
            break
        assert "\n" not in message
        assert rows(directory) == before or Store.open(directory).paths() == ["1.jpg", "2.jpg", "3.jpg", "new.jpg"]
        assert len(Store.open(directory).skipped()) == 1
        assert verify(directory).findings == ()
        write_all(directory)
        assert Store.open(directory).paths() == ["1.jpg", "2.jpg", "3.jpg", "new.jpg"]
        assert list(Store.open(directory).skipped()) == ["bad.jpg"]
        assert verify(directory).findings == ()
        assert not Store.open(directory).leftovers()
    assert 20 < fails_at < 60


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A read-only index; on a read-only mount for root, whom permissions do not stop."""
    directory = tmp_path / "index"
    make_index(directory, tmp_path / "photos")
    if IS_ROOT:
        mount("--bind", str(directory), str(directory))
        mount("-o", "remount,ro,bind", str(directory))
        yield directory
        subprocess.run(["umount", "--lazy", directory], check=True)
        return
    folders = [directory, *(path for path in directory.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield directory
    for folder in folders:
        folder.chmod(0o755)


def test_a_read_only_index_can_be_queried_but_not_changed(read_only: Path, tmp_path: Path) -> None:
    before = content(read_only)
    assert len(before[0]) == 6
    assert verify(read_only).is_whole
    shown = CliRunner().invoke(cli, ["info", "--index", str(read_only)])
    assert shown.exit_code == 0
    change(tmp_path / "photos")
    for write in (lambda: update(read_only, tmp_path / "photos"), lambda: verify(read_only, repair=True)):
        with pytest.raises(IndexNotWritable, match=r"index cannot be written \((Read-only|Permission)") as raised:
            write()
        assert "\n" not in str(raised.value)
    assert content(read_only) == before


def test_the_command_reports_a_read_only_index_in_one_line(read_only: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["index", str(tmp_path / "photos"), "--index", str(read_only)])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr


def test_a_path_that_is_too_long_is_reported_in_one_line(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg", 0)
    for name in ("n" * 300, "/".join(["n" * 200] * 30)):
        done = CliRunner().invoke(cli, ["index", str(tmp_path / "photos"), "--index", str(tmp_path / name)])
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
        assert "File name too long" in done.stderr


def test_an_index_below_a_file_is_reported_in_one_line(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg", 0)
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(cli, ["index", str(tmp_path / "photos"), "--index", str(tmp_path / "taken" / "x")])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "Not a directory" in done.stderr


def test_a_photo_folder_whose_name_is_not_utf_8_or_has_a_newline(tmp_path: Path) -> None:
    photos = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\nphotos"))
    make_index(tmp_path / "index", photos)
    assert verify(tmp_path / "index").findings == ()
    with ImageIndex.open(tmp_path / "index", engine=FakeEngine(SMALL_SPEC.dim)) as index:
        assert index.root == photos
        assert index.update().unchanged == 6


def test_a_folder_under_another_name_is_the_same_folder(tmp_path: Path) -> None:
    """As on a case-insensitive file system, with Photos and photos; here a bind mount gives the second name."""
    make_index(tmp_path / "index", tmp_path / "photos")
    (tmp_path / "PHOTOS").mkdir()
    with ImageIndex.open(tmp_path / "index", engine=FakeEngine(SMALL_SPEC.dim)) as index:
        with pytest.raises(PhotosError, match="not of"):
            index.update(tmp_path / "PHOTOS")
        if not IS_ROOT:
            pytest.skip("only root may mount a folder")
        mount("--bind", str(tmp_path / "photos"), str(tmp_path / "PHOTOS"))
        try:
            assert index.update(tmp_path / "PHOTOS").unchanged == 6
        finally:
            subprocess.run(["umount", "--lazy", tmp_path / "PHOTOS"], check=True)


def failing_reads(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Make reading files of this name fail, although they exist."""
    real = Path.open

    def open_(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", open_)


@pytest.mark.parametrize("name", ["manifest.json", "part-000001.parquet", "skipped.parquet", "index.faiss"])
def test_an_unmounted_disk_is_no_damage_and_repair_drops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_index(tmp_path / "index", tmp_path / "photos")
    change(tmp_path / "photos")
    update(tmp_path / "index", tmp_path / "photos")
    name = "part-000003.parquet" if name.startswith("part") else name
    before = content(tmp_path / "index")
    for number in (errno.EACCES, errno.ESTALE, errno.ETIMEDOUT):
        with monkeypatch.context() as patched:
            failing_reads(patched, name, number)
            for repair in (False, True):
                with pytest.raises(IndexNotReadable, match=rf"{name} cannot be read \({os.strerror(number)}\)"):
                    verify(tmp_path / "index", repair=repair)
    assert content(tmp_path / "index") == before
    assert verify(tmp_path / "index").findings == ()


def test_a_bad_sector_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_index(tmp_path / "index", tmp_path / "photos")
    failing_reads(monkeypatch, "part-000001.parquet", errno.EIO)
    (finding,) = verify(tmp_path / "index").findings
    assert "is damaged ([Errno 5] Input/output error" in finding.problem
    assert len(finding.photos) == 6
