"""vggsearch model"""

import click

from vggsearch.cli.output import say
from vggsearch.defaults import EMBEDDING
from vggsearch.model.vgg import MODELS
from vggsearch.render.model import model as rendered


@click.command()
@click.option("--model", type=click.Choice(MODELS), default=EMBEDDING.model, show_default=True, help="VGG variant.")
@click.option("--layer", default=EMBEDDING.layer, show_default=True, help="Feature layer, or a sum of layers.")
@click.option(
    "--size",
    type=click.IntRange(EMBEDDING.smallest_size, EMBEDDING.largest_size),
    default=224,
    show_default=True,
    help="Side of the square input in pixels.",
)
def model(model: str, layer: str, size: int) -> None:
    """Show a VGG network layer by layer: output shape, parameters, multiply-adds and receptive field.

    \b
    Example:
      vggsearch model --model vgg19 --layer fc7
    """
    say(rendered(model, layer, size))
