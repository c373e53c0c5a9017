"""A group of commands that imports each command when it is used, so that `vggsearch --help` is instant.

This is click's documented pattern, "Lazily Loading Subcommands"; the group's help comes from the table alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from vggsearch.system.collecting import without_garbage_collection


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is defined, "module:name", and its line in the help of the group."""

    target: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, name = self.target.partition(":")
        with without_garbage_collection():
            command: click.Command = getattr(import_module(module), name)
        return command


class LazyGroup(click.Group):
    """A group whose commands are in a table; `default` runs where no command is named.

    With `default` "find", `dups --html x.html` is `dups find --html x.html`.
    """

    def __init__(
        self, *args: Any, table: Mapping[str, LazyCommand], default: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        self.default = default

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None for a name that is not in the table."""
        return self.table[cmd_name].load() if cmd_name in self.table else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands and their summaries without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in self.table.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command where none is named."""
        is_named = bool(args) and args[0] in (*self.table, *ctx.help_option_names)
        if self.default is not None and not is_named and (args or not self.no_args_is_help):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named. Wrong usage shows the similar names."""
        name = args[0]
        if name not in self.table:
            similar = get_close_matches(name, self.table)
            hint = f"Did you mean {similar[0]!r}?" if similar else f"Choose one of {', '.join(self.table)}."
            ctx.fail(f"No such command {name!r}. {hint}")
        return name, self.get_command(ctx, name), args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Where another command of the group was meant, wrong usage shows how that is called."""
        words = list(ctx.args)
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is None or error.ctx.parent is not ctx:
                raise
            hint = self._hint(ctx, error, words)
            if hint is None:
                raise
            raise click.UsageError(f"{error.message.rstrip('.')}. Did you mean: {hint}", ctx) from error

    def _hint(self, ctx: click.Context, error: click.UsageError, words: Sequence[str]) -> str | None:
        """Return the usage of the command that was meant, None if that is unclear."""
        others = [name for name in self.table if name != self.default]
        if isinstance(error, click.NoSuchOption):
            usages = (self._usage(ctx, name, error.option_name) for name in others)
        else:
            usages = (self._usage(ctx, name, name) for name in others if name in words)  # options came first
        return next(filter(None, usages), None)

    def _usage(self, ctx: click.Context, name: str, option: str) -> str | None:
        """Return how a command is called if `option` is one of its options, its argument, or its name."""
        command = self.get_command(ctx, name)
        if command is None:
            return None
        options = [each for param in command.params for each in (*param.opts, *param.secondary_opts)]
        if option.lstrip("-") not in (name, *options) and option not in options:
            return None
        arguments = [piece for piece in command.collect_usage_pieces(ctx) if piece != command.options_metavar]
        return " ".join([ctx.command_path, name, *([option] if option in options else []), *arguments])
