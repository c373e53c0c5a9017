"""Removing duplicates: what each action does, what is refused, and that undo brings everything back."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.removals import fill, removal, remove, restore, sha256, trash_in, tree
from vggsearch.errors import JournalError, OptionError, PhotosError, Stopped
from vggsearch.progress import Progress
from vggsearch.removal import trash as trashing
from vggsearch.removal.files import PREFIX
from vggsearch.removal.perform import RemovalReport, perform
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action, Removal
from vggsearch.removal.undo import UndoReport, undo

ACTIONS = ("trash", "move", "hardlink", "symlink", "delete")
PHOTO, OTHER = b"the photo" * 100, b"another one" * 100


@pytest.fixture(autouse=True)
def trash(tmp_path: Path) -> Iterator[Path]:
    with trash_in(tmp_path / "share") as folder:
        yield folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", {"kept/a.jpg": PHOTO, "copies/b.jpg": PHOTO, "copies/c.jpg": OTHER})


def named(action: str, root: Path) -> str:
    return f"move:{root.parent / 'moved'}" if action == "move" else action


def reasons(root: Path, removals: list[Removal], action: str, **more: object) -> str:
    """Why the only refused removal is refused, already in the plan."""
    plan = make_plan(root, removals, Action.parse(named(action, root)), **more)  # type: ignore[arg-type]
    assert len(plan.refusals) == 1
    return plan.refusals[0].reason


@pytest.mark.parametrize("action", ACTIONS)
def test_a_plan_changes_nothing(root: Path, action: str) -> None:
    before = tree(root.parent)
    plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse(named(action, root)))
    assert [act.path for act in plan.removals] == ["copies/b.jpg"]
    assert plan.freed_bytes == len(PHOTO)
    assert plan.irreversible == ()
    assert tree(root.parent) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_a_copy_is_removed_and_comes_back_as_it_was(root: Path, action: str, trash: Path) -> None:
    copy = root / "copies/b.jpg"
    copy.chmod(0o640)
    os.utime(copy, ns=(1, 1_234_567_890_123_456_789))
    before, status = tree(root), copy.lstat()
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], named(action, root))
    assert ([entry.path for entry in report.done], report.refusals) == (["copies/b.jpg"], ())
    assert report.freed_bytes == len(PHOTO)
    assert (root / "kept/a.jpg").read_bytes() == PHOTO
    if action == "hardlink":
        assert copy.samefile(root / "kept/a.jpg")
        assert not copy.is_symlink()
    elif action == "symlink":
        assert str(copy.readlink()) == "../kept/a.jpg"
    else:
        assert not copy.exists()
    if action == "trash":
        assert (trash / "files/b.jpg").read_bytes() == PHOTO
    if action == "move":
        assert tree(root.parent / "moved") == {"copies/b.jpg": PHOTO}

    undone = restore(report)
    assert (undone.restored, undone.refusals) == (("copies/b.jpg",), ())
    assert tree(root) == before
    now = copy.lstat()
    assert (now.st_mtime_ns, now.st_mode, now.st_nlink) == (status.st_mtime_ns, status.st_mode, 1)
    assert tree(root.parent / "moved") == {}
    assert [name for name in tree(trash) if "b.jpg" in name] == []
    assert restore(report).restored == ()
    assert tree(root) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_a_photo_that_changed_since_the_scan_is_left_alone(root: Path, action: str) -> None:
    removals = [removal(root, "copies/b.jpg", "kept/a.jpg")]
    edited = PHOTO[:-1] + b"!"
    plan = make_plan(root, removals, Action.parse(named(action, root)))
    (root / "copies/b.jpg").write_bytes(edited)
    report = perform(plan, root.parent / "journal.jsonl")
    assert report.done == ()
    assert "copies/b.jpg has changed since it was indexed" in report.refusals[0].reason
    assert tree(root) == {"kept/a.jpg": PHOTO, "copies/b.jpg": edited, "copies/c.jpg": OTHER}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("damage", ["deleted", "changed", "a pipe", "a folder", "a link to the copy"])
def test_nothing_is_removed_whose_keeper_cannot_be_relied_on(root: Path, action: str, damage: str) -> None:
    plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse(named(action, root)))
    keeper = root / "kept/a.jpg"
    if damage == "changed":
        keeper.write_bytes(PHOTO[:-1] + b"!")
    else:
        keeper.unlink()
    if damage == "a folder":
        keeper.mkdir()
    if damage == "a pipe":
        os.mkfifo(keeper)
    if damage == "a link to the copy":
        keeper.symlink_to(root / "copies/b.jpg")
    report = perform(plan, root.parent / "journal.jsonl")
    assert report.done == ()
    assert "kept/a.jpg" in report.refusals[0].reason
    assert report.journal.read_text().count("\n") == 1  # nothing was even begun
    assert (root / "copies/b.jpg").read_bytes() == PHOTO
    assert undo(report.journal).refusals == ()


@pytest.mark.parametrize("action", ACTIONS)
def test_a_hard_link_to_the_keeper_is_no_other_copy(root: Path, action: str) -> None:
    (root / "copies/d.jpg").hardlink_to(root / "kept/a.jpg")
    assert "are one file (a hard link" in reasons(root, [removal(root, "copies/d.jpg", "kept/a.jpg")], action)


def test_a_hard_link_to_some_other_file_frees_nothing(root: Path) -> None:
    (root / "copies/d.jpg").hardlink_to(root / "copies/b.jpg")
    plan = make_plan(root, [removal(root, "copies/d.jpg", "kept/a.jpg")], Action.parse("delete"))
    assert plan.freed_bytes == 0
    report = perform(plan, root.parent / "journal.jsonl")
    assert (len(report.done), report.freed_bytes) == (1, 0)
    assert restore(report).restored == ("copies/d.jpg",)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_symbolic_link_is_never_a_victim_nor_a_keeper(root: Path, action: str) -> None:
    (root / "copies/link.jpg").symlink_to("../kept/a.jpg")
    (root / "also").symlink_to("kept")
    assert "a symbolic link" in reasons(root, [removal(root, "copies/link.jpg", "kept/a.jpg")], action)
    assert "a symbolic link" in reasons(root, [removal(root, "copies/b.jpg", "copies/link.jpg")], action)
    assert "are one file (a hard link" in reasons(root, [removal(root, "also/a.jpg", "kept/a.jpg")], action)


@pytest.mark.parametrize("path", ["out/x.jpg", "../x.jpg", "copies/../../x.jpg", "/etc/passwd", ""])
def test_no_path_leads_out_of_the_photo_folder(root: Path, path: str) -> None:
    fill(root.parent, {"x.jpg": PHOTO, "outside/x.jpg": PHOTO})
    (root / "out").symlink_to(root.parent / "outside")
    asked = Removal(path, sha256(PHOTO), len(PHOTO), "kept/a.jpg", sha256(PHOTO))
    assert "the photo folder" in reasons(root, [asked], "delete")
    kept_outside = Removal("copies/b.jpg", sha256(PHOTO), len(PHOTO), path, sha256(PHOTO))
    assert "the photo folder" in reasons(root, [kept_outside], "delete")


def test_a_folder_that_is_swapped_for_a_link_after_the_plan_leads_nowhere(root: Path) -> None:
    plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse("delete"))
    (root / "copies").rename(root.parent / "outside")
    (root / "copies").symlink_to(root.parent / "outside")
    report = perform(plan, root.parent / "journal.jsonl")
    assert "leads out of the photo folder" in report.refusals[0].reason
    assert tree(root.parent / "outside") == {"b.jpg": PHOTO, "c.jpg": OTHER}


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_protected_is_never_touched(root: Path, action: str, tmp_path: Path) -> None:
    removals = [removal(root, "copies/b.jpg", "kept/a.jpg")]
    spelled = root / "kept" / ".." / "copies"
    (tmp_path / "alias").symlink_to(root / "copies")
    for protect in (root, root / "copies", spelled, tmp_path / "alias", root / "copies/b.jpg"):
        assert "copies/b.jpg is protected" in reasons(root, removals, action, protect=[protect])
    assert make_plan(root, removals, Action.parse("delete"), [root / "kept"]).refusals == ()


def test_a_protected_folder_that_is_not_there_is_an_error_rather_than_no_protection(root: Path) -> None:
    with pytest.raises(OptionError, match="precious, to be protected, does not exist"):
        make_plan(root, [], Action.parse("delete"), [root / "precious"])


def test_nothing_is_moved_into_a_protected_folder_nor_where_the_next_index_finds_it(root: Path) -> None:
    with pytest.raises(OptionError, match="is protected"):
        make_plan(root, [], Action.parse(f"move:{root.parent / 'safe/in'}"), [root.parent])
    with pytest.raises(OptionError, match="next update would index"):
        make_plan(root, [], Action.parse(f"move:{root / 'dups'}"))
    hidden = make_plan(root, [], Action.parse(f"move:{root / '.dups'}"))
    assert hidden.action.folder == root / ".dups"


def test_a_photo_is_not_removed_for_one_that_is_to_be_removed_too(root: Path) -> None:
    fill(root, {"copies/d.jpg": PHOTO})
    ring = [removal(root, "copies/b.jpg", "copies/d.jpg"), removal(root, "copies/d.jpg", "copies/b.jpg")]
    plan = make_plan(root, ring, Action.parse("delete"))
    assert plan.removals == ()
    assert [refusal.path for refusal in plan.refusals] == ["copies/b.jpg", "copies/d.jpg"]
    chain = [removal(root, "copies/b.jpg", "copies/d.jpg"), removal(root, "copies/d.jpg", "kept/a.jpg")]
    plan = make_plan(root, chain, Action.parse("delete"))
    assert [act.path for act in plan.removals] == ["copies/d.jpg"]
    assert "its keeper, is to be removed too" in plan.refusals[0].reason


def test_a_photo_that_is_to_be_removed_twice_is_left_alone(root: Path) -> None:
    fill(root, {"copies/d.jpg": PHOTO})
    twice = [removal(root, "copies/b.jpg", "copies/d.jpg"), removal(root, "copies/b.jpg", "kept/a.jpg")]
    assert make_plan(root, twice, Action.parse("delete")).removals == ()


@pytest.mark.parametrize("action", ["hardlink", "symlink"])
def test_a_link_never_stands_in_for_other_bytes(root: Path, action: str) -> None:
    assert "a link would replace its bytes" in reasons(root, [removal(root, "copies/c.jpg", "kept/a.jpg")], action)


def test_deleting_a_near_copy_is_said_to_be_irreversible_before_and_after(root: Path) -> None:
    plan = make_plan(root, [removal(root, "copies/c.jpg", "kept/a.jpg")], Action.parse("delete"))
    assert [act.path for act in plan.irreversible] == ["copies/c.jpg"]
    report = perform(plan, root.parent / "journal.jsonl")
    assert '"undo": "not possible: no copy has these bytes"' in report.journal.read_text()
    undone = restore(report)
    assert undone.restored == ()
    assert undone.refusals[0].reason == (
        "copies/c.jpg cannot be restored: it was deleted, and no copy has its bytes"
    )


@pytest.mark.parametrize("action", ["trash", "move"])
def test_a_near_copy_comes_back_from_where_it_went(root: Path, action: str) -> None:
    before = tree(root)
    report = remove(root, [removal(root, "copies/c.jpg", "kept/a.jpg")], named(action, root))
    assert "copies/c.jpg" not in tree(root)
    assert restore(report).restored == ("copies/c.jpg",)
    assert tree(root) == before


def test_equal_names_never_overwrite_one_another(root: Path) -> None:
    moved = fill(root.parent / "moved", {"copies/b.jpg": b"from an earlier run", "copies/c (2).jpg": b"mine"})
    removals = [removal(root, path, "kept/a.jpg") for path in ("copies/b.jpg", "copies/c.jpg")]
    report = remove(root, removals, f"move:{moved}")
    assert tree(moved) == {
        "copies/b.jpg": b"from an earlier run",
        "copies/b (2).jpg": PHOTO,
        "copies/c.jpg": OTHER,
        "copies/c (2).jpg": b"mine",
    }
    assert len(restore(report).restored) == 2
    assert tree(moved) == {"copies/b.jpg": b"from an earlier run", "copies/c (2).jpg": b"mine"}


def test_names_that_differ_by_case_only_are_two_photos(root: Path, trash: Path) -> None:
    fill(root, {"copies/B.JPG": OTHER})
    if (root / "copies/b.jpg").samefile(root / "copies/B.JPG"):
        pytest.skip("this disk does not tell b.jpg from B.JPG")
    for action in (f"move:{root.parent / 'moved'}", "trash"):
        before = tree(root)
        report = remove(
            root, [removal(root, path, "kept/a.jpg") for path in ("copies/b.jpg", "copies/B.JPG")], action
        )
        assert len(report.done) == 2
        assert len(restore(report).restored) == 2
        assert tree(root) == before


def test_undo_never_overwrites_what_is_there_now(root: Path) -> None:
    for action in ("trash", "move", "delete", "hardlink", "symlink"):
        report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], named(action, root))
        (root / "copies/b.jpg").unlink(missing_ok=True)
        fill(root, {"copies/b.jpg": b"a new photo"})
        undone = restore(report)
        assert undone.restored == ()
        assert "is a different file now, and is left alone" in undone.refusals[0].reason
        assert (root / "copies/b.jpg").read_bytes() == b"a new photo"
        (root / "copies/b.jpg").unlink()
        assert restore(report).restored == ("copies/b.jpg",)


def test_undo_makes_a_folder_again_and_follows_a_photo_folder_that_moved(root: Path) -> None:
    before = tree(root)
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "delete")
    (root / "copies/c.jpg").rename(root / "c.jpg")
    (root / "copies").rmdir()
    elsewhere = root.rename(root.parent / "elsewhere")
    with pytest.raises(PhotosError, match="root="):
        undo(report.journal)
    assert undo(report.journal, root=elsewhere).restored == ("copies/b.jpg",)
    assert tree(elsewhere)["copies/b.jpg"] == before["copies/b.jpg"]


def test_undo_says_why_where_the_keeper_or_the_moved_file_changed_since(root: Path) -> None:
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "delete")
    (root / "kept/a.jpg").write_bytes(b"edited")
    assert "kept/a.jpg, its copy, has changed since" in restore(report).refusals[0].reason
    report = remove(root, [removal(root, "copies/c.jpg", "kept/a.jpg")], named("move", root))
    (root.parent / "moved/copies/c.jpg").write_bytes(b"edited")
    assert "gone or has changed since it was moved" in restore(report).refusals[0].reason
    assert tree(root.parent / "moved") == {"copies/c.jpg": b"edited"}


def test_an_edited_hard_link_is_left_alone_by_undo(root: Path) -> None:
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "hardlink")
    (root / "copies/b.jpg").write_bytes(b"edited in place, and so is the keeper")
    assert "has changed since" in restore(report).refusals[0].reason
    assert (root / "copies/b.jpg").samefile(root / "kept/a.jpg")


def test_a_second_undo_goes_on_where_the_first_was_stopped(root: Path) -> None:
    before = tree(root)
    report = remove(root, [removal(root, path, "kept/a.jpg") for path in ("copies/b.jpg", "copies/c.jpg")], "trash")
    answers = iter([False, True])
    with pytest.raises(Stopped) as stopped:
        undo(report.journal, stop=lambda: next(answers))
    assert stopped.value.report == UndoReport(("copies/c.jpg",), (), ())
    assert undo(report.journal).restored == ("copies/b.jpg",)
    assert tree(root) == before


def test_stopping_leaves_the_rest_alone_and_the_journal_true(root: Path) -> None:
    plan = make_plan(
        root,
        [removal(root, path, "kept/a.jpg") for path in ("copies/b.jpg", "copies/c.jpg")],
        Action.parse("trash"),
    )
    seen: list[Progress] = []
    with pytest.raises(Stopped) as stopped:
        perform(plan, root.parent / "j.jsonl", progress=seen.append, stop=lambda: len(seen) == 1)
    report = stopped.value.report
    assert isinstance(report, RemovalReport)
    assert (len(report.done), seen) == (1, [Progress("removing duplicates", 1, 2)])
    assert "copies/c.jpg" in tree(root)


def test_a_person_can_read_the_journal(root: Path) -> None:
    fill(root, {"copies/é.jpg": PHOTO})
    report = remove(root, [removal(root, "copies/é.jpg", "kept/a.jpg")], named("move", root))
    lines = [json.loads(line) for line in report.journal.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["root"] == str(root)
    assert "é" in report.journal.read_text(encoding="utf-8")
    assert lines[1]["does"] == "move"
    assert lines[1]["path"] == "copies/é.jpg"
    assert lines[1]["target"] == str(root.parent / "moved/copies/é.jpg")
    assert (lines[2]["act"], lines[2]["outcome"]) == (1, "done")


def test_a_journal_is_never_written_over(root: Path) -> None:
    plan = make_plan(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], Action.parse("delete"))
    (root.parent / "journal.jsonl").write_text("mine")
    with pytest.raises(JournalError, match="File exists"):
        perform(plan, root.parent / "journal.jsonl")
    assert (root.parent / "journal.jsonl").read_text() == "mine"
    assert "copies/b.jpg" in tree(root)


def test_a_torn_last_line_is_no_damage(root: Path) -> None:
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "delete")
    whole = report.journal.read_bytes()
    for torn in range(whole.rindex(b"\n", 0, -1) + 2, len(whole)):
        report.journal.write_bytes(whole[:torn])
        assert undo(report.journal).restored == ("copies/b.jpg",)
        assert undo(report.journal).restored == ()
        (root / "copies/b.jpg").unlink()
    for nothing in (b"", b'{"jour'):
        report.journal.write_bytes(nothing)
        with pytest.raises(JournalError, match="before anything was done"):
            undo(report.journal)
    with pytest.raises(JournalError, match="cannot be read"):
        undo(root.parent / "no.jsonl")


def test_an_action_is_one_of_five(root: Path) -> None:
    assert Action.parse("move:/a:b") == Action("move", Path("/a:b"))
    for wrong in ("shred", "move", "move:", "delete:now", ""):
        with pytest.raises(OptionError):
            Action.parse(wrong)


def test_without_the_photo_folder_there_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match="Is its disk mounted"):
        make_plan(tmp_path / "photos", [], Action.parse("delete"))


def test_a_file_is_aside_under_a_hidden_name_with_its_suffix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asides = []

    def unlink(path: Path) -> None:
        asides.append(path)
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", unlink)
    report = remove(root, [removal(root, "copies/b.jpg", "kept/a.jpg")], "delete")
    assert asides[0].name.startswith(PREFIX)
    assert asides[0].suffix == ".jpg"
    assert "Operation not permitted" in report.refusals[0].reason
    assert stat.S_ISREG((root / "copies/b.jpg").lstat().st_mode)


def test_files_of_one_name_go_to_the_trash_as_fast_as_others(
    root: Path, trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that is in the trash, only what was just put there is read."""
    fill(root, {f"many/{number}/a.jpg": PHOTO for number in range(30)})
    fill(trash, {"info/a.jpg.trashinfo": b"[Trash Info]\nPath=elsewhere/a.jpg\n", "files/a.jpg": b"older"})
    read: list[Path] = []
    real = trashing._read

    def counted(note: Path) -> tuple[str | None, str]:
        read.append(note)
        return real(note)

    monkeypatch.setattr(trashing, "_read", counted)
    report = remove(root, [removal(root, f"many/{number}/a.jpg", "kept/a.jpg") for number in range(30)], "trash")
    assert (len(report.done), report.refusals) == (30, ())
    assert len(read) == len(set(read)) == 30
    assert len(restore(report).restored) == 30
    assert (trash / "files/a.jpg").read_bytes() == b"older"
