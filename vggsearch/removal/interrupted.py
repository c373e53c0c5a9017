"""Say which file an interrupted removal or undo has left under a hidden name, and how to get it back."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vggsearch.errors import ActionRefused, JournalError, Spelled, shell_word
from vggsearch.removal.files import aside_name, copy_name, old_link_name, resolve_inside
from vggsearch.removal.journal import next_to_undo

log = logging.getLogger(__name__)


def warn_of_interrupted(journals: Path, root: Path) -> None:
    """Log a warning for each file that an interrupted step has left hidden, with the journals of a folder."""
    for journal, path, hidden in _hidden_files(journals, Path(os.path.realpath(root))):
        log.warning(
            "A removal or its undo was interrupted: %s. To restore it, and all that this removal removed: %s",
            f"{hidden.name} was left beside {path}"
            if os.path.lexists(root / path)
            else f"{path} is now called {hidden.name}",
            Spelled(f"vggsearch.undo({str(journal)!r})", f"vggsearch dups undo {shell_word(journal)}"),
        )


def _hidden_files(journals: Path, root: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield the journals with a hidden file, the path that it had, and where it is."""
    for journal in sorted(journals.glob("*.jsonl")):
        with suppress(OSError, ActionRefused, JournalError):  # undo tells what is wrong with a journal
            step = next_to_undo(journal)
            if step is not None:
                place = resolve_inside(root, step.path)
                names = (name(place, step.token) for name in (aside_name, copy_name, old_link_name))
                yield from ((journal, step.path, hidden) for hidden in names if os.path.lexists(hidden))
