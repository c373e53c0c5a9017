"""Whatever is damaged in an index, a repair keeps the user's decisions and journals, and both go on working."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakes import FAKE_SPEC, FakeEngine, save_photo
from tests.helpers.removals import fill, removal, remove, tree
from vggsearch.duplicates.removals import new_journal
from vggsearch.errors import (
    DecisionsDamaged,
    IndexDamaged,
    IndexExists,
    IndexMissing,
    JournalError,
    VggsearchError,
)
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.removal.perform import perform
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action
from vggsearch.removal.undo import undo
from vggsearch.store.contents import (
    DAMAGED_DECISIONS,
    DECISIONS,
    DERIVED_FILES,
    JOURNALS,
    STAMPS,
    USER_FILES,
    foreign_files,
)
from vggsearch.store.decisions import (
    Decision,
    Decisions,
    add_decisions,
    as_text,
    decide,
    read_decisions,
    set_damaged_lines_aside,
)
from vggsearch.store.store import Store
from vggsearch.system.json_lines import decoded, encoded

OTHER_SHA = "0123456789abcdef" * 4
FLIPS = int(os.environ.get("FLIPS", "120"))  # of each file; docs/reliability.md has figures for every byte


@dataclass(frozen=True)
class Used:
    """An index that was used: photos indexed in two parts, one decision, one copy moved away with a journal."""

    directory: Path
    photos: Path
    journal: Path
    moved: str
    pair: tuple[str, str]

    @property
    def parts(self) -> list[Path]:
        return sorted((self.directory / "embeddings").iterdir())

    def kept(self) -> dict[str, bytes]:
        """The bytes of the user's files."""
        return {path: content for path, content in tree(self.directory).items() if path.startswith(USER_FILES)}

    def reopened(self) -> ImageIndex:
        return ImageIndex.for_photos(self.photos, self.directory, engine=FakeEngine())


@pytest.fixture
def used(photos: Path, tmp_path: Path) -> Used:
    shutil.copy(photos / "summer" / "1.jpg", photos / "winter" / "copy.jpg")
    directory = tmp_path / "idx"
    with ImageIndex.for_photos(photos, directory, engine=FakeEngine()) as index:
        index.update(photos)
        save_photo(photos / "new.jpg", 20)
        index.update(photos)
        pair = ("summer/2.jpg", "new.jpg")
        index.decide("different", pair)
    plan = make_plan(
        photos, [removal(photos, "winter/copy.jpg", "summer/1.jpg")], Action.parse(f"move:{tmp_path / 'moved'}")
    )
    report = perform(plan, new_journal(directory))
    assert [entry.path for entry in report.done] == ["winter/copy.jpg"]
    return Used(directory, photos, report.journal, "winter/copy.jpg", pair)


def lose_the_manifest(used: Used) -> None:
    (used.directory / "manifest.json").unlink()


def damage_the_manifest(used: Used) -> None:
    path = used.directory / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"parts"', b'"party"'))


def lose_all_parts(used: Used) -> None:
    for part in used.parts:
        part.unlink()


def lose_the_folder_of_parts(used: Used) -> None:
    shutil.rmtree(used.directory / "embeddings")


def zero_all_parts(used: Used) -> None:
    for part in used.parts:
        part.write_bytes(bytes(part.stat().st_size))


def damage_all_paths(used: Used) -> None:
    """Spoil the first column of each part, the paths; the footer with its spec stays."""
    for part in used.parts:
        content = bytearray(part.read_bytes())
        content[4:200] = bytes(196)
        part.write_bytes(content)


def lose_the_vector_index(used: Used) -> None:
    shutil.rmtree(used.directory / "search")


def damage_nothing(_: Used) -> None:
    """Leave all as it is."""


PARTS_LOST = (lose_all_parts, lose_the_folder_of_parts, zero_all_parts, damage_all_paths)


