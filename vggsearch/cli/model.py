"""vggsearch model"""

import click

from vggsearch.cli.output import say
from vggsearch.defaults import EMBEDDING
from vggsearch.model.networks import MODELS, network
from vggsearch.render.model import model as rendered


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
def model(model: str, layer: str | None, size: int) -> None:
    """Show a network layer by layer: output shape, parameters, multiply-adds and receptive field.

    \b
    Example:
      vggsearch model --model vgg19 --layer fc7
    """
    say(rendered(model, layer or network(model).layer, size))
