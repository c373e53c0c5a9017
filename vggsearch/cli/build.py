"""vggsearch build"""

from pathlib import Path

import click

from vggsearch.cli.options import byte_count, index_option, ray_option, table_or_json_option
from vggsearch.cli.output import say, show
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.defaults import BUILD, METRICS, Format
from vggsearch.image_index import ImageIndex
from vggsearch.progress import progress_bar
from vggsearch.render.build import built, recipes
from vggsearch.render.build import plan as plan_text
from vggsearch.store.locate import only_index


@click.command()
@index_option
@click.option(
    "--recipe",
    metavar="auto|NAME|FACTORY",
    help=f"auto, a name from --list, or a FAISS factory string.  [default: the last choice; {BUILD.recipe}]",
)
@click.option(
    "--memory",
    metavar="SIZE",
    callback=byte_count,
    help="Memory limit of the FAISS index: 500M, 4G.  [default: the last choice; 4G]",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Target recall of the ten nearest photos.  [default: the last choice; {BUILD.recall}]",
)
@click.option(
    "--metric",
    type=click.Choice(tuple(METRICS)),
    help="Metric of the FAISS index, for factory strings that require one; similarities are cosines in any "
    f"case.  [default: the last choice; {BUILD.metric}]",
)
@ray_option("Have the machines of a Ray cluster encode the vectors; auto is that of this machine.")
@click.option("--list", "is_list", is_flag=True, help="List the recipes with their size and capabilities.")
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@table_or_json_option
def build(
    directory: Path | None,
    recipe: str | None,
    memory: int | None,
    recall: float | None,
    metric: str | None,
    ray: str | None,
    is_list: bool,
    dry_run: bool,
    format: Format,
) -> None:
    """Rebuild the FAISS index from the stored embeddings.

    Shows the plan, builds, and measures the recall. Later runs of vggsearch index keep the same choices. The old
    FAISS index stays in use until the new one is complete.

    \b
    Example:
      vggsearch build
      vggsearch build --recipe ivf-sq8 --recall 0.995
      vggsearch build --memory 500M --dry-run
      vggsearch build --list
    """
    if is_list:
        show(recipes(format), format)
        return
    with ImageIndex.open(directory or only_index()) as opened:
        plan = opened.plan_build(recipe=recipe, memory=memory, recall=recall, metric=metric)
        if dry_run:
            show(plan_text(plan, format), format)
            return
        say(plan_text(plan, "table"), err=True)
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            made = opened.build(
                recipe=recipe, memory=memory, recall=recall, metric=metric, ray=ray, progress=progress, stop=stop
            )
    show(built(made, format), format)
