"""What people send between processes: every error, and results."""

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from vggsearch import errors
from vggsearch.errors import ImageError, Stopped, VggsearchError, option
from vggsearch.image_index import ImageIndex
from vggsearch.removal.perform import LeftAside

Item = TypeVar("Item")

SAMPLES = {
    "name": "a.jpg",
    "parts": ("Use ", option("moved"), " or not."),
    "way_out": ("Use ", option("engine", "torch"), "."),
    "file": Path("photos/a file"),
    "path": Path("photos"),
    "target": Path("elsewhere"),
    "line": 3,
    "problem": "is cut short",
    "reason": "cut short",
    "kind": "broken",
    "report": {"done": 3},
}


def errors_of_the_package() -> list[type[VggsearchError]]:
    """Return the base class and all subclasses, in whichever module."""
    waiting: list[type[VggsearchError]] = [VggsearchError]
    found: dict[type[VggsearchError], None] = {}
    while waiting:
        kind = waiting.pop()
        found[kind] = None
        waiting += [each for each in kind.__subclasses__() if each.__module__.startswith("vggsearch.")]
    return sorted(found, key=lambda kind: kind.__name__)


ERRORS = errors_of_the_package()
assert LeftAside in ERRORS  # the one that is not in `errors`


def pickled(item: Item) -> Item:
    found: Item = pickle.loads(pickle.dumps(item))  # noqa: S301 - our own bytes
    return found


def sample(kind: type[VggsearchError]) -> VggsearchError:
    """Return an error made with a sample for each argument that its class takes."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        value = SAMPLES[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            assert isinstance(value, tuple)
            positional += value
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    return kind(*positional, **named)


@pytest.mark.parametrize("transfer", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_survives_a_transfer(
    kind: type[VggsearchError], transfer: Callable[[VggsearchError], VggsearchError]
) -> None:
    error = sample(kind)
    error.add_note("while testing")
    found = transfer(error)
    assert type(found) is kind
    assert (str(found), found.for_shell(), found.args) == (str(error), error.for_shell(), error.args)
    assert vars(found) == vars(error)


def test_all_errors_are_found() -> None:
    listed = {kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, VggsearchError)}
    assert listed <= set(ERRORS)


def fail(path: str) -> None:
    raise ImageError(f"{path} is cut short", "broken")


def test_a_pool_of_processes_raises_the_error_of_its_worker() -> None:
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(ImageError, match="a is cut") as raised,
    ):
        pool.map_async(fail, ["a"]).get(60)
    assert raised.value.kind == "broken"


def test_results_can_be_pickled(index: ImageIndex, photos: Path) -> None:
    file = photos / "summer" / "0.jpg"
    found, report = index.query(file), index.duplicates()
    assert pickled(found) == found
    assert pickled(report).groups == report.groups
    with pytest.raises(Stopped) as stopped:
        index.update(stop=lambda: True)
    assert pickled(stopped.value).report == stopped.value.report


def test_an_index_in_use_is_pickled_as_its_place_and_opened_anew(index: ImageIndex, photos: Path) -> None:
    file = photos / "summer" / "0.jpg"
    expected = index.query(file)
    (photos / "summer" / "3.jpg").unlink()
    sent = pickle.dumps(index)
    index.update()
    again = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert len(expected.matches) == 6
    assert again.query(file) == index.query(file)
    assert len(again) == 5
