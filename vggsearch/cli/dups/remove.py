"""vggsearch dups remove"""

from pathlib import Path

import click

from vggsearch.cli.dups.selection import Selection, find_duplicates, selection_options
from vggsearch.cli.options import index_option, root_option
from vggsearch.cli.output import say
from vggsearch.cli.terminal import until_stopped
from vggsearch.errors import Stopped
from vggsearch.image_index import ImageIndex
from vggsearch.removal.perform import RemovalReport
from vggsearch.removal.request import Action
from vggsearch.render.removal import removal_plan, removal_report
from vggsearch.store.locate import only_index


def _action(_context: click.Context, _argument: click.Parameter, text: str) -> str:
    """Refuse an unknown action before the search for duplicates, which may take long."""
    return str(Action.parse(text))


@click.command()
@click.argument("action", callback=_action)
@click.option("--yes", is_flag=True, help="Remove the photos. Without it, only the plan is printed.")
@index_option
@selection_options
@click.option("--raw-pairs", is_flag=True, help="Also remove photos that have a RAW file beside them.")
@root_option
def remove(
    action: str,
    yes: bool,
    directory: Path | None,
    selection: Selection,
    raw_pairs: bool,
    root: Path | None,
) -> None:
    """Remove the duplicates of each group, all but the photo to keep. Prints the plan; --yes carries it out.

    \b
    ACTION is one of
      trash     move them to the trash
      move:DIR  move them to the folder DIR, subfolders kept
      hardlink  replace exact copies with hard links to the photo that is kept
      symlink   replace exact copies with symbolic links to it
      delete    delete them for good

    Every file is compared with the index again before it goes, and every removal is logged in a journal for
    vggsearch dups undo. Exit status 1 if a photo of the plan could not be removed.

    \b
    Example:
      vggsearch dups remove trash
      vggsearch dups remove move:../duplicates --protect best --yes
      vggsearch dups remove trash --keep oldest --min-precision 0.999 --yes
    """
    with ImageIndex.open(directory or only_index(), root=root) as opened:
        report, stopped = find_duplicates(opened, selection)
        if stopped is not None:
            raise Stopped("Stopped before all pairs were compared; nothing was removed.")
        plan = opened.plan_removal(report, action, protect=selection["protect"], raw_pairs=raw_pairs)
        say(removal_plan(plan), err=yes)
        if not yes:
            say(dry_run(has_irreversible=bool(plan.irreversible)), err=True)
            return
        if not plan.removals:  # a removal of nothing needs no journal
            return
        removed, stopped = until_stopped(
            lambda progress, stop: opened.remove(plan, progress=progress, stop=stop), RemovalReport
        )
    say(removal_report(removed, root))
    if stopped is not None:
        raise stopped
    if removed.refusals:
        click.get_current_context().exit(1)


def dry_run(*, has_irreversible: bool) -> str:
    """Return the line that ends a plan."""
    undo = "everything except those edited copies" if has_irreversible else "everything"
    return f"Dry run, nothing was changed. Add --yes to apply; {undo} can be undone."
