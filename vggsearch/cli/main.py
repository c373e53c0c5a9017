"""The group of commands, and how errors become one line."""

from typing import Any

import click

from vggsearch import __version__
from vggsearch.cli.bench import bench
from vggsearch.cli.build import build
from vggsearch.cli.dups import dups
from vggsearch.cli.eval import eval_
from vggsearch.cli.index import index
from vggsearch.cli.info import info
from vggsearch.cli.model import model
from vggsearch.cli.query import query
from vggsearch.cli.terminal import log_to_stderr
from vggsearch.cli.verify import verify
from vggsearch.errors import OptionError, VggsearchError


class Commands(click.Group):
    """Turns what the library raises into one line on stderr; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Exit status 1 for an error explained in one line, 2 for wrong usage."""
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise click.UsageError(error.for_shell()) from error
        except VggsearchError as error:
            raise click.ClickException(error.for_shell()) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vggsearch")
def cli() -> None:
    """Find photos by photo, on your own machine: index a folder once, then ask.

    \b
    Example:
      vggsearch index ./photos
      vggsearch query img.jpg
      vggsearch dups
    """
    log_to_stderr()


for command in (index, query, dups, info, build, verify, bench, eval_, model):
    cli.add_command(command)
