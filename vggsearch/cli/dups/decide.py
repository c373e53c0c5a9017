"""vggsearch dups decide"""

from pathlib import Path

import click

from vggsearch.cli.options import FILE, index_option, root_option
from vggsearch.cli.output import say
from vggsearch.image_index import ImageIndex
from vggsearch.photos.walk import one_line
from vggsearch.render.text import quantity
from vggsearch.store.decisions import Judgement
from vggsearch.store.locate import only_index

SAVED: dict[Judgement, str] = {
    "same": "Saved: the {} are duplicates of each other.",
    "different": "Saved: the {} are not duplicates of each other.",
    "keep": "Saved: the {} will be kept.",
    "undecided": "Cleared earlier decisions about the {}.",
}

CONFLICT: dict[Judgement, str] = {"same": "duplicates", "different": "not duplicates"}


@click.command()
@click.argument("photos", nargs=-1, metavar="PHOTO...")
@click.option("--same", "judgement", flag_value="same", help="These photos are duplicates of each other.")
@click.option(
    "--not-duplicates", "judgement", flag_value="different", help="These photos are not duplicates of each other."
)
@click.option("--keep", "judgement", flag_value="keep", help="Keep these photos, each in its group.")
@click.option(
    "--undecided", "judgement", flag_value="undecided", help="Forget earlier decisions about these photos."
)
@click.option(
    "--import",
    "imported",
    type=FILE,
    metavar="FILE",
    help="Import the decisions of another index, its decisions.jsonl.",
)
@index_option
@root_option
def decide(
    photos: tuple[str, ...],
    judgement: Judgement | None,
    imported: Path | None,
    directory: Path | None,
    root: Path | None,
) -> None:
    """Record a decision about every pair of the named photos. It overrides the calibration from then on.

    --keep is about each photo: it is the one to keep in its group, and is not removed.

    Decisions are tied to the content of the photos, so they survive renames and moves. That two identical files are
    not duplicates is tied to their names.

    \b
    Example:
      vggsearch dups decide --not-duplicates a.jpg b.jpg
      vggsearch dups decide --same a.jpg b.jpg c.jpg
      vggsearch dups decide --keep best.jpg
      vggsearch dups decide --import indexes/phone/decisions.jsonl
    """
    if imported is not None and (photos or judgement is not None):
        raise click.UsageError("--import takes no PHOTO and no decision; run it by itself.")
    if imported is None and judgement is None:
        raise click.UsageError("Add a decision: --same, --not-duplicates, --keep or --undecided.")
    with ImageIndex.open(directory or only_index(), root=root) as opened:
        if imported is not None:
            _import(opened, imported)
        elif judgement is not None:
            decision = opened.decide(judgement, photos)
            say(SAVED[judgement].format(quantity(len(decision.photos), "photo")))


def _import(opened: ImageIndex, file: Path) -> None:
    """Import decisions, and print what became of conflicts; exit with status 1 if a line could not be read."""
    done = opened.import_decisions(file)
    say(f"Imported {quantity(done.added, 'new decision')}.")
    for decision in done.conflicts:
        names = " and ".join(map(one_line, decision.paths))
        say(f"The two files disagreed about {names}: they are {CONFLICT[decision.judgement]}.")
    for error in done.damaged:
        say(f"Error: line {error.line} of {one_line(str(file))} cannot be read: {error.problem}", err=True)
    if done.damaged:
        click.get_current_context().exit(1)
