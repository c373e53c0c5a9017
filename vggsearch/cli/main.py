"""The command group."""

from typing import Any

import click

from vggsearch import __version__
from vggsearch.cli.failures import told_in_one_line
from vggsearch.cli.lazy import LazyCommand, LazyGroup
from vggsearch.cli.streams import prepare_streams
from vggsearch.cli.terminal import log_to_stderr
from vggsearch.system.installation import check_distributions
from vggsearch.system.limits import check_address_space

COMMANDS = {
    "index": LazyCommand("vggsearch.cli.index:index", "Index a photo folder, or update its index."),
    "query": LazyCommand("vggsearch.cli.query:query", "Find the photos most similar to an image."),
    "dups": LazyCommand("vggsearch.cli.dups:dups", "Find, review and remove duplicates; undo a removal."),
    "serve": LazyCommand("vggsearch.cli.serve:serve", "Look, search and decide in a browser; an HTTP API."),
    "merge": LazyCommand("vggsearch.cli.merge:merge", "Merge indexes of slices of one photo folder."),
    "publish": LazyCommand("vggsearch.cli.publish:publish", "Publish an index in a database, for many machines."),
    "export": LazyCommand("vggsearch.cli.export:export", "Write the vectors to a Parquet file for other programs."),
    "info": LazyCommand("vggsearch.cli.info:info", "Show what an index contains and how it was made."),
    "build": LazyCommand("vggsearch.cli.build:build", "Rebuild the FAISS index from the stored embeddings."),
    "verify": LazyCommand("vggsearch.cli.verify:verify", "Check every byte of an index, and repair it."),
    "bench": LazyCommand("vggsearch.cli.bench:bench", "Measure how fast this machine indexes photos."),
    "learn": LazyCommand("vggsearch.cli.learn:learn", "Learn from labels, so that queries find more."),
    "classify": LazyCommand("vggsearch.cli.classify:classify", "Label photos from those that are labelled."),
    "eval": LazyCommand("vggsearch.cli.eval:eval_", "Measure retrieval quality."),
    "model": LazyCommand("vggsearch.cli.model:model", "Show a VGG network layer by layer."),
}


class Main(LazyGroup):
    """Turns an error into one line on stderr; a bug keeps its traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program. Exit status 1 for an error explained in one line, 2 for wrong usage."""
        prepare_streams()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments."""
        with told_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with told_in_one_line():
            if not set(ctx.args) & set(ctx.help_option_names):  # help is instant, and needs no sound installation
                check_address_space()
                check_distributions()
            return super().invoke(ctx)


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
    log_to_stderr()
