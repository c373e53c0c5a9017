"""python -m tests.helpers.fake_command: the vggsearch command with a network that needs no weights."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from vggsearch.__main__ import main  # isort: split

if STARTED := os.environ.get("STARTED"):
    Path(STARTED).touch()  # the interpreter has started, and the command is responsible for what Ctrl-C does

import click

from vggsearch.cli.lazy import LazyCommand


def with_fake_network(load: Callable[[LazyCommand], click.Command]) -> Callable[[LazyCommand], click.Command]:
    """Return a `load` that replaces the network in all that a command imports; --help imports as little as ever."""

    def loading(command: LazyCommand) -> click.Command:
        loaded = load(command)
        for name, module in list(sys.modules.items()):
            if name.startswith("vggsearch.") and hasattr(module, "load_engine"):
                module.load_engine = fake_engine  # type: ignore[attr-defined]
        return loaded

    return loading


def fake_engine(*_: object) -> object:
    from tests.fakes import FakeEngine

    return FakeEngine()


if __name__ == "__main__":
    LazyCommand.load = with_fake_network(LazyCommand.load)  # type: ignore[assignment, method-assign]
    main()
