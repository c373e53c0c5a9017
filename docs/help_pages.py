"""Write the --help page of every command as Markdown, for docs/cli.md: cog runs this, see make docs."""

from collections.abc import Iterator

import click
from click.testing import CliRunner

from vggsearch.cli import cli

WIDTH = 80  # columns: what fits the pages of the site


def help_pages() -> str:
    """Return the help of vggsearch and of each command, each under its own heading."""
    return "\n".join(_page(words) for words in commands(cli))


def commands(group: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of a command and of all below it: (), ("index",), ("dups",), ("dups", "find") ..."""
    yield words
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield from commands(command, *words, name)


def help_text(words: tuple[str, ...]) -> str:
    """Return what a command shows on --help."""
    result = CliRunner().invoke(cli, [*words, "--help"], prog_name="vggsearch", terminal_width=WIDTH)
    if result.exit_code:
        raise click.ClickException(f"vggsearch {' '.join(words)} --help failed: {result.output}")
    return result.output


def _page(words: tuple[str, ...]) -> str:
    name = " ".join(("vggsearch", *words))
    level = "##" if len(words) < 2 else "###"
    return f"\n{level} {name}\n\n```text\n$ {name} --help\n{help_text(words)}```"
