"""The command group, and how errors become one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

import click

from vggsearch import __version__
from vggsearch.cli.lazy import LazyCommand, LazyGroup
from vggsearch.cli.terminal import log_to_stderr
from vggsearch.errors import OptionError, VggsearchError
from vggsearch.photos.walk import one_line
from vggsearch.system.installation import check_distributions

COMMANDS = {
    "index": LazyCommand("vggsearch.cli.index:index", "Index a photo folder, or update its index."),
    "query": LazyCommand("vggsearch.cli.query:query", "Find the photos most similar to an image."),
    "dups": LazyCommand("vggsearch.cli.dups:dups", "Find, review and remove duplicates; undo a removal."),
    "info": LazyCommand("vggsearch.cli.info:info", "Show what an index contains and how it was made."),
    "build": LazyCommand("vggsearch.cli.build:build", "Rebuild the FAISS index from the stored embeddings."),
    "verify": LazyCommand("vggsearch.cli.verify:verify", "Check every byte of an index, and repair it."),
    "bench": LazyCommand("vggsearch.cli.bench:bench", "Measure how fast this machine indexes photos."),
    "eval": LazyCommand("vggsearch.cli.eval:eval_", "Measure retrieval quality."),
    "model": LazyCommand("vggsearch.cli.model:model", "Show a VGG network layer by layer."),
}


@contextmanager
def escaped_errors() -> Iterator[None]:
    """Escape in an error message what a terminal would act on: it may quote any argument."""
    try:
        yield
    except click.ClickException as error:
        lines = error.message.split("\n")  # the help of a group has several
        error.message = "\n".join(map(one_line, lines))  # type: ignore[misc] # click declares it final
        raise


class Main(LazyGroup):
    """Turns an error of the library into one line on stderr; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Exit status 1 for an error explained in one line, 2 for wrong usage."""
        with escaped_errors():
            return self._run(ctx)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments."""
        with escaped_errors():
            return super().make_context(*args, **kwargs)

    def _run(self, ctx: click.Context) -> Any:
        try:
            if not set(ctx.args) & set(ctx.help_option_names):  # help is instant, and needs no sound installation
                check_distributions()
            return super().invoke(ctx)
        except OptionError as error:
            raise click.UsageError(one_line(error.for_shell())) from error
        except VggsearchError as error:
            raise click.ClickException(one_line(error.for_shell())) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(one_line(f"{error.filename}: {error.strerror}")) from error


@click.group(
    cls=Main,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="vggsearch")
def cli() -> None:
    """Reverse image search and duplicate detection for your photos, offline, on your own machine.

    \b
    Example:
      vggsearch index ./photos
      vggsearch query img.jpg
      vggsearch dups
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may have characters that a terminal lacks
    log_to_stderr()
