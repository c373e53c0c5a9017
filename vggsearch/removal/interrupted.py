"""Say which file an interrupted removal has left under its hidden name, and how to get it back."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vggsearch.errors import ActionRefused, Spelled, shell_word
from vggsearch.removal.files import aside_name, resolve_inside
from vggsearch.removal.journal import unfinished_step

log = logging.getLogger(__name__)


def warn_of_interrupted(journals: Path, root: Path) -> None:
    """Log a warning for each journal in a folder whose last step was interrupted, if its file is still hidden."""
    for journal, path, aside in _hidden_files(journals, Path(os.path.realpath(root))):
        log.warning(
            "A removal was interrupted: %s is now called %s. To restore it, and all that this removal removed: %s",
            path,
            aside.name,
            Spelled(f"vggsearch.undo({str(journal)!r})", f"vggsearch dups undo {shell_word(journal)}"),
        )


def _hidden_files(journals: Path, root: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield the journals with a hidden file, the path that it had, and where it is."""
    for journal in sorted(journals.glob("*.jsonl")):
        with suppress(OSError, ActionRefused):  # undo tells what is wrong with a journal
            step = unfinished_step(journal)
            if step is not None:
                aside = aside_name(resolve_inside(root, step.path), step.token)
                if os.path.lexists(aside):
                    yield journal, step.path, aside
