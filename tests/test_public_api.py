"""The public names: each stated once, typed by public types, and documented with an example that runs."""

import doctest
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

import vggsearch
from tests.fakes import FakeEngine, save_photo
from vggsearch import ImageIndex
from vggsearch.duplicates.options import Folders
from vggsearch.image_index import ImageIndex as Home
from vggsearch.learning.labelled import Labels
from vggsearch.store.decisions import Judgement

PUBLIC = {name: getattr(vggsearch, name) for name in vggsearch.__all__ if name != "__version__"}
CLASSES = {name: value for name, value in PUBLIC.items() if isinstance(value, type)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if isinstance(value, FunctionType)}
ALIASES = PUBLIC.keys() - CLASSES.keys() - FUNCTIONS.keys()
# What modules import for their types alone, so that --help is instant.
ONLY_TYPES = {"np": np, "NDArray": NDArray, "Callable": Callable, "Iterable": Iterable, "Iterator": Iterator} | {
    "SquareJpeg": Callable[..., object],
    "Console": Console,
    "Folders": Folders,
    "Judgement": Judgement,
    "Labels": Labels,
    **CLASSES,
}


def members(owner: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the public methods and properties that a class defines itself, by name."""
    for name, value in vars(owner).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and isinstance(function, FunctionType):
            yield f"{owner.__name__}.{name}", function


METHODS = {name: method for owner in CLASSES.values() for name, method in members(owner)}


def types_in(hint: object) -> Iterator[type]:
    """Yield each class that a type hint is made of."""
    if isinstance(hint, type) and not typing.get_origin(hint):
        yield hint
    for argument in typing.get_args(hint):
        for each in argument if isinstance(argument, list) else [argument]:
            yield from types_in(each)


def test_each_public_name_has_its_one_home_and_its_own_name() -> None:
    stub = (Path(vggsearch.__file__).with_suffix(".pyi")).read_text("utf-8")
    for name, value in PUBLIC.items():
        module = vars(vggsearch)["_MODULES"][name]
        assert f"from {module} import {name} as {name}\n" in stub
        if name not in ALIASES:
            assert (value.__module__, value.__name__) == (module, name)
    assert vggsearch.ImageIndex is Home
    assert set(vggsearch.__all__) <= set(dir(vggsearch))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vggsearch.nothing  # type: ignore[attr-defined]


def test_importing_it_loads_nothing() -> None:
    code = "import sys, vggsearch; print([name for name in sys.modules if name.startswith('vggsearch.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted({*FUNCTIONS, *METHODS, *CLASSES}))
def test_public_signatures_are_made_of_public_types(name: str) -> None:
    value = FUNCTIONS.get(name) or METHODS.get(name) or CLASSES[name]
    has_hints = is_dataclass(value) or not isinstance(value, type)
    hints = typing.get_type_hints(value, localns=ONLY_TYPES) if has_hints else {}
    ours = {each for hint in hints.values() for each in types_in(hint) if each.__module__.startswith("vggsearch")}
    missing = {each for each in ours - set(CLASSES.values()) if each.__module__ != "vggsearch.errors"}
    assert not missing, "not exported, and not in the public module vggsearch.errors"


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - ALIASES))
def test_public_names_have_an_example(name: str) -> None:
    assert ">>> " in (PUBLIC[name].__doc__ or ""), f"{name} has no example"


@pytest.mark.parametrize("name", sorted(name for name in METHODS if name.startswith("ImageIndex.")))
def test_methods_of_the_index_have_an_example(name: str) -> None:
    assert ">>> " in (METHODS[name].__doc__ or ""), f"{name} has no example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and their index, with a calibration: what the examples work on."""
    where = tmp_path_factory.mktemp("examples")
    for seed, name in enumerate(("a.jpg", "b.jpg", "trips/c.jpg")):
        save_photo(where / "photos" / name, seed)
    shutil.copy(where / "photos" / "a.jpg", where / "photos" / "copy of a.jpg")
    (where / "photos" / "notes.txt").write_text("not a photo")
    with ImageIndex.create(where / "indexes" / "photos", engine=FakeEngine()) as index:
        index.update(where / "photos")
        index.duplicates()
    return where


@pytest.fixture
def examples(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The names that examples use: the public ones, and `index`, open. A folder of their own is the current one."""
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for module in ("query.session", "evaluation.throughput"):
        monkeypatch.setattr(f"vggsearch.{module}.load_engine", lambda *_: FakeEngine())
    with ImageIndex.open("indexes/photos", engine=FakeEngine()) as index:
        yield {**PUBLIC, "vggsearch": vggsearch, "np": np, "index": index}


def doctests_of(value: object, names: dict[str, object]) -> Sequence[doctest.DocTest]:
    """Return the examples of a module, class, function or method, not those of its members."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    text = getattr(value, "__doc__", None) or ""
    parsed = doctest.DocTestParser().get_doctest(text, dict(names), str(name), None, 0)
    return [parsed] if parsed.examples else []


@pytest.mark.parametrize("name", ["vggsearch", *sorted({*FUNCTIONS, *METHODS, *CLASSES})])
def test_examples_run_as_they_are_written(name: str, examples: dict[str, object]) -> None:
    value: ModuleType | Callable[..., object] = (
        vggsearch if name == "vggsearch" else FUNCTIONS.get(name) or METHODS.get(name) or CLASSES[name]
    )
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for each in doctests_of(value, examples):
        runner.run(each, out=report.append)
    assert not runner.failures, "".join(report)
