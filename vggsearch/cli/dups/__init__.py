"""vggsearch dups"""

import click

from vggsearch.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "find": LazyCommand(
        "vggsearch.cli.dups.find:find", "Find duplicates and suggest which to keep (the default command)."
    ),
    "decide": LazyCommand(
        "vggsearch.cli.dups.decide:decide", "Record which photos are duplicates and which are not."
    ),
    "remove": LazyCommand(
        "vggsearch.cli.dups.remove:remove", "Remove duplicates: to the trash, to a folder, as links, for good."
    ),
    "undo": LazyCommand("vggsearch.cli.dups.undo:undo", "Undo a removal."),
}


@click.group(cls=LazyGroup, table=COMMANDS, default="find", no_args_is_help=False)
def dups() -> None:
    """Find duplicates and edited copies, suggest which to keep, and remove the others.

    find is the default command: vggsearch dups --html x.html runs vggsearch dups find --html x.html.

    \b
    Example:
      vggsearch dups
      vggsearch dups --html dups.html
      vggsearch dups decide --not-duplicates a.jpg b.jpg
      vggsearch dups remove trash
      vggsearch dups undo indexes/photos/journals/2026-11-24-204215.jsonl
    """
