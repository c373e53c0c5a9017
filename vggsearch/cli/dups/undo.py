"""vggsearch dups undo"""

from pathlib import Path

import click

from vggsearch.cli.options import FILE, root_option
from vggsearch.cli.output import say
from vggsearch.cli.terminal import until_stopped
from vggsearch.duplicates.removals import undo as undo_removal
from vggsearch.removal.undo import UndoReport
from vggsearch.render.removal import undo_report


@click.command()
@click.argument("journal", type=FILE)
@root_option
def undo(journal: Path, root: Path | None) -> None:
    """Undo a removal: restore every file listed in JOURNAL, whose name vggsearch dups remove prints.

    Photos are restored in the folder that the journal names, if its index belongs to that folder; --root names it
    otherwise. Existing files are never overwritten. Exit status 1 if a file could not be restored.

    \b
    Example:
      vggsearch dups undo indexes/photos/journals/2026-11-24-204215.jsonl
    """
    report, stopped = until_stopped(
        lambda progress, stop: undo_removal(journal, root, progress=progress, stop=stop), UndoReport
    )
    say(undo_report(report))
    if stopped is not None:
        raise stopped
    if report.refusals:
        click.get_current_context().exit(1)
