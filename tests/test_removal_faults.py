"""Whatever happens while duplicates are removed, no photo is lost, and undo finds all of them."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.helpers.disks import IS_ROOT, mount
from tests.helpers.removals import Steps, all_contents, fill, removal, remove, restore, trash_in, tree
from vggsearch.errors import JournalError
from vggsearch.removal import files
from vggsearch.removal import perform as performing
from vggsearch.removal.files import PREFIX, FoundFile
from vggsearch.removal.interrupted import warn_of_interrupted
from vggsearch.removal.journal import Journal
from vggsearch.removal.perform import perform
from vggsearch.removal.plan import PlannedRemoval, make_plan
from vggsearch.removal.request import Action
from vggsearch.removal.undo import undo

ACTIONS = ("trash", "move", "hardlink", "symlink", "delete")
PHOTO, OTHER = b"the photo" * 100, b"another one" * 100
STARS = b"<stars>"
TREE = {
    "kept/a.jpg": PHOTO,
    "kept/a.xmp": STARS,
    "copies/b.jpg": PHOTO,
    "copies/b.xmp": STARS,
    "copies/c.jpg": OTHER,
    "copies/c.jpg.xmp": STARS,
}


@pytest.fixture(autouse=True)
def trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power fails here, and there are thousands
    with trash_in(tmp_path / "share") as folder:
        yield folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", TREE)


def named(action: str, root: Path) -> str:
    return f"move:{root.parent / 'moved'}" if action == "move" else action


def is_whole(folder: Path, at: object, *beside: Path) -> None:
    """Undo, and see that all is as it was and nothing of ours is left."""
    root = folder / "photos"
    assert {PHOTO, OTHER, STARS} <= all_contents(folder, *beside), at
    with suppress(JournalError):  # torn in its very first line
        undone = undo(folder / "journal.jsonl")
        assert undone.refusals == (), at
        assert undo(folder / "journal.jsonl").restored == (), at
    assert tree(root) == TREE, at
    assert not any(path.is_symlink() for path in root.rglob("*")), at
    for moved in (folder / "moved", *(each / "moved" / folder.name for each in beside)):
        assert tree(moved) == {}, at
    assert not list(folder.rglob(f"{PREFIX}*")), at


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("what", ["perform", "undo"])
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_any_step_undo_finds_everything(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, action: str, what: str
) -> None:
    killed_at_each_step(root, tmp_path, caplog, action, what)


@pytest.mark.parametrize("what", ["perform", "undo"])
def test_killed_at_any_step_between_two_volumes(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, small_disk: Path, what: str
) -> None:
    killed_at_each_step(root, tmp_path, caplog, "move", what, small_disk)


def killed_at_each_step(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, action: str, what: str, *beside: Path
) -> None:
    template, folders = tmp_path / "template", tmp_path / "killed"
    root.rename(fill(template, {}) / "photos")
    words = [sys.executable, "-m", "tests.helpers.killed_removals", *map(str, (template, folders)), action, what]
    subprocess.run([*words, *map(str, beside)], check=True, cwd=Path(__file__).parent.parent)
    killed = sorted(folders.iterdir())
    assert 15 < len(killed) < 200
    for folder in killed:
        with trash_in(folder / "share"):
            every_hidden_file_is_named(folder, caplog)
            is_whole(folder, folder.name, *beside)


def every_hidden_file_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    warn_of_interrupted(folder, folder / "photos")
    hidden = [path.name for path in (folder / "photos").rglob(f"{PREFIX}*")]
    assert len(hidden) == len(caplog.messages) <= 2
    assert all(str(folder) in text for text in caplog.messages)
    assert all(any(name in text for text in caplog.messages) for name in hidden)


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPERM, errno.ENOENT])
@pytest.mark.parametrize("action", ACTIONS)
def test_any_step_may_be_refused(tmp_path: Path, action: str, number: int, lasts: bool) -> None:
    """Each step fails in turn, that one only or all from it on, until there are fewer steps than that."""
    for fails_at in range(1, 100):
        folder = tmp_path / str(fails_at)
        root = fill(folder / "photos", TREE)
        plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse(named(action, root)))

        def step(at: int, do: Callable[[], object]) -> object:
            if at == fails_at or (lasts and at > fails_at):  # noqa: B023
                raise OSError(number, os.strerror(number))
            return do()

        with trash_in(folder / "share"):
            with Steps(step).counted() as steps, suppress(JournalError):
                perform(plan, folder / "journal.jsonl")
            if (folder / "journal.jsonl").exists():
                is_whole(folder, fails_at)
            assert tree(root) == TREE
        if steps.number < fails_at:
            break
    assert 8 < fails_at < 60


@pytest.mark.parametrize("anew", [False, True], ids=["in place", "anew"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_photo_that_changes_at_any_step_keeps_its_change(tmp_path: Path, action: str, anew: bool) -> None:
    """Somebody saves the photo anew, in place or as a new file of that name, just before any step."""
    edited = PHOTO[:-1] + b"!"
    for changes_at in range(1, 100):
        folder = tmp_path / str(changes_at)
        root = fill(folder / "photos", TREE)
        copy, keeper = root / "copies/b.jpg", root / "kept/a.jpg"
        plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse(named(action, root)))
        saved = []

        def step(at: int, do: Callable[[], object]) -> object:
            if at == changes_at and copy.is_file() and not copy.samefile(keeper):  # noqa: B023
                saved.append(at)  # noqa: B023
                if anew:
                    copy.unlink()  # noqa: B023
                copy.write_bytes(edited)  # noqa: B023
            return do()

        with trash_in(folder / "share"), Steps(step).counted() as steps:
            report = perform(plan, folder / "journal.jsonl")
        if saved:
            assert tree(root)["copies/b.jpg"] == edited, changes_at
            assert report.done == ()
            assert "changed" in report.refusals[0].reason
        if steps.number < changes_at:
            break
    assert 8 < changes_at < 60


@pytest.mark.parametrize("action", ACTIONS)
def test_a_keeper_that_vanishes_at_any_step_leaves_the_last_copy(tmp_path: Path, action: str) -> None:
    for vanishes_at in range(1, 100):
        folder = tmp_path / str(vanishes_at)
        root = fill(folder / "photos", TREE)
        plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse(named(action, root)))

        def step(at: int, do: Callable[[], object]) -> object:
            aside = [path for path in (root / "copies").iterdir() if path.name.startswith(PREFIX)]  # noqa: B023
            if at == vanishes_at and not aside and (root / "copies/b.jpg").exists():  # noqa: B023
                (root / "kept/a.jpg").replace(root / "kept/elsewhere.jpg")  # noqa: B023
            return do()

        with trash_in(folder / "share"), Steps(step).counted() as steps:
            report = perform(plan, folder / "journal.jsonl")
        gone = not (root / "kept/a.jpg").exists()
        if gone and action in ("delete", "move"):
            assert report.done == (), vanishes_at
        assert PHOTO in all_contents(folder)
        if steps.number < vanishes_at:
            break
    assert 8 < vanishes_at < 60


@pytest.mark.parametrize("action", ["move", "trash", "delete", "hardlink", "symlink"])
def test_a_keeper_that_is_the_same_file_in_a_way_nobody_can_see_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """As where one network disk is mounted twice: two names, two numbers, one file."""
    (root / "mounted twice").symlink_to("copies")
    asked = removal(root, "copies/b.jpg", "mounted twice/b.jpg")
    plan = make_plan(root, [], Action.parse(named(action, root)))
    monkeypatch.setattr(FoundFile, "is_same_file", lambda *_: False)
    report = perform(replace(plan, removals=(PlannedRemoval(asked, (), 0),)), root.parent / "journal.jsonl")
    assert report.done == ()
    assert "mounted twice/b.jpg no longer exists" in report.refusals[0].reason
    assert tree(root) == TREE


@pytest.mark.parametrize("action", ACTIONS)
def test_two_runs_that_each_keep_what_the_other_removes_leave_one_copy(root: Path, action: str) -> None:
    """The second run starts in the midst of the first, at each of its steps in turn."""
    for starts_at in range(1, 100):
        folder = root.parent / str(starts_at)
        here = fill(folder / "photos", TREE)
        words = named(action, here)
        plans = [
            make_plan(here, [removal(here, one, other)], Action.parse(words))
            for one, other in (("copies/b.jpg", "kept/a.jpg"), ("kept/a.jpg", "copies/b.jpg"))
        ]

        def step(at: int, do: Callable[[], object]) -> object:
            if at == starts_at:  # noqa: B023
                perform(plans[1], folder / "second.jsonl")  # noqa: B023
            return do()

        with trash_in(folder / "share"):
            with Steps(step).counted() as steps:
                perform(plans[0], folder / "journal.jsonl")
            assert PHOTO in tree(here).values(), starts_at
        if steps.number < starts_at:
            break
    assert starts_at > 8


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("path", ["kept/a.jpg", "copies/b.jpg", "copies/b.xmp"])
def test_what_cannot_be_read_is_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, action: str, path: str
) -> None:
    real = os.open

    def opened(name: str | Path, flags: int, mode: int = 0o777) -> int:
        if Path(name) == root / path:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return real(name, flags, mode)

    asked = removal(root, "copies/b.jpg", "kept/a.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        report = remove(root, [asked], named(action, root))
    if path == "copies/b.xmp" and action.endswith("link"):
        assert report.refusals == ()  # it stays, whatever is in it
        return
    assert report.done == ()
    assert report.refusals[0].reason == f"{path} cannot be read: Permission denied"
    assert tree(root) == TREE


def test_a_full_disk_leaves_the_photo_where_it_is(root: Path, small_disk: Path) -> None:
    fill(root, {"copies/c.jpg": bytes(2 << 20)})
    before = tree(root)
    report = remove(
        root, [removal(root, path, "kept/a.jpg") for path in ("copies/c.jpg", "copies/b.jpg")], f"move:{small_disk}"
    )
    assert "No space left on device" in report.refusals[0].reason
    assert sorted(tree(small_disk)) == ["copies/b.jpg", "copies/b.xmp"]
    assert len(restore(report).restored) == 2
    assert (tree(root), tree(small_disk)) == (before, {})


def test_a_file_that_may_grow_no_more_is_like_a_full_disk(root: Path, small_disk: Path) -> None:
    resource = pytest.importorskip("resource")
    fill(root, {"copies/c.jpg": bytes(200_000)})
    plan = make_plan(root, [removal(root, "copies/c.jpg", "kept/a.jpg")], Action.parse(f"move:{small_disk}"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        report = perform(plan, root.parent / "journal.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in report.refusals[0].reason
    assert tree(root)["copies/c.jpg"] == bytes(200_000)
    assert tree(small_disk) == {}


def test_between_volumes_a_photo_keeps_its_age_and_comes_back(root: Path, small_disk: Path) -> None:
    os.utime(root / "copies/b.jpg", ns=(1, 1_234_567_890_000_000_000))
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], f"move:{small_disk / 'in'}")
    assert (small_disk / "in/copies/b.jpg").stat().st_mtime_ns == 1_234_567_890_000_000_000
    assert tree(small_disk) == {"in/copies/b.jpg": PHOTO, "in/copies/b.xmp": b"<stars>"}
    assert len(restore(report).restored) == 2
    assert (root / "copies/b.jpg").stat().st_mtime_ns == 1_234_567_890_000_000_000
    assert (tree(root), tree(small_disk)) == (TREE, {})


def test_a_disk_that_writes_other_bytes_than_it_was_given_keeps_the_photo(
    root: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copies(source: BinaryIO, target: BinaryIO, _: int) -> None:
        target.write(source.read()[:-1] + b"!")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", copies)
        report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], f"move:{small_disk}")
    assert "could not be copied: the copy has other bytes" in report.refusals[0].reason
    assert (tree(root), tree(small_disk)) == (TREE, {})


def test_links_to_another_volume(root: Path, small_disk: Path) -> None:
    disk = root / "disk"
    disk.mkdir()
    mount("--bind", str(small_disk), str(disk))
    try:
        fill(disk, {"d.jpg": PHOTO})
        removals = [removal(root, "disk/d.jpg", "kept/a.jpg")]
        assert "on another volume" in make_plan(root, removals, Action.parse("hardlink")).refusals[0].reason
        report = remove(root, removals, "symlink")
        assert (disk / "d.jpg").samefile(root / "kept/a.jpg")
        assert restore(report).restored == ("disk/d.jpg",)
        assert (disk / "d.jpg").read_bytes() == PHOTO
        assert not (disk / "d.jpg").is_symlink()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_read_only_folder_of_photos_is_left_alone(root: Path, action: str) -> None:
    removals = [removal(root, "copies/b.jpg", "kept/a.jpg")]
    with read_only(root / "copies"):
        report = remove(root, removals, named(action, root))
    assert report.done == ()
    assert "copies/b.jpg" in report.refusals[0].reason
    assert tree(root) == TREE
    assert restore(report).refusals == ()


def test_a_read_only_target_leaves_the_photos_where_they_are(root: Path) -> None:
    target = fill(root.parent / "moved", {})
    with read_only(target):
        report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], f"move:{target}")
    assert report.done == ()
    assert str(target) in report.refusals[0].reason
    assert tree(root) == TREE


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody may write to: on a read-only mount for root, whom permissions do not stop."""
    if IS_ROOT:
        mount("--bind", str(folder), str(folder))
        mount("-o", "remount,ro,bind", str(folder))
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
        return
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("action", ACTIONS)
def test_disks_without_a_rename_that_never_replaces_do_with_links(
    root: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(files, "_system_renamed", lambda *_: False)
    taken_and_back(root, action)


@pytest.mark.parametrize("action", ["trash", "move", "symlink", "delete"])
def test_disks_without_links_look_before(root: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files, "_system_renamed", lambda *_: False)
    monkeypatch.setattr(os, "link", link)
    taken_and_back(root, action)


def taken_and_back(root: Path, action: str) -> None:
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], named(action, root))
    assert report.refusals == ()
    fill(root, {"copies/b.jpg": b"new"}) if not (root / "copies/b.jpg").exists() else None
    if not report.done[0].does.endswith("link"):
        assert restore(report).refusals[-1].path == "copies/b.jpg"
        assert (root / "copies/b.jpg").read_bytes() == b"new"
        (root / "copies/b.jpg").unlink()
    assert restore(report).refusals == ()
    assert tree(root) == TREE


