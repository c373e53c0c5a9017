"""Remove a copy, or undo that, in processes that are killed: one at each step, in a folder of its own.

python -m tests.helpers.killed_removals TEMPLATE FOLDERS ACTION perform|undo [BESIDE]: each folder is a copy of
TEMPLATE.
Moved files go to BESIDE, or into the folder. This is a process of its own, since it forks.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.helpers.removals import Steps, removal, trash_in
from vggsearch.removal.perform import perform
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action
from vggsearch.removal.undo import undo

MOST = 400


def act(folder: Path, action: str) -> None:
    """Remove a copy with its companion where that comes back from its keeper, a near copy where it does not."""
    root = folder / "photos"
    path = "copies/b.jpg" if action in ("hardlink", "symlink", "delete") else "copies/c.jpg"
    removals = [removal(root, path, "kept/a.jpg")]
    perform(make_plan(root, removals, Action.parse(action)), folder / "journal.jsonl")


def killed(run: Callable[[], object], at: int) -> bool:
    """Run it in a child that is killed just before a step, that is just after the last one. False if it ended."""

    def step(number: int, do: Callable[[], object]) -> object:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return do()

    child = os.fork()
    if child == 0:
        with Steps(step).counted():
            run()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and status != 0:
        raise SystemExit(f"the child failed at {at}")
    return os.WIFSIGNALED(status)


def main(template: Path, folders: Path, action: str, what: str, beside: Path | None) -> None:
    for at in range(1, MOST):
        folder = folders / str(at)
        shutil.copytree(template, folder)
        words = f"move:{(beside or folder) / 'moved' / str(at)}" if action == "move" else action
        with trash_in(folder / "share"):
            if what == "undo":
                act(folder, words)
            run = (lambda: act(folder, words)) if what == "perform" else (lambda: undo(folder / "journal.jsonl"))  # noqa: B023
            if not killed(run, at):
                break


if __name__ == "__main__":
    _, template, folders, action, what, *beside = sys.argv
    main(Path(template), Path(folders), action, what, Path(beside[0]) if beside else None)
