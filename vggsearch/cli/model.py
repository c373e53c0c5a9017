"""vggsearch model"""

import click

from vggsearch.defaults import EMBEDDING
from vggsearch.model.vgg import MODELS


@click.command()
@click.option("--model", type=click.Choice(MODELS), default=EMBEDDING.model, show_default=True, help="Which VGG.")
@click.option("--layer", default=EMBEDDING.layer, show_default=True, help="Where it is cut.")
@click.option(
    "--size",
    type=click.IntRange(EMBEDDING.smallest_size, EMBEDDING.largest_size),
    default=224,
    show_default=True,
    help="Side of the input in pixels.",
)
def model(model: str, layer: str, size: int) -> None:
    """Show a network layer by layer: output shape, parameters, work, and what one output sees.

    \b
    Example:
      vggsearch model --model vgg19 --layer fc7
    """
    from vggsearch.render.model import model as model_text

    click.echo(model_text(model, layer, size))
