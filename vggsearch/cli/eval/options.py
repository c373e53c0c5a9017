"""Options that both evaluations share."""

import click

from vggsearch.cli.options import FILE

whiten_option = click.option(
    "--whiten",
    metavar="auto|none|DIM[:SHRINKAGE]",
    default="auto",
    show_default=True,
    help="Whitening: that of the index, none, or to DIM dimensions with a shrinkage of 0 to 1.",
)
curve_option = click.option(
    "--curve", type=FILE, help="Save the precision-recall curve to a .csv, .html or .svg file."
)