def test_a_rename_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a": b"a", "b": b"b"})
    (tmp_path / "nowhere").symlink_to("no such file")
    for has_it in (True, False):
        if not has_it:
            monkeypatch.setattr(files, "_system_renamed", lambda *_: False)
        for target in ("b", "nowhere"):
            with pytest.raises(FileExistsError):
                files.rename_exclusively(tmp_path / "a", tmp_path / target)
        with pytest.raises(FileNotFoundError):
            files.rename_exclusively(tmp_path / "none", tmp_path / "c")
    assert tree(tmp_path) == {"a": b"a", "b": b"b"}


def test_a_trash_that_refuses_names_the_way_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("send2trash.send2trash", refuses)
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "trash")
    assert "use move:DIR instead" in report.refusals[0].reason
    assert tree(root) == TREE


def test_without_send2trash_the_other_actions_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "send2trash", None)
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "trash")
    assert "pip install Send2Trash" in report.refusals[0].reason
    assert remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "delete").refusals == ()


def test_a_trash_that_does_not_say_where_things_are_still_lets_copies_come_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    removals = [removal(root, path, "kept/a.jpg") for path in ("copies/b.jpg", "copies/c.jpg")]
    monkeypatch.setattr(files, "_system_renamed", lambda *_: False)
    report = remove(root, removals, "trash")
    assert "Look in the Trash, in the Dock." in report.journal.read_text()
    undone = restore(report)
    assert "copies/b.jpg" in undone.restored
    assert "not found in the trash. Look in the Trash" in undone.refusals[0].reason


