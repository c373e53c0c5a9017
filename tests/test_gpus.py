"""Which GPUs there are, with a pretended driver."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vggsearch.system import gpus

WITH_CUDA = "__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
WITHOUT_CUDA = "__version__ = '2.14.1+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"


class Driver:
    """Stands in for libcuda: every function returns 0, or an error code if it is in `fails`."""

    def __init__(
        self, version: int = 13000, names: tuple[str, ...] = ("NVIDIA A", "NVIDIA B"), fails: str = ""
    ) -> None:
        self.version, self.names, self.fails = version, names, fails

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == "cuDriverGetVersion":
                arguments[0]._obj.value = self.version
            elif name == "cuDeviceGetCount":
                arguments[0]._obj.value = len(self.names)
            elif name == "cuDeviceGet":
                arguments[0]._obj.value = arguments[1]
            elif name == "cuDeviceGetName":
                arguments[0].value = self.names[arguments[2].value].encode()
            return int(name == self.fails)

        return call


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    gpus.cuda_gpus.cache_clear()
    yield
    gpus.cuda_gpus.cache_clear()


def found(
    monkeypatch: pytest.MonkeyPatch, folder: Path, driver: Driver | None, torch: str | None
) -> tuple[str, ...]:
    def load(name: str) -> Driver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError("no such library")
        return driver

    if torch is not None:
        (folder / "version.py").write_text(torch)
    spec = None if torch is None else SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(gpus, "find_spec", lambda _: spec)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    return gpus.cuda_gpus()


@pytest.mark.parametrize(
    ("driver", "torch", "names"),
    [
        (Driver(), WITH_CUDA, ("NVIDIA A", "NVIDIA B")),
        (Driver(version=14020), WITH_CUDA, ("NVIDIA A", "NVIDIA B")),
        (Driver(version=12090), WITH_CUDA, ()),
        (Driver(names=()), WITH_CUDA, ()),
        (Driver(fails="cuInit"), WITH_CUDA, ()),
        (Driver(fails="cuDeviceGetCount"), WITH_CUDA, ()),
        (None, WITH_CUDA, ()),
        (Driver(), WITHOUT_CUDA, ()),
        (Driver(), None, ()),
    ],
)
def test_a_gpu_is_there_if_the_driver_and_torch_fit(
    driver: Driver | None,
    torch: str | None,
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert found(monkeypatch, tmp_path, driver, torch) == names


def test_the_installed_torch_says_what_it_was_built_for() -> None:
    import torch

    built = torch.version.cuda
    assert gpus._cuda_version_of_torch() == (None if built is None else int(built.partition(".")[0]))
