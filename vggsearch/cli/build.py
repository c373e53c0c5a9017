"""vggsearch build"""

from pathlib import Path

import click

from vggsearch.cli.options import byte_count, index_option, numbers_option
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.defaults import BUILD, METRICS, Format
from vggsearch.progress import progress_bar
from vggsearch.store.locate import only_index


@click.command()
@index_option
@click.option(
    "--recipe",
    metavar="auto|NAME|FACTORY",
    help=f"How: auto, a name of --list, or a FAISS factory string.  [default: as last time; {BUILD.recipe}]",
)
@click.option(
    "--memory",
    metavar="SIZE",
    callback=byte_count,
    help="Memory that the FAISS index may take: 500M, 4G.  [default: as last time; 4G]",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Share of the ten nearest photos that are to be found.  [default: as last time; {BUILD.recall}]",
)
@click.option(
    "--metric",
    type=click.Choice(tuple(METRICS)),
    help="How FAISS compares what it holds, as some factory strings want it; the similarity that is "
    f"shown is the cosine in any case.  [default: as last time; {BUILD.metric}]",
)
@click.option("--list", "is_list", is_flag=True, help="Show the recipes there are, and what each takes and can.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@numbers_option
def build(
    directory: Path | None,
    recipe: str | None,
    memory: int | None,
    recall: float | None,
    metric: str | None,
    is_list: bool,
    dry_run: bool,
    format: Format,
) -> None:
    """Make the FAISS index anew from the stored embeddings, with a chosen or automatic recipe.

    It says what it is going to do, does it, then measures how many of the nearest photos are found. Later runs of
    vggsearch index go on with the same choice. Until it is done the old index is in use.

    \b
    Example:
      vggsearch build
      vggsearch build --recipe ivf-sq8 --recall 0.995
      vggsearch build --memory 500M --dry-run
      vggsearch build --list
    """
    from vggsearch.image_index import ImageIndex
    from vggsearch.render.build import built, recipes
    from vggsearch.render.build import plan as plan_text

    if is_list:
        click.echo(recipes(format))
        return
    with ImageIndex.open(directory or only_index()) as opened:
        plan = opened.plan_build(recipe=recipe, memory=memory, recall=recall, metric=metric)
        if dry_run:
            click.echo(plan_text(plan, format))
            return
        click.echo(plan_text(plan, "table"), err=True)
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            made = opened.build(
                recipe=recipe, memory=memory, recall=recall, metric=metric, progress=progress, stop=stop
            )
    click.echo(built(made, format))
