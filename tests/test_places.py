"""Paths as people give them: `~`, and relative to a folder that is no longer the current one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.fakes import FakeEngine, save_photo
from vggsearch.cli import cli
from vggsearch.duplicates.removals import undo
from vggsearch.errors import OptionError, WeightsError
from vggsearch.evaluation.networks import random_kernels
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.render.html.write import write_html
from vggsearch.system.places import Place, cache_folder, from_home


def test_an_index_opened_by_a_relative_path_survives_a_change_of_folder(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = photos / "summer" / "0.jpg"
    monkeypatch.chdir(tmp_path)
    with ImageIndex.create("made", engine=FakeEngine()) as made:
        made.update("photos")
        before = made.query(asked).matches
        (tmp_path / "elsewhere" / "made").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert made.query(asked).matches == before
        assert made.directory == tmp_path / "made"
        assert made.root == photos
        save_photo(photos / "new.jpg", 20)
        assert made.update().indexed == 1
        assert len(made) == len(made.paths()) == made.info().photos == 7
        assert made.duplicates().directory == tmp_path / "made"
        assert made.verify().is_whole
    assert list((tmp_path / "elsewhere" / "made").iterdir()) == []


def test_the_given_root_survives_a_change_of_folder(
    index: ImageIndex, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos.rename(tmp_path / "moved")
    with ImageIndex.open("indexes/photos", engine=FakeEngine(), root="moved") as opened:
        assert opened.root == Path("moved")
        monkeypatch.chdir("/")
        assert opened.root == tmp_path / "moved"


def test_a_tilde_is_the_home_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with ImageIndex.for_photos("~/photos", "~/made", engine=FakeEngine()) as made:
        assert made.update("~/photos").indexed == 6
    with ImageIndex.open("~/made", engine=FakeEngine(), root="~/photos") as opened:
        assert opened.directory == tmp_path / "made"
        assert opened.root == photos
    assert EmbeddingOptions(weights="~/vgg.pth").weights_file == tmp_path / "vgg.pth"
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", ["~a.jpg", "~root/a.jpg", "a/~/b.jpg", "./a~"])
def test_other_tildes_are_names(name: str) -> None:
    assert from_home(name) == Path(name)


def test_a_tilde_is_the_home_folder_in_every_call(
    index: ImageIndex, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(photos / "summer/0.jpg", photos / "winter/copy.jpg")
    index.update()
    result = index.query("~/photos/summer/0.jpg", 1)
    assert (result.query, result.matches[0].path) == ("~/photos/summer/0.jpg", "summer/0.jpg")
    assert index.embed_many([Path("~/photos/summer/0.jpg")]).shape == (1, 1024)
    assert index.decide("different", ["~/photos/summer/1.jpg", "~/photos/summer/2.jpg"]).judgement == "different"
    assert index.import_decisions("~/indexes/photos/decisions.jsonl").added == 0
    assert verify("~/indexes/photos").is_whole
    report = index.duplicates(protect="~/photos/winter")
    write_html(report, "~/page.html")
    assert (tmp_path / "page.html").exists()
    done = index.remove(index.plan_removal(report, "move:~/moved"))
    moved = list((tmp_path / "moved").rglob("*.jpg"))
    assert len(done.done) == len(moved) == 1
    journal = Path("~") / done.journal.absolute().relative_to(tmp_path)
    assert undo(journal, "~/photos").restored == ("summer/0.jpg",)


def test_a_tilde_that_the_shell_leaves_alone_is_the_home_folder_on_the_command_line(
    index: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CliRunner().invoke(cli, ["info", "--index=~/indexes/photos"]).exit_code == 0


def test_a_place_is_short_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place("photos")
    assert place.path == Path("photos")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert place.path == tmp_path / "photos"
    os.chdir(tmp_path)
    assert place.path == Path("photos")


def test_weights_that_cannot_be_used_leave_no_index_and_the_right_ones_can_follow(tmp_path: Path) -> None:
    kernels = random_kernels("vgg11", "pool1")
    options = EmbeddingOptions(model="vgg11", layer="pool1", weights=tmp_path / "vgg11.pth")
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "vgg11.pth")
    with pytest.raises(WeightsError):
        ImageIndex.create(tmp_path / "made", options)
    assert not (tmp_path / "made").exists()
    [kernel] = kernels.values()
    weights = {"features.0.weight": kernel.weight, "features.0.bias": kernel.bias}
    torch.save({name: torch.from_numpy(each) for name, each in weights.items()}, tmp_path / "vgg11.pth")
    with ImageIndex.create(tmp_path / "made", options) as made:
        assert made.spec.layer == "pool1"


@pytest.mark.parametrize("path", [["a", "b"], 5, None, b"photos", "nul\0"])
def test_what_is_no_path_is_an_error_that_says_so(path: Any, index: ImageIndex) -> None:
    calls: list[Callable[[], object]] = [
        lambda: ImageIndex.open(path),
        lambda: ImageIndex.create(path),
        lambda: ImageIndex.for_photos(path),
        lambda: verify(path),
        lambda: undo(path),
        lambda: index.import_decisions(path),
    ]
    if path is not None:
        calls.append(lambda: index.update(path))
    for call in calls:
        with pytest.raises(OptionError, match="path"):
            call()


@pytest.mark.parametrize(
    ("home", "has_folder"), [("/home/me", True), ("", False), ("relative", False), ("/", False)]
)
def test_the_cache_folder_is_in_a_home_folder_or_nowhere(
    monkeypatch: pytest.MonkeyPatch, home: str, has_folder: bool
) -> None:
    monkeypatch.setenv("HOME", home)
    found = cache_folder()
    assert (found is not None) == has_folder
    assert found is None or Path(home) in found.parents
