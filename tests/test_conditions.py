"""Every command under every condition: no traceback, no status 0 for what failed, no photo lost, the index intact.

CELLS=1 pytest tests/test_conditions.py runs the whole table, which takes half an hour or more, CELLS=5 every fifth
cell; without CELLS, one cell of seventeen runs, in all columns and nearly all rows.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.conditions import (
    COMMANDS,
    CONDITIONS,
    MADE,
    UNUSABLE_STDOUT,
    copy_lab,
    leave,
    make_lab,
    run,
    unmount,
)
from tests.helpers.disks import IS_ROOT
from vggsearch.indexing.integrity import verify

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="sets the limits of Linux")]

TABLE = [(condition, command) for condition in CONDITIONS for command in COMMANDS]
STEP = int(os.environ.get("CELLS", "17"))  # prime, so that it does not always meet the same commands
TRACES = (b"Traceback (most recent call last)", b"Exception ignored", b"lost sys.stderr", b"This is a bug")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lab = tmp_path_factory.mktemp("conditions") / "lab"
    make_lab(lab)
    return lab


@pytest.fixture
def lab(template: Path, tmp_path: Path) -> Iterator[Path]:
    copy_lab(template, tmp_path / "lab")
    yield tmp_path / "lab"
    unmount(tmp_path / "lab")


def contents(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_in_the_lab(lab: Path, command: str) -> None:
    done = run(COMMANDS[command], lab)
    assert (done.status, bool(done.stdout)) == (0, True), done
    assert command not in MADE or (lab / MADE[command]).exists()


@pytest.mark.parametrize(("condition", "command"), TABLE[::STEP])
def test_a_command_that_cannot_do_its_work_says_so_and_loses_nothing(
    lab: Path, condition: str, command: str
) -> None:
    if CONDITIONS[condition].is_root and not IS_ROOT:
        pytest.skip("only root may mount a disk")
    photos = contents(lab / "photos")
    done = run(COMMANDS[command], lab, CONDITIONS[condition])
    assert not any(trace in done.stderr for trace in TRACES), done.stderr.decode(errors="replace")
    assert done.status in (0, 1, 2, -2), done
    if done.status == 0:
        assert condition not in UNUSABLE_STDOUT, "its output was lost"
        assert done.stdout, "it did nothing"
        assert command not in MADE or (lab / MADE[command]).exists()
    elif done.status > 0 and CONDITIONS[condition].stderr == "pipe" and condition != "stdout broken":
        assert done.stderr or done.stdout, "it did not say why"
    leave(lab)
    assert photos <= contents(lab), "a photo is lost"
    assert verify(lab / "indexes/photos").is_whole