@pytest.mark.parametrize("manifest", [damage_nothing, lose_the_manifest, damage_the_manifest])
@pytest.mark.parametrize("others", [damage_nothing, lose_the_vector_index, *PARTS_LOST])
def test_a_repair_keeps_decisions_and_journals_and_an_update_fills_the_index_again(
    used: Used, manifest: Callable[[Used], None], others: Callable[[Used], None]
) -> None:
    kept = used.kept()
    assert sorted(kept) == [DECISIONS, f"{JOURNALS}/{used.journal.name}"]
    manifest(used)
    others(used)
    try:
        report = verify(used.directory, repair=True)
    except IndexDamaged as error:
        assert manifest is not damage_nothing
        assert others in (lose_all_parts, lose_the_folder_of_parts, zero_all_parts)
        assert used.kept() == kept
        follow(error, used.directory)
    else:
        assert report.is_repaired == ((manifest, others) != (damage_nothing, damage_nothing))
        assert verify(used.directory).findings == ()
        assert report.photos == (0 if others in PARTS_LOST else 8)
    assert used.kept() == kept
    works_again(used)


def works_again(used: Used) -> None:
    """Index again, see that the decision counts, and undo what was done before the damage."""
    with used.reopened() as index:
        index.update(used.photos)
        assert len(index) == 7
        assert verify(used.directory).findings == ()
        decisions = read_decisions(used.directory / DECISIONS)
        assert list(decisions.pairs().values()) == ["different"]
        assert decisions.made[0].paths == used.pair
        assert undo(used.journal).restored == (used.moved,)
        assert (used.photos / used.moved).read_bytes() == (used.photos / "summer" / "1.jpg").read_bytes()
        assert index.update().photos == 8


def follow(error: VggsearchError, directory: Path) -> None:
    """Do what the message says, to the letter: delete the files it lists, no others."""
    [shown] = re.findall(r"\. Delete (.*), and nothing else\. Keep decisions\.jsonl and journals/", str(error))
    for path in map(Path, re.split(", | and ", shown)):
        assert path.parent == directory
        assert path.name in DERIVED_FILES
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert f"vggsearch index PHOTOS --index {directory}" in error.for_shell()


def test_no_message_advises_to_delete_an_index() -> None:
    package = Path(__file__).parent.parent / "vggsearch"
    for path in package.rglob("*.py"):
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
        assert not re.search(r"[Dd]elete (the|this|your) index", text), path


def test_what_a_lost_manifest_said_is_shown_where_it_can_still_be_read(used: Used) -> None:
    zero_all_parts(used)
    lose_the_manifest(used)
    with pytest.raises(IndexDamaged, match="with the options that it was made with"):
        verify(used.directory, repair=True)


def test_a_manifest_that_is_damaged_elsewhere_still_says_how_to_index_again(used: Used) -> None:
    zero_all_parts(used)
    damage_the_manifest(used)
    with pytest.raises(IndexDamaged, match=r"with the options of vgg16 pool4\+pool5 spoc, 192"):
        verify(used.directory, repair=True)
    with pytest.raises(IndexDamaged):
        used.reopened()


def test_what_is_left_of_a_lost_index_has_to_go_before_another_is_made_there(used: Used) -> None:
    kept = used.kept()
    lose_the_manifest(used)
    lose_the_folder_of_parts(used)
    for repair in (False, True):
        with pytest.raises(IndexDamaged, match=r"Delete .*search, .*local and .*stamps.parquet, and nothing else"):
            verify(used.directory, repair=repair)
    with pytest.raises(
        IndexExists, match=r"idx holds search, local, stamps.parquet of a lost index. Delete these and nothing else"
    ):
        used.reopened()
    shutil.rmtree(used.directory / "local")
    shutil.rmtree(used.directory / "search")
    (used.directory / STAMPS).unlink()
    with pytest.raises(IndexMissing, match="The decisions and undo journals in it are kept"):
        verify(used.directory, repair=True)
    works_again(used)
    assert used.kept()[DECISIONS] == kept[DECISIONS]


@pytest.mark.parametrize("strange", ["letter.txt", "search/letter.txt", "calibration.json", "local/000001/x.npy"])
def test_a_folder_that_holds_anything_else_never_becomes_an_index(tmp_path: Path, strange: str) -> None:
    fill(tmp_path / "x", {strange: b"precious"})
    with pytest.raises(IndexExists, match="is not empty and not an index"):
        Store.create(tmp_path / "x", FAKE_SPEC)
    fill(tmp_path / "x", {DECISIONS: b""})
    with pytest.raises(IndexExists):
        Store.create(tmp_path / "x", FAKE_SPEC)
    assert (tmp_path / "x" / strange).read_bytes() == b"precious"