def test_a_photo_that_cannot_get_its_name_back_is_named_and_undo_restores_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(performing, "_check_keeper", refused)
        patch.setattr(performing, "rename_exclusively", refused)
        report = remove(root, [removal(root, "copies/c.jpg", "kept/a.jpg")], "delete")
    [hidden] = root.rglob(f"{PREFIX}*")
    assert report.refusals[0].reason == (
        f"copies/c.jpg is now called {hidden.name} (Permission denied), after this: Permission denied. "
        "Undo restores it"
    )
    assert restore(report).restored == ("copies/c.jpg",)
    assert tree(root) == TREE


def test_ctrl_c_in_the_midst_of_an_act_gives_the_photo_its_name_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse("delete"))

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(performing, "_check_keeper", interrupted)
    with pytest.raises(KeyboardInterrupt):
        perform(plan, root.parent / "journal.jsonl")
    assert tree(root) == TREE
    assert undo(root.parent / "journal.jsonl").refusals == ()


def test_a_journal_whose_first_line_cannot_be_written_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vggsearch.removal.journal.write_all", full)
    with (
        pytest.raises(JournalError, match="No space left"),
        Journal.create(tmp_path / "x.jsonl", tmp_path, "trash"),
    ):
        pytest.fail("it was started")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="files are not locked here")
def test_a_removal_that_still_runs_is_neither_called_interrupted_nor_undone(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal, seen = tmp_path / "journal.jsonl", []
    plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse("delete"))

    def step(_: int, do: Callable[[], object]) -> object:
        if list(root.rglob(f"{PREFIX}*")):
            warn_of_interrupted(tmp_path, root)
            with pytest.raises(JournalError, match="in use by another process"):
                undo(journal)
            seen.append(True)
        return do()

    with Steps(step).counted():
        assert len(perform(plan, journal).done) == 2
    assert seen
    assert not caplog.messages
    assert sorted(undo(journal).restored) == ["copies/b.jpg", "copies/b.xmp"]
