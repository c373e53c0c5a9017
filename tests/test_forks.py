"""A process that is forked after FAISS or a network has been used: an error instead of waiting for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import FakeEngine
from vggsearch.errors import ForkError
from vggsearch.image_index import ImageIndex
from vggsearch.system.forks import NativeThreads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# Opens an index, perhaps uses it, forks, and prints what the child gets for a query of its own.
PROGRAM = """
import os, signal, sys
from tests.fakes import FakeEngine
from vggsearch import ImageIndex, VggsearchError

directory, photo, use, whose = sys.argv[1:]
made = ImageIndex.open(directory, engine=FakeEngine())
if use == "query":
    made.query(photo)
elif use == "other":
    len(made), made.paths(), made.info()
child = os.fork()
if child == 0:
    signal.alarm(30)
    try:
        mine = ImageIndex.open(directory, engine=FakeEngine()) if whose == "own" else made
        print(len(mine), len(mine.paths()), mine.query(photo).matches[0].path, flush=True)
    except VggsearchError as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
print("child", os.waitpid(child, 0)[1], flush=True)
print("parent", made.query(photo).matches[0].path)
"""


def run(index: ImageIndex, photos: Path, use: str, whose: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, str(index.directory), str(photos / "summer" / "0.jpg"), use, whose]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout.splitlines()


@pytest.mark.parametrize("whose", ["shared", "own"])
def test_a_child_forked_after_a_query_gets_an_error(index: ImageIndex, photos: Path, whose: str) -> None:
    error, child, parent = run(index, photos, "query", whose)
    assert error.startswith("ForkError This process was forked after its parent")
    assert "spawn" in error
    assert (child, parent) == ("child 0", "parent summer/0.jpg")


@pytest.mark.parametrize("use", ["nothing", "other"])
def test_a_child_forked_before_the_first_query_may_query(index: ImageIndex, photos: Path, use: str) -> None:
    assert run(index, photos, use, "shared") == ["6 6 summer/0.jpg", "child 0", "parent summer/0.jpg"]


def test_running_a_network_counts_as_use(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, photo = NativeThreads(), photos / "summer" / "0.jpg"
    monkeypatch.setattr("vggsearch.query.session.native_threads", threads)
    monkeypatch.setattr("vggsearch.query.session.load_engine", lambda *_: FakeEngine())
    with ImageIndex.create(tmp_path / "made") as made:
        threads._lose()
        made.embed(photo)
        threads._lose()
        with pytest.raises(ForkError):
            made.embed(photo)