def test_every_file_of_an_index_is_listed(used: Used) -> None:
    assert foreign_files(used.directory) == []
    (used.directory / "decisions.jsonl.123.tmp").touch()
    assert foreign_files(used.directory) == []
    (used.directory / "notes.tmp").touch()
    assert foreign_files(used.directory) == [used.directory / "notes.tmp"]


def step(content: bytes) -> int:
    """How far apart the bytes are that are flipped."""
    return max(1, len(content) // FLIPS)


# ---- decisions.jsonl


def decisions(count: int) -> list[Decision]:
    return [
        decide("different", [(f"{number:064x}", f"{number}.jpg"), (OTHER_SHA, "é.jpg")]) for number in range(count)
    ]


def damage_line(path: Path, number: int, damaged: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = damaged
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "damaged",
    [
        b"{torn\n",
        b"\xff\xfe\n",
        bytes(80) + b"\n",
        b"[1]\n",
        b'{"at": "2026-01-01T00:00:00", "judgement": "perhaps", "photos": [], "paths": []}\n',
        b'{"at": "soon", "judgement": "same", "photos": [], "paths": []}\n',
        b'{"at": "2026-01-01T00:00:00", "judgement": "same", "photos": ["zz"], "paths": ["a.jpg"]}\n',
    ],
)
def test_a_damaged_decision_is_named_never_passed_over_and_set_aside_by_a_repair(
    used: Used, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    add_decisions(used.directory, decisions(2))
    path = used.directory / DECISIONS
    before = read_decisions(path).made
    damage_line(path, 2, damaged)
    content = path.read_bytes()
    with used.reopened() as index:
        found = index.duplicates()
        assert re.search(r"Line 2 of .*decisions.jsonl cannot be read \(.*\) and does not apply", caplog.text)
        with pytest.raises(DecisionsDamaged, match=r"Line 2 of .*decisions.jsonl cannot be read"):
            index.plan_removal(found, "trash")
        index.decide("same", used.pair)
    assert path.read_bytes().startswith(content)
    assert len(path.read_bytes().splitlines()) == 4
    last = read_decisions(path).made[-1]
    assert last.judgement == "same"
    [finding] = verify(used.directory).findings
    assert (finding.file, finding.is_repaired) == (DECISIONS, False)
    assert "line 2 cannot be read" in finding.problem
    assert "moves this line to decisions.damaged.jsonl and keeps all others" in finding.way_out.shell

    report = verify(used.directory, repair=True)
    assert report.is_repaired
    assert "dups decide --import" in report.findings[0].way_out.shell
    assert read_decisions(path).made == (before[0], before[2], last)
    assert (used.directory / DAMAGED_DECISIONS).read_bytes() == damaged
    [note] = verify(used.directory).notes
    assert "do not apply" in str(note)


def test_a_line_that_was_set_aside_counts_again_once_corrected_and_imported(
    used: Used, caplog: pytest.LogCaptureFixture
) -> None:
    path, aside = used.directory / DECISIONS, used.directory / DAMAGED_DECISIONS
    before, whole = read_decisions(path), path.read_bytes()
    damage_line(path, 1, b"?" + whole)
    verify(used.directory, repair=True)
    with used.reopened() as index:
        index.duplicates()
        assert "decisions.damaged.jsonl holds lines that could not be read" in caplog.text
        done = index.import_decisions(aside)
        assert (done.added, [error.line for error in done.damaged]) == (0, [1])
        aside.write_bytes(aside.read_bytes()[1:])
        assert index.import_decisions(aside).added == 1
        aside.unlink()
        caplog.clear()
        index.duplicates()
    assert read_decisions(path) == before
    assert caplog.text == ""


def test_repairs_gather_damaged_lines_and_a_repair_that_was_cut_short_loses_none(used: Used) -> None:
    add_decisions(used.directory, decisions(3))
    path, aside = used.directory / DECISIONS, used.directory / DAMAGED_DECISIONS
    damage_line(path, 1, b"first\n")
    between = path.read_bytes()
    verify(used.directory, repair=True)
    path.write_bytes(between)  # as if it had been killed before the second of the two files was replaced
    verify(used.directory, repair=True)
    damage_line(path, 1, b"second\n")
    verify(used.directory, repair=True)
    assert aside.read_bytes() == b"first\nsecond\n"
    assert len(read_decisions(path).made) == 2


def test_whichever_byte_of_the_decisions_is_damaged_none_is_altered_and_no_line_is_lost(tmp_path: Path) -> None:
    made = decisions(3)
    add_decisions(tmp_path, made)
    path, aside = tmp_path / DECISIONS, tmp_path / DAMAGED_DECISIONS
    whole = path.read_bytes()
    for position in range(0, len(whole), step(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x11
        path.write_bytes(changed)
        read = read_decisions(path)
        assert set(read.made) < set(made) if read.damaged else read.made == tuple(made), position
        set_damaged_lines_aside(tmp_path)
        assert read_decisions(path) == Decisions(read.made)
        assert len(read.made) >= 1
        lines = [*path.read_bytes().split(b"\n"), *(aside.read_bytes().split(b"\n") if aside.exists() else ())]
        assert sorted(filter(None, lines)) == sorted(filter(None, bytes(changed).split(b"\n")))
        aside.unlink(missing_ok=True)


def test_a_line_may_be_changed_by_hand_if_its_checksum_is_deleted_too(tmp_path: Path) -> None:
    [made] = decisions(1)
    add_decisions(tmp_path, [made])
    path = tmp_path / DECISIONS
    whole = path.read_text("utf-8")
    changed = whole.replace('"different"', '"same"')
    path.write_text(changed, "utf-8")
    [damaged] = read_decisions(path).damaged
    assert 'if you changed it yourself, delete its "check", too' in str(damaged)
    path.write_text(re.sub(', "check": "[0-9a-f]{8}"', "", changed), "utf-8")
    assert read_decisions(path) == Decisions((replace(made, judgement="same"),))
    values = json.loads(whole)
    path.write_text(json.dumps(dict(reversed(values.items())), separators=(",", ":")), "utf-8")
    assert read_decisions(path) == Decisions((made,))


def test_a_path_may_contain_what_python_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    odd = decide("same", [(OTHER_SHA, "a\u2028b\x85c.jpg"), ("f" * 64, "line\nfeed.jpg")])
    path = tmp_path / DECISIONS
    path.write_text(as_text([odd]), "utf-8")
    assert read_decisions(path).made == (odd,)


# ---- journals


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power fails here, and there are thousands
    return fill(tmp_path / "photos", {"kept/a.jpg": b"photo", **{f"copies/{n}.jpg": b"photo" for n in range(4)}})


def removed(root: Path, action: str) -> Path:
    """Remove the four copies; return the journal."""
    removals = [removal(root, f"copies/{n}.jpg", "kept/a.jpg") for n in range(4)]
    report = remove(root, removals, f"move:{root.parent / 'moved'}" if action == "move" else action)
    assert len(report.done) == 4
    return report.journal


@pytest.mark.parametrize("action", ["move", "delete", "hardlink", "symlink"])
def test_a_damaged_line_costs_at_most_its_own_file_and_undo_says_which(root: Path, action: str) -> None:
    before = tree(root)
    journal = removed(root, action)
    lines = journal.read_bytes().split(b"\n")[:-1]
    assert len(lines) == 9
    for number in range(2, 10):
        for damaged in (b"", b"\0" * 40, b"[1]", lines[number - 1][:-3]):
            some = [*lines[: number - 1], damaged, *lines[number:]]
            journal.write_bytes(b"\n".join(some) + b"\n")
            report = undo(journal)
            lost = f"copies/{number // 2 - 1}.jpg" if number % 2 == 0 else None
            assert {*report.restored, lost or report.restored[0]} == {path for path in before if "copies" in path}
            assert [refusal.path for refusal in report.refusals] == ([lost] if lost else [])
            if lost:
                assert f"line {number} of {journal} is damaged" in report.refusals[0].reason
            assert undo(journal).restored == ()
            journal.write_bytes(b"\n".join(lines) + b"\n")
            assert undo(journal).restored == ((lost,) if lost else ())
            assert tree(root) == before
            for path in tree(root):
                if "copies" in path:
                    (root / path).unlink()
            again(root, action, journal, lines)


def again(root: Path, action: str, journal: Path, lines: list[bytes]) -> None:
    """Remove the copies once more as the journal says: with its names."""
    for number in range(4):
        path = root / f"copies/{number}.jpg"
        if action == "move":
            fill(root.parent / "moved", {f"copies/{number}.jpg": b"photo"})
        if action == "hardlink":
            path.hardlink_to(root / "kept/a.jpg")
        if action == "symlink":
            path.symlink_to("../kept/a.jpg")
    journal.write_bytes(b"\n".join(lines) + b"\n")


def test_a_line_that_is_missing_is_told_by_its_outcome(root: Path) -> None:
    journal = removed(root, "delete")
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([*lines[:3], *lines[4:]]))
    report = undo(journal)
    assert report.restored == ("copies/3.jpg", "copies/2.jpg", "copies/0.jpg")
    [refusal] = report.refusals
    assert refusal.path == "copies/1.jpg"
    assert "no line records act 2" in refusal.reason


def test_without_its_first_line_a_journal_needs_the_photo_folder(root: Path) -> None:
    journal = removed(root, "move")
    lines = journal.read_bytes().split(b"\n")
    for damaged in (b"{}", b"\0", b'{"journal": 1, "root": 3, "action": "move"}', b'{"journal": "1"}'):
        journal.write_bytes(b"\n".join([damaged, *lines[1:]]))
        with pytest.raises(
            JournalError, match=r"does not name the photo folder .* Pass it: root='PHOTOS'"
        ) as raised:
            undo(journal)
        assert "--root PHOTOS" in raised.value.for_shell()
    assert len(undo(journal, root=root).restored) == 4


def test_a_journal_of_a_later_version_and_what_is_no_journal_are_refused(root: Path) -> None:
    journal = removed(root, "delete")
    first, *lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([encoded(decoded(first) | {"journal": 2}), *lines]))
    with pytest.raises(JournalError, match=r"has format 2; this version reads 1\. Update vggsearch"):
        undo(journal)
    for content in (b"a letter\n", b'{"at": "soon"}\n', b"[]\n"):
        journal.write_bytes(content)
        with pytest.raises(JournalError, match="is not a journal"):
            undo(journal)


def test_whichever_byte_of_a_journal_is_damaged_no_photo_is_lost_and_at_most_one_stays_away(root: Path) -> None:
    before = tree(root)
    journal = removed(root, "move")
    whole = journal.read_bytes()
    lines = whole.split(b"\n")[:-1]
    for position in range(0, len(whole), step(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x11
        journal.write_bytes(changed)
        report = undo(journal, root=root)
        back = [path for path in before if path in tree(root)]
        assert len(back) >= len(before) - 1, position
        assert len(back) == len(before) or report.refusals, position
        assert set(tree(root)) <= set(before), position
        there = [*tree(root).values(), *tree(root.parent / "moved").values()]
        assert there.count(b"photo") >= 5  # one more if a copy was made of what is kept
        shutil.rmtree(root)
        shutil.rmtree(root.parent / "moved")
        fill(root, {"kept/a.jpg": b"photo"})
        again(root, "move", journal, lines)


def test_verify_names_a_damaged_journal_and_a_repair_leaves_it_as_it_is(used: Used) -> None:
    content = used.journal.read_bytes()
    damage_line(used.journal, 2, b"{torn\n")
    damaged = used.journal.read_bytes()
    for repair in (False, True):
        report = verify(used.directory, repair=repair)
        [finding] = report.findings
        assert (report.is_whole, report.is_repaired) == (False, False)
        assert finding.file == f"journals/{used.journal.name}"
        assert finding.problem.startswith("line 2 is damaged")
        assert "no repair changes a journal; vggsearch dups undo JOURNAL" in finding.way_out.shell
        assert used.journal.read_bytes() == damaged
    used.journal.write_bytes(content)
    assert verify(used.directory).findings == ()


def test_a_repair_of_all_at_once_says_what_it_did_and_what_it_left(used: Used) -> None:
    damage_line(used.directory / DECISIONS, 1, b"torn\n")
    damage_line(used.journal, 3, b"torn\n")
    damage_the_manifest(used)
    damage_all_paths(used)
    report = verify(used.directory, repair=True)
    states = {finding.file.split("/")[0]: finding.is_repaired for finding in report.findings}
    assert states == {"manifest.json": True, "embeddings": True, DECISIONS: True, JOURNALS: False}
    with used.reopened() as index:
        assert index.update(used.photos).indexed == 7
    assert undo(used.journal).restored == (used.moved,)
