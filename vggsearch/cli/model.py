"""vggsearch model"""

import click

from vggsearch.cli.options import table_or_json_option
from vggsearch.cli.output import show
from vggsearch.cli.terminal import stopping_on_ctrl_c
from vggsearch.defaults import EMBEDDING, Format
from vggsearch.errors import OptionError
from vggsearch.evaluation.networks import compare_networks
from vggsearch.model.networks import MODELS, network
from vggsearch.progress import progress_bar
from vggsearch.render.model import model as rendered
from vggsearch.render.model import networks


@click.command()
@click.option("--model", type=click.Choice(MODELS), default=EMBEDDING.model, show_default=True, help="Network.")
@click.option("--layer", help="Feature layer, or a sum of layers.  [default: that of the network]")
@click.option(
    "--size",
    type=click.IntRange(EMBEDDING.smallest_size, EMBEDDING.largest_size),
    default=224,
    show_default=True,
    help="Side of the square input in pixels.",
)
@click.option("--compare", is_flag=True, help="Show all networks side by side instead.")
@click.option("--measure", is_flag=True, help="With --compare, measure photos/s on this CPU, a few seconds each.")
@table_or_json_option
def model(model: str, layer: str | None, size: int, compare: bool, measure: bool, format: Format) -> None:
    """Show a network layer by layer: output shape, parameters, multiply-adds and receptive field.

    \b
    Example:
      vggsearch model --model vgg19 --layer fc7
      vggsearch model --compare --measure
    """
    if measure and not compare:
        raise OptionError("--measure needs --compare.")
    if compare:
        with progress_bar() as progress, stopping_on_ctrl_c() as stop:
            reports = compare_networks(measure=measure, progress=progress, stop=stop)
        show(networks(reports, format), format)
        return
    show(rendered(model, layer or network(model).layer, size, format), format)
