"""Folders of made-up photos to remove copies from. What matters is their bytes, so they are just that."""

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest
from send2trash import plat_other

from vggsearch.removal import files, journal
from vggsearch.removal.perform import RemovalReport, perform
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action, Removal
from vggsearch.removal.undo import UndoReport, undo

numbers = itertools.count(1)


def fill(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def removal(root: Path, path: str, keeper: str) -> Removal:
    """What an index would say of the two files as they are now."""
    content = (root / path).read_bytes()
    return Removal(path, sha256(content), len(content), keeper, sha256((root / keeper).read_bytes()))


def remove(
    root: Path, removals: Iterable[Removal], action: str, protect: Iterable[Path] = (), raw_pairs: bool = False
) -> RemovalReport:
    """Plan and perform, with a journal of its own beside the photo folder."""
    plan = make_plan(root, list(removals), Action.parse(action), list(protect), raw_pairs)
    return perform(plan, root.parent / f"journal{next(numbers)}.jsonl")


def restore(report: RemovalReport) -> UndoReport:
    return undo(report.journal)


def tree(folder: Path) -> dict[str, bytes]:
    """Every regular file below a folder, hidden ones too; symbolic links count as nothing."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def all_contents(*folders: Path) -> set[bytes]:
    return {content for folder in folders for content in tree(folder).values()}


@contextmanager
def trash_in(home: Path) -> Iterator[Path]:
    """A trash of one's own below `home`, in which Send2Trash itself puts files: the real one is never touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plat_other, "XDG_DATA_HOME", os.fsencode(home))
        patch.setattr(plat_other, "HOMETRASH_B", os.fsencode(home / "Trash"))
        patch.setattr(plat_other, "HOMETRASH", str(home / "Trash"))
        patch.setattr(plat_other, "get_dev", lambda _: 0)
        patch.setattr("send2trash.send2trash", plat_other.send2trash)
        yield home / "Trash"


class Steps:
    """Counts the steps by which files and journal change, so that something can happen at one of them.

    `at` is called before each step with its number, from 1 on, and what the step does; it may raise, or do it and
    raise.
    """

    def __init__(self, at: Callable[[int, Callable[[], object]], object]) -> None:
        self.at = at
        self.number = 0

    @contextmanager
    def counted(self) -> Iterator["Steps"]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)  # counted below; nobody pulls the plug here
            for name in ("rename", "unlink", "link", "symlink", "mkdir", "fsync", "chmod", "utime"):
                patch.setattr(os, name, self.wrap(getattr(os, name)))
            patch.setattr(files, "_system_renamed", self.wrap(files._system_renamed))
            patch.setattr(shutil, "copyfileobj", self.wrap(shutil.copyfileobj))
            patch.setattr(journal, "write_all", self.torn(journal.write_all))
            yield self

    def torn(self, write: Callable[[FileIO, bytes], None]) -> Callable[[FileIO, bytes], None]:
        """Write a line in two steps, so that something can happen between its halves."""
        step = self.wrap(write)

        def halves(file: FileIO, content: bytes) -> None:
            step(file, content[: len(content) // 2])
            step(file, content[len(content) // 2 :])

        return halves

    def wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def step(*given: object, **named: object) -> object:
            self.number += 1
            return self.at(self.number, lambda: real(*given, **named))

        return step
