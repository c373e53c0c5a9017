"""Compiled networks that are kept on disk: used only as they were written, and for the very same network."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest

import vggsearch
from tests.fakes import FAKE_SPEC, squares
from vggsearch.evaluation.networks import random_kernels
from vggsearch.model.engine import EngineOptions
from vggsearch.model.openvino_engine import compiled
from vggsearch.model.openvino_engine.compiled import CompiledNetworks, code_files
from vggsearch.model.openvino_engine.engine import OpenVinoEngine
from vggsearch.model.openvino_engine.graph import build_graph
from vggsearch.model.weights import Kernel
from vggsearch.system import places

SPEC = replace(FAKE_SPEC, layer="pool1", sizes=(32,))
KERNELS = random_kernels(SPEC.model, SPEC.layer)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the kept networks."""
    monkeypatch.setattr(places, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "networks"


class Loading:
    """Kernels that count how often they are loaded."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Mapping[str, Kernel]:
        self.times += 1
        return KERNELS


def embedded(load: Loading, spec: object = SPEC) -> list[float]:
    assert isinstance(spec, type(SPEC))
    engine = OpenVinoEngine(spec, load, EngineOptions("openvino", "cpu", "fp32"), is_kept=True)
    return [float(value) for value in engine.embed(squares(2, spec.size)).ravel()]


def test_a_kept_network_embeds_alike_and_loads_no_weights(folder: Path) -> None:
    load = Loading()
    first, second = embedded(load), embedded(load)
    assert load.times == 1
    assert first == second
    assert len(list(folder.iterdir())) == 1


def test_another_network_is_another_file(folder: Path) -> None:
    load = Loading()
    for weights in ("1", "2"):
        embedded(load, replace(SPEC, weights_sha256=weights * 64))
    assert load.times == 2
    assert len(list(folder.iterdir())) == 2


def test_other_code_makes_another_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Loading()
    embedded(load)
    monkeypatch.setattr(compiled, "code_hash", lambda: "other")
    embedded(load)
    assert load.times == 2
    monkeypatch.setattr(compiled, "code_hash", lambda: None)  # in an archive: nothing is kept
    embedded(load)
    assert len(list(folder.iterdir())) == 2


def test_a_processor_with_other_int8_makes_another_network(folder: Path) -> None:
    core = openvino.Core()
    kept, other = (CompiledNetworks(core, "CPU", SPEC, "int8", largest) for largest in (127, 63))
    kept.keep("embeddings", core.compile_model(build_graph(SPEC, KERNELS), "CPU", {}))
    assert kept.find("embeddings", {}) is not None
    assert other.find("embeddings", {}) is None
    assert len(list(folder.iterdir())) == 1


def test_the_hash_covers_all_modules_that_networks_are_made_with() -> None:
    code = "import sys, vggsearch.model.openvino_engine.engine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = {name for name in done.stdout.split() if name.startswith(("vggsearch.model.", "vggsearch.defaults"))}
    assert "vggsearch.defaults" in used
    root = Path(vggsearch.__file__).parent.parent
    covered = {path.relative_to(root).with_suffix("").as_posix().replace("/", ".") for path in code_files()}
    assert used - {"vggsearch.model.openvino_engine"} <= covered  # of the package, its __init__ is covered


@pytest.mark.parametrize("at", [0, -1])
def test_a_damaged_file_is_not_used_but_replaced(folder: Path, at: int) -> None:
    load = Loading()
    whole = embedded(load)
    [file] = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    assert embedded(load) == whole
    assert load.times == 2
    assert embedded(load) == whole
    assert load.times == 2


def test_a_file_that_others_may_write_is_not_used(folder: Path) -> None:
    load = Loading()
    embedded(load)
    [file] = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o666)
    embedded(load)
    assert load.times == 2


def test_only_the_newest_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST", 2)
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("not ours")
    load = Loading()
    for weights in ("1", "2", "3"):
        embedded(load, replace(SPEC, weights_sha256=weights * 64))
    embedded(load, replace(SPEC, weights_sha256="3" * 64))
    assert load.times == 3
    assert len([path for path in folder.iterdir() if path.suffix == compiled.SUFFIX]) == 2
    assert (folder / "notes.txt").exists()


def test_large_ones_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_BYTES", 10)
    embedded(Loading())
    assert not folder.exists()


def test_without_a_place_for_them_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.write_text("a file in place of the folder")
    load = Loading()
    first = embedded(load)
    monkeypatch.setattr(places, "cache_folder", lambda: None)
    assert np.array_equal(embedded(load), first)
    assert load.times == 2
