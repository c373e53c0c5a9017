"""Any folder, any removals, interrupted anywhere, any number of times: every content is there, or comes back."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.removals import Steps, all_contents, fill, sha256, trash_in, tree
from vggsearch.errors import JournalError
from vggsearch.removal.files import PREFIX
from vggsearch.removal.journal import read_journal
from vggsearch.removal.perform import perform
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action, Removal
from vggsearch.removal.undo import undo

PHOTOS = ("a/1.jpg", "a/1.JPG", "a/1.heic", "a/2.jpg", "b/1.jpg", "b/2.png", "c.jpg", "c.dng")
COMPANIONS = ("a/1.xmp", "a/1.jpg.xmp", "a/1.mov", "b/1.xmp", "b/1.mov", "c.xmp")
CONTENTS = (b"one", b"two", b"another length", b"")  # the first two are as long as one another
ACTIONS = ("trash", "move:moved", "move:photos/.moved", "hardlink", "symlink", "delete")


@dataclass(frozen=True)
class Run:
    """One use of `dups --action`, and where it and its undo are killed, in steps; None for not at all."""

    action: str
    pairs: list[tuple[str, str]]
    protect: str | None
    killed: int | None
    undo_killed: int | None


class Killed(BaseException):
    """No handler of errors stops it, as none would run in a process that is killed."""


files = st.dictionaries(st.sampled_from(PHOTOS + COMPANIONS), st.sampled_from(CONTENTS), min_size=3)
links = st.dictionaries(st.sampled_from(PHOTOS), st.tuples(st.sampled_from(PHOTOS), st.booleans()), max_size=3)
a_kill = st.none() | st.integers(1, 40)
runs = st.builds(
    Run,
    st.sampled_from(ACTIONS),
    st.lists(st.tuples(st.sampled_from(PHOTOS), st.sampled_from(PHOTOS)), min_size=1, max_size=6),
    st.none() | st.sampled_from(("photos/a", "photos/b")),
    a_kill,
    a_kill,
)


@contextmanager
def killed_at(step: int | None) -> Iterator[None]:
    """From that step on, nothing gets through to the disk."""

    def at(number: int, do: Callable[[], object]) -> object:
        if step is not None and number >= step:
            raise Killed
        return do()

    with Steps(at).counted(), suppress(Killed):
        yield


def link(root: Path, wanted: dict[str, tuple[str, bool]]) -> None:
    for path, (to, hard) in wanted.items():
        if not os.path.lexists(root / path) and (root / to).is_file() and path != to:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if hard:
                (root / path).hardlink_to(root / to)
            else:
                (root / path).symlink_to(root / to)


def symlinks(root: Path) -> dict[str, str]:
    return {str(path): str(path.readlink()) for path in root.rglob("*") if path.is_symlink()}


@settings(max_examples=examples(150))
@given(files=files, links=links, runs=st.lists(runs, min_size=1, max_size=4))
@example(
    files={"a/1.jpg": b"one", "b/1.jpg": b"one", "c.jpg": b"one"},
    links={},
    runs=[
        Run("delete", [("a/1.jpg", "b/1.jpg")], None, None, None),
        Run("move:moved", [("b/1.jpg", "c.jpg")], None, None, None),
        Run("symlink", [("a/1.jpg", "c.jpg")], None, None, None),
    ],
)
def test_every_content_is_there_or_comes_back(
    files: dict[str, bytes], links: dict[str, tuple[str, bool]], runs: list[Run]
) -> None:
    with tempfile.TemporaryDirectory() as name, trash_in(Path(name) / "share"), chdir(name):
        folder = Path.cwd()
        root = fill(folder / "photos", files)
        link(root, links)
        before, before_links = tree(root), symlinks(root)
        gone: set[bytes] = set()  # what was deleted on purpose, though nothing else had its bytes
        journals = []
        for number, run in enumerate(runs):
            gone |= do(root, before, run, folder / f"{number}.jsonl")
            journals.append((folder / f"{number}.jsonl", run.undo_killed))
        for journal, killed in reversed(journals):
            take_back(journal, killed, gone)
        after = tree(root)
        assert {path: content for path, content in after.items() if before.get(path) != content} == {}
        assert {before[path] for path in before.keys() - after.keys()} <= gone
        assert symlinks(root) == before_links
        assert tree(folder / "moved") == {}
        assert not list(folder.rglob(f"{PREFIX}*"))


def do(root: Path, scanned: dict[str, bytes], run: Run, journal: Path) -> set[bytes]:
    """Do a run, as the scan before all of them has it; return the contents that it deletes for good."""
    folder = root.parent
    removals = [
        Removal(path, sha256(scanned[path]), len(scanned[path]), keeper, sha256(scanned[keeper]))
        for path, keeper in run.pairs
        if path in scanned and keeper in scanned
    ]
    protect = [folder / run.protect] if run.protect and (folder / run.protect).exists() else []
    protected = {path: content for each in protect for path, content in tree(each).items()}
    plan = make_plan(root, removals, Action.parse(run.action), protect)
    on_purpose = {scanned[act.path] for act in plan.irreversible}
    before, kept = all_contents(folder), {scanned[act.removal.keeper] for act in plan.removals}
    with killed_at(run.killed):
        perform(plan, journal)
    assert before - on_purpose <= all_contents(folder)
    assert kept <= all_contents(root)
    assert {path: content for each in protect for path, content in tree(each).items()} == protected
    return on_purpose


def take_back(journal: Path, killed: int | None, gone: set[bytes]) -> None:
    """Undo, killed and whole, and again, which changes nothing."""
    if not journal.exists():
        return
    with suppress(JournalError):  # killed in its very first line
        with killed_at(killed):
            undo(journal)
        lost = {sha256(content) for content in gone}
        refused = {refusal.path for refusal in undo(journal).refusals}
        entries = [entry for entry in read_journal(journal).entries if entry.path in refused]
        assert {entry.sha256 for entry in entries} <= lost
        assert undo(journal).restored == ()
