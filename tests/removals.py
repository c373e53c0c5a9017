"""Folders of made-up photos to remove copies from. What matters is their bytes, so they are just that."""

import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path

from vggsearch.actions.perform import Report, perform
from vggsearch.actions.plan import make_plan
from vggsearch.actions.removal import Action, Removal
from vggsearch.actions.undo import UndoReport, undo

numbers = itertools.count(1)


def fill(root: Path, files: dict[str, bytes]) -> Path:
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
    root: Path, removals: Iterable[Removal], action: str, protect: Iterable[Path] = (), with_raw: bool = False
) -> Report:
    """Plan and perform, with a journal of its own beside the photo folder."""
    plan = make_plan(root, list(removals), Action.parse(action), list(protect), with_raw)
    return perform(plan, root.parent / f"journal{next(numbers)}.jsonl")


def restore(report: Report) -> UndoReport:
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
