"""Messages that name an option: as Python spells it in the library, as a flag on the command line."""

import ast
import inspect
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import vggsearch
from vggsearch import EmbeddingOptions, EngineOptions, ImageIndex
from vggsearch.cli import cli
from vggsearch.errors import PhotosError, Spelled, Stopped, VggsearchError, option, spelled

PACKAGE = Path(vggsearch.__file__).parent
OUTSIDE = ("cli", "render", "serve")  # the command line's: a Python program has no use for them
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in OUTSIDE]
COMMANDS = ("index", "query", "dups", "info", "build", "verify", "learn", "classify", "eval", "bench", "model")
FLAG = re.compile(r"(?:^|\s)(--[a-z][a-z-]*[a-z])(?![a-z-])")
COMMAND = re.compile(rf"\bvggsearch ({'|'.join(COMMANDS)})\b")


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def texts(tree: ast.AST) -> Iterator[tuple[ast.Constant, str]]:
    """Yield the string literals below a node that are no docstrings, and their text."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node, node.value


def flags_of(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from flags_of(below)


@pytest.fixture(scope="module")
def flags() -> set[str]:
    """All flags of the command line."""
    return {flag for flag in flags_of(cli) if flag.startswith("--")}


@pytest.fixture(scope="module")
def keywords() -> set[str]:
    """All keywords of the Python API."""
    functions = [getattr(vggsearch, name) for name in vggsearch.__all__ if name != "__version__"]
    methods = [value for name, value in inspect.getmembers(ImageIndex, callable) if not name.startswith("_")]
    callables = [each for each in (*functions, *methods) if inspect.isroutine(each)]
    found = {name for each in callables for name in inspect.signature(each).parameters}
    return found | {field.name for options in (EmbeddingOptions, EngineOptions) for field in fields(options)}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_message_of_the_library_names_a_flag_or_a_command(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    both = {id(node) for call in calls(tree, "Spelled") for node, _ in texts(call)}
    for node, text in texts(tree):
        if id(node) not in both:
            assert not FLAG.search(text), f"{path}:{node.lineno}: use option(): {text!r}"
            assert not COMMAND.search(text), f"{path}:{node.lineno}: use Spelled(): {text!r}"


def test_each_option_that_a_message_names_exists_in_both(flags: set[str], keywords: set[str]) -> None:
    named = 0
    for path in LIBRARY:
        for call in calls(ast.parse(path.read_text("utf-8")), "option"):
            name, *values = [ast.literal_eval(each) for each in call.args if isinstance(each, ast.Constant)]
            named += 1
            flag = f"--{'no-' if values == [False] else ''}{name}".replace("_", "-")
            assert name in keywords, f"{path}:{call.lineno}: no keyword {name}"
            assert flag in flags, f"{path}:{call.lineno}: no flag {flag}"
    assert named > 10


def test_each_flag_and_command_that_a_message_shows_exists(flags: set[str]) -> None:
    for path in LIBRARY:
        for call in calls(ast.parse(path.read_text("utf-8")), "Spelled"):
            for node, text in texts(call):
                assert set(FLAG.findall(text)) <= flags, f"{path}:{node.lineno}: {text!r}"


def test_a_message_has_two_forms() -> None:
    either = "Pass ", option("moved"), " or ", option("min_similarity", 0.9)
    error = VggsearchError(*either, ", or not: ", option("rerank", False))
    assert str(error) == "Pass moved=True or min_similarity=0.9, or not: rerank=False"
    assert error.for_shell() == "Pass --moved or --min-similarity 0.9, or not: --no-rerank"
    assert spelled("a ", Spelled("b", "c")) == Spelled("a b", "a c")
    assert str(Stopped()) == "Stopped early; finished work is kept. Repeat the call to continue."
    assert Stopped().for_shell().endswith("Run the same command again to continue.")


def test_the_command_line_shows_the_flag_that_python_calls_a_keyword(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    for path in photos.iterdir():
        shutil.rmtree(path)
    with pytest.raises(PhotosError) as failed:
        index.update()
    assert "allow_empty=True" in str(failed.value)
    assert "--" not in str(failed.value)
    shown = CliRunner().invoke(cli, ["index", "photos"])
    assert shown.exit_code == 1
    assert "--allow-empty" in shown.stderr
    assert "allow_empty" not in shown.stderr
