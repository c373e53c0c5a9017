"""Photos that are indexed and later become something else: a reason or an error of one line, for every command."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.helpers.odd_files import (
    make_device,
    make_folder,
    make_link_out,
    make_link_to_itself,
    make_photo_of_a_terabyte,
    make_pipe,
    make_terabyte,
)
from vggsearch import ImageIndex, QueryResult, Skipped
from vggsearch.cli import cli
from vggsearch.render.html.write import write_html


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    "become",
    [
        make_pipe,
        make_link_out,
        make_link_to_itself,
        make_folder,
        make_device,
        make_terabyte,
        make_photo_of_a_terabyte,
        nothing,
    ],
)
def test_a_photo_that_became_something_else_costs_itself_alone(
    become: Callable[[Path], None], index: ImageIndex, photos: Path, tmp_path: Path
) -> None:
    for copy in ("a.jpg", "b.jpg"):
        shutil.copy(photos / "summer" / "0.jpg", photos / copy)
    index.update()
    report = index.duplicates(threshold=0.9)
    assert len(report.groups) == 1
    changed = photos / "a.jpg"
    changed.unlink()
    become(changed)

    others = index.query(photos / "winter" / "5.jpg", 8)
    assert len(others.matches) == 8
    alone, right = index.query_many([changed, photos / "b.jpg"], 1)
    if become is not make_photo_of_a_terabyte:
        assert isinstance(alone, Skipped)
        assert "\n" not in alone.reason
    assert isinstance(right, QueryResult)
    [group] = index.duplicates(threshold=0.9).groups
    assert {group.keeper.path, *(member.photo.path for member in group.members)} == {"b.jpg", "summer/0.jpg"}
    write_html(report, tmp_path / "page.html")
    assert become is make_photo_of_a_terabyte or '{"reason":' in (tmp_path / "page.html").read_text("utf-8")
    plan = index.plan_removal(report, "move:" + str(tmp_path / "moved"))
    assert "a.jpg" not in [planned.path for planned in plan.removals]
    index.remove(plan)
    index.verify()
    index.update()
    assert "a.jpg" not in index.paths()
    assert len(index) == 7 - len(plan.removals)


@pytest.mark.parametrize(
    "words",
    [
        ["dups", "undo", "odd.jsonl"],
        ["eval", "truth", "odd.jsonl"],
        ["dups", "decide", "--import", "odd.jsonl"],
        ["index", "photos", "--weights", "odd.jsonl", "--index", "new"],
        ["dups", "--html", "odd.jsonl"],
        ["eval", "copies", "photos", "--curve", "odd.csv"],
    ],
    ids=" ".join,
)
def test_a_pipe_or_a_device_that_is_named_as_a_file_is_an_error(
    index: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")):
        for name in ("odd.jsonl", "odd.csv"):
            Path(name).unlink(missing_ok=True)
            make(name)
        done = CliRunner().invoke(cli, words)
        assert done.exit_code in (1, 2)
        assert "not a file" in done.stderr or "not a regular file" in done.stderr
        assert not Path("new").exists()
