"""Concurrent readers and writers of one index, each in its own process."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from filelock import FileLock

from tests.fakes import FAKE_SPEC, FakeEngine, picture, save_photo
from tests.make_golden_index import SMALL_SPEC
from tests.test_store import made, photo
from vggsearch.defaults import COMPACT
from vggsearch.errors import IndexDamaged, IndexLocked, SpecMismatch
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import build_vector_index
from vggsearch.indexing.integrity import verify
from vggsearch.photos.resize import square
from vggsearch.photos.walk import Skipped
from vggsearch.store import compaction
from vggsearch.store.contents import LOCK, LOCK_HOLDER, MANIFEST
from vggsearch.store.records import Embedded
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

CONTEXT = multiprocessing.get_context("spawn")
HELD = 5  # photos in every state that is committed
ROUNDS = 40
KILLS = 20


def embedded(number: int) -> Embedded:
    """Return the photo of this number with the embedding of the fake engine, so that a query finds it."""
    pixels = square(picture(number), SMALL_SPEC.size, SMALL_SPEC.resize)
    embedding = FakeEngine(SMALL_SPEC.dim).embed(pixels[None])[0]
    return replace(photo(f"{number}.jpg", number), is_blank=False, embedding=embedding)


def skipped_until(number: int) -> dict[str, Skipped]:
    return {f"{at}.txt": Skipped(f"{at}.txt", "text", "not a picture") for at in range(number + 1)}


def make_five(directory: Path) -> Store:
    store = Store.create(directory, SMALL_SPEC)
    with writing(store) as writer:
        writer.commit([embedded(number) for number in range(HELD)], skipped=skipped_until(HELD - 1))
        build_vector_index(store, writer)
    return store


def keep_moving(directory: Path, ready: "multiprocessing.synchronize.Event") -> None:
    """Repeatedly replace the oldest of five photos by a new one, and merge parts often."""
    setattr(compaction, "COMPACT", replace(COMPACT, spare_parts=3))  # noqa: B010
    store = Store.open(directory)
    start = check_one_state(store.paths()) + 1
    ready.set()
    for number in range(start, start + ROUNDS):
        with writing(store) as writer:
            writer.commit([embedded(number)], removed=[f"{number - HELD}.jpg"], skipped=skipped_until(number))
            writer.compact(only_if_due=True)
            build_vector_index(store, writer)


def start_moving(directory: Path) -> "multiprocessing.process.BaseProcess":
    ready = CONTEXT.Event()
    process = CONTEXT.Process(target=keep_moving, args=(directory, ready))
    process.start()
    assert ready.wait(60)
    return process


def check_one_state(paths: Sequence[str]) -> int:
    """Check that the photos are five consecutive ones, and not a mix of two states; return the newest."""
    numbers = sorted(int(path.removesuffix(".jpg")) for path in paths)
    assert numbers == list(range(numbers[0], numbers[0] + HELD)), numbers
    return numbers[-1]


def test_readers_see_one_consistent_state_while_a_writer_commits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "index"
    make_five(directory)
    writer = start_moving(directory)
    engine = FakeEngine(SMALL_SPEC.dim)
    newest_seen = set()
    with ImageIndex.open(directory, engine=engine) as long_open:
        while writer.is_alive():
            with ImageIndex.open(directory, engine=engine) as fresh:
                for index in (fresh, long_open):
                    newest = check_one_state(index.paths())
                    index.skipped()
                    assert index.info().photos == HELD
                    matches = index.query(picture(newest), count=100).matches
                    newest_seen.add(check_one_state([match.path for match in matches]))
                    if f"{newest}.jpg" in {match.path for match in matches}:
                        assert matches[0].path == f"{newest}.jpg"
                        assert matches[0].similarity > 0.99
            assert verify(directory).findings == ()
        writer.join()
        assert writer.exitcode == 0
        last = long_open.query(picture(0), count=100).matches
        assert check_one_state([match.path for match in last]) == HELD + ROUNDS - 1
    assert len(newest_seen) > ROUNDS / 4  # both ran at the same time
    assert caplog.text == ""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_an_intact_index_that_can_be_updated(tmp_path: Path) -> None:
    random = Random(4)
    directory = tmp_path / "index"
    store = make_five(directory)
    stopped_at = []
    for number in range(KILLS):
        before = (directory / MANIFEST).read_bytes()
        writer = start_moving(directory)
        while number % 2 and (directory / MANIFEST).read_bytes() == before:
            time.sleep(0.005)  # a busy machine may start it late, and half of the kills should interrupt its work
        time.sleep(random.uniform(0, 0.4))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert verify(directory).findings == ()
        store.refresh()
        newest = check_one_state(store.paths())
        assert store.skipped() == skipped_until(newest)
        wanted = [embedded(number).embedding.astype(np.float16) for number in range(newest - HELD + 1, newest + 1)]
        np.testing.assert_array_equal(np.concatenate(list(store.embeddings())), wanted)
        stopped_at.append(newest)
    assert stopped_at == sorted(stopped_at)
    assert stopped_at[-1] >= 2 * HELD  # they were working when they were killed
    with writing(store) as last:
        last.compact()
        build_vector_index(store, last)
    assert store.leftovers() == []
    assert verify(directory).notes == ()


def test_a_long_open_reader_sees_the_last_commit(index: ImageIndex, photos: Path) -> None:
    with ImageIndex.open(index.directory, engine=FakeEngine()) as reader:
        assert len(reader.query(photos / "summer" / "0.jpg", count=100).matches) == 6
        save_photo(photos / "new.jpg", 20)
        index.update(compact=True)
        assert reader.query(photos / "new.jpg").matches[0].path == "new.jpg"


@pytest.mark.parametrize(
    "read", [len, ImageIndex.paths, ImageIndex.embeddings, ImageIndex.info, ImageIndex.to_arrow]
)
def test_each_call_moves_to_the_last_commit(
    index: ImageIndex, photos: Path, read: Callable[[ImageIndex], object]
) -> None:
    with ImageIndex.open(index.directory, engine=FakeEngine()) as reader:
        (photos / "summer" / "0.jpg").unlink()
        index.update(compact=True)
        assert str(read(reader)) == str(read(index))


def test_a_read_is_repeated_if_a_commit_removes_its_files(index: ImageIndex, photos: Path) -> None:
    counts = []

    def read(store: Store) -> list[str]:
        counts.append(len(store))
        if len(counts) == 1:
            save_photo(photos / "new.jpg", 20)
            index.update()
            index.update(compact=True)
        return list(store.paths())

    assert len(Store.open(index.directory).read_consistently(read)) == 7
    assert counts == [6, 7]


def test_damage_remains_an_error_for_a_reader(index: ImageIndex) -> None:
    next((index.directory / "embeddings").iterdir()).unlink()
    with pytest.raises(IndexDamaged, match="is missing"):
        index.paths()


def test_an_index_recreated_with_another_spec_is_not_mixed_with_the_old(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg")])
    (tmp_path / "x").rename(tmp_path / "old")
    Store.create(tmp_path / "x", SMALL_SPEC)
    with pytest.raises(
        SpecMismatch, match=r"recreated: it held embeddings of vgg16 pool4\+pool5 .* now of vgg16 pool3"
    ):
        store.refresh()
    assert store.spec == FAKE_SPEC


def add_photos(directory: Path, start: int, refused: "multiprocessing.sharedctypes.Synchronized[int]") -> None:
    """Commit twenty photos one by one, retrying while another process writes."""
    store = Store.open(directory)
    for number in range(start, start + 20):
        while True:
            try:
                with writing(store) as writer:
                    writer.commit([photo(f"{number}.jpg", number)])
                    writer.compact(only_if_due=number % 5 > 0)
                break
            except IndexLocked as error:
                if f" on {socket.gethostname()}. Wait" not in str(error) and "another process" not in str(error):
                    raise
                with refused.get_lock():
                    refused.value += 1
                time.sleep(0.002)


def test_two_writers_at_once_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    store = made(tmp_path / "x")
    refused = CONTEXT.Value("i", 0)
    writers = [CONTEXT.Process(target=add_photos, args=(tmp_path / "x", start, refused)) for start in (100, 200)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(120)
    assert [process.exitcode for process in writers] == [0, 0]
    assert refused.value > 0
    store.refresh()
    assert sorted(store.paths()) == sorted(f"{start + at}.jpg" for start in (100, 200) for at in range(20))
    assert verify(tmp_path / "x").findings == ()


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        process.kill()
    return process.pid


@pytest.mark.parametrize("text", ["process {dead} on {host}", "", "nonsense", "process 1\0 on"])
def test_the_entry_of_a_killed_writer_is_not_reported_as_the_holder(tmp_path: Path, text: str) -> None:
    store = made(tmp_path / "x")
    lock = FileLock(tmp_path / "x" / LOCK)
    with lock:  # another process has just acquired it and not written its entry yet
        (tmp_path / "x" / LOCK_HOLDER).write_text(text.format(dead=dead_process(), host=socket.gethostname()))
        with pytest.raises(IndexLocked, match=r"being written by another process. Wait until"), writing(store):
            pass


def test_a_writer_on_another_machine_is_named(tmp_path: Path) -> None:
    store = made(tmp_path / "x")
    with FileLock(tmp_path / "x" / LOCK):
        (tmp_path / "x" / LOCK_HOLDER).write_text("process 1 on nas-at-home")
        with pytest.raises(IndexLocked, match=r"being written by process 1 on nas-at-home\."), writing(store):
            pass


HOLD_WITHOUT_FLOCK = """
import fcntl, sys, time, warnings
from pathlib import Path

def missing(*_):
    raise OSError(38, "Function not implemented")

warnings.simplefilter("ignore")
fcntl.flock = missing
from vggsearch.store.store import Store
from vggsearch.store.writer import writing
with writing(Store.open(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_file_locks_there_is_still_one_writer_and_a_killed_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    Store.create(tmp_path / "x", FAKE_SPEC)
    store = Store.open(tmp_path / "x")
    monkeypatch.setattr("fcntl.flock", missing)
    command = [sys.executable, "-c", HOLD_WITHOUT_FLOCK, str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(IndexLocked, match=f"process {holder.pid} on "), writing(store):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with writing(store) as writer:
        writer.commit([photo("a.jpg")])
    assert Store.open(tmp_path / "x").paths() == ["a.jpg"]
