"""Checkpoints as training writes them: wrapped, prefixed, with other objects, as TorchScript, and malicious."""

import argparse
import builtins
import os
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vggsearch.errors import WeightsError
from vggsearch.model.checkpoints import read_tensors
from vggsearch.model.layers import needed_modules
from vggsearch.model.weights import Kernel, find_weights, load_weights

PREFIXES = ["module.", "model.", "backbone.", "encoder.model.", "module.model.backbone.", "_orig_mod."]


class HyperParameters(dict[str, object]):
    """As lightning.fabric.utilities.data.AttributeDict: a class of its own in the checkpoint."""


class Caller:
    """Calls a function where it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


class Network(torch.nn.Module):
    """The convolutions of VGG16 up to pool1, as torchvision lays them out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 64, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(64, 64, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.features(images)
        return found


class Wrapper(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Network()

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.model(images)
        return found


def random_tensors(model: str = "vgg16", layer: str = "pool1", seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    shapes = {key: shape for module in needed_modules(model, layer) for key, shape in module.shapes.items()}
    return {key: torch.rand(shape) + 0.5 for key, shape in shapes.items()}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def load(path: Path, model: str = "vgg16", layer: str = "pool1") -> dict[str, Kernel]:
    return load_weights(find_weights(model, layer, path), model, layer)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as refused:
        load(path)
    message = str(refused.value)
    assert str(path) in message
    assert message.isprintable()
    return message


def tensors_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {key.removeprefix("model."): tensor for key, tensor in network.state_dict().items()}


def assert_equal(found: dict[str, Kernel], tensors: Mapping[str, Tensor]) -> None:
    assert list(found) == ["conv1_1", "conv1_2"]
    for kernel, key in zip(found.values(), ("features.0", "features.2"), strict=True):
        np.testing.assert_array_equal(kernel.weight, tensors[f"{key}.weight"].detach().numpy())
        np.testing.assert_array_equal(kernel.bias, tensors[f"{key}.bias"].detach().numpy())


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "net", "model.weights"])
def test_a_wrapped_network_loads_beside_what_else_training_saves(wrapper: str, tmp_path: Path) -> None:
    tensors = random_tensors()
    rest = {"epoch": 3, "arch": "vgg16", "loss": 0.1, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    torch.save({**rest, wrapper: OrderedDict(tensors)}, tmp_path / "checkpoint.pth.tar")
    assert_equal(load(tmp_path / "checkpoint.pth.tar"), tensors)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_prefix_is_recognised(prefix: str, suffix: str, tmp_path: Path) -> None:
    tensors, path = random_tensors(), tmp_path / f"weights{suffix}"
    others = {"head.0.weight": torch.ones(64, 64), "head.2.weight": torch.ones(10, 64)}
    (save_file if suffix == ".safetensors" else torch.save)(prefixed(prefix, tensors) | others, path)
    assert_equal(load(path), tensors)


@pytest.mark.parametrize("stem", ["", "features.module.", "backbone.", "features.features."])
def test_convolutions_alone_are_recognised_under_any_name(stem: str, tmp_path: Path) -> None:
    tensors = random_tensors()
    torch.save({stem + key.removeprefix("features."): each for key, each in tensors.items()}, tmp_path / "a.pth")
    assert_equal(load(tmp_path / "a.pth"), tensors)


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("infix", ["", "module."])
def test_the_classifier_is_found_beside_the_features(prefix: str, infix: str, tmp_path: Path) -> None:
    """One number, spread over each tensor, keeps the file small; each tensor has its own."""
    shapes = {key: shape for module in needed_modules("vgg11", "fc7") for key, shape in module.shapes.items()}
    tensors = {
        prefix + key.replace("features.", f"features.{infix}"): torch.full((1,), float(number)).expand(shape)
        for number, (key, shape) in enumerate(shapes.items())
    }
    torch.save(tensors, tmp_path / "whole.pth")
    wanted = ["classifier.0.bias", "classifier.3.bias", "features.8.bias"]

    def choose(_: object) -> dict[str, str]:
        return {key: prefix + key.replace("features.", f"features.{infix}") for key in wanted}

    direct = read_tensors(tmp_path / "whole.pth", choose)
    found = load(tmp_path / "whole.pth", "vgg11", "fc7")
    for name, key in zip(("fc6", "fc7", "conv3_2"), wanted, strict=True):
        np.testing.assert_array_equal(found[name].bias, direct[key])


def test_batch_normalisation_is_found_under_a_prefix(tmp_path: Path) -> None:
    tensors = random_tensors("vgg11_bn")
    torch.save(tensors, tmp_path / "plain.pth")
    torch.save({"state_dict": prefixed("module.", tensors)}, tmp_path / "wrapped.pth")
    plain, wrapped = (load(tmp_path / f"{name}.pth", "vgg11_bn")["conv1_1"] for name in ("plain", "wrapped"))
    np.testing.assert_array_equal(plain.weight, wrapped.weight)
    np.testing.assert_array_equal(plain.bias, wrapped.bias)


def test_a_lightning_checkpoint_loads_with_its_hyperparameters_and_options(tmp_path: Path) -> None:
    tensors = random_tensors()
    content = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 3,
        "state_dict": OrderedDict(prefixed("model.", tensors)),
        "hyper_parameters": HyperParameters(lr=0.1, folder=Path("photos")),
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.5),
        "curve": np.arange(3.0),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "current": None}},
    }
    torch.save(content, tmp_path / "last.ckpt")
    assert_equal(load(tmp_path / "last.ckpt"), tensors)


@pytest.mark.parametrize("network", [Network, Wrapper])
def test_a_whole_pickled_network_gives_its_tensors_without_its_class(
    network: type[torch.nn.Module], tmp_path: Path
) -> None:
    whole = network()
    torch.save({"epoch": 1, "model": whole}, tmp_path / "whole.pt")
    assert_equal(load(tmp_path / "whole.pt"), tensors_of(whole))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", ["scripted", "traced"])
@pytest.mark.parametrize("network", [Network, Wrapper])
def test_torchscript_loads_without_its_code(
    kind: str, network: type[torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = network().eval()
    example = torch.zeros(1, 3, 8, 8)
    if kind == "scripted":
        torch.jit.save(torch.jit.script(whole), tmp_path / "network.pt")
    else:
        torch.jit.save(torch.jit.trace(whole, example), tmp_path / "network.pt")  # type: ignore[no-untyped-call]
    monkeypatch.setattr(torch.jit, "load", None)
    assert_equal(load(tmp_path / "network.pt"), tensors_of(whole))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_cut_short_or_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.jit.save(torch.jit.script(Network()), path)
    data = path.read_bytes()
    for length in range(1000, len(data), len(data) // 20):
        path.write_bytes(data[:length])
        message = refusal(path)
        assert "truncated" in message or "cannot be read" in message
    changed = bytearray(data)
    changed[data.index(b"/data/0") + 2000] ^= 1  # inside the first tensor
    path.write_bytes(changed)
    assert "damaged" in refusal(path)


def test_of_several_networks_that_fit_the_one_with_the_published_names_is_used(tmp_path: Path) -> None:
    tensors = random_tensors()
    torch.save({**tensors, **prefixed("ema.", random_tensors(seed=1))}, tmp_path / "both.pth")
    assert_equal(load(tmp_path / "both.pth"), tensors)


def test_several_networks_that_fit_equally_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": random_tensors(), "model_ema": random_tensors(seed=1)}, tmp_path / "both.pth")
    message = refusal(tmp_path / "both.pth")
    assert "'model.features.'" in message
    assert "'model_ema.features.'" in message


def test_a_network_of_another_kind_is_told_by_the_names_that_it_has(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.ones(3), "bn1\n.weight": torch.ones(3)}}, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "no tensor features.0.weight" in message
    assert "2 tensors are 'state_dict.conv1.weight', 'state_dict.bn1\\n.weight'" in message


def test_a_missing_tensor_is_named_with_the_prefix_of_its_network(tmp_path: Path) -> None:
    tensors = prefixed("module.", random_tensors())
    del tensors["module.features.2.weight"]
    torch.save({"state_dict": tensors}, tmp_path / "a.pth")
    assert "no tensor state_dict.module.features.2.weight, which vgg16 needs for conv1_2" in refusal(
        tmp_path / "a.pth"
    )


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_tensors_of_other_kinds_count_as_missing(tmp_path: Path) -> None:
    for odd in (
        torch.ones(64, 3, 3, 3).to_sparse(),
        torch.ones(64, 3, 3, 3, dtype=torch.int64),
        torch.ones(64, 3, 3, 3, dtype=torch.complex64),
        torch.empty(64, 3, 3, 3, device="meta"),
    ):
        torch.save({**random_tensors(), "features.0.weight": odd}, tmp_path / "odd.pth")
        refusal(tmp_path / "odd.pth")


def test_dicts_that_contain_themselves_or_nest_deeply_end(tmp_path: Path) -> None:
    tensors = random_tensors()
    content: dict[str, object] = {"state_dict": tensors}
    content["self"] = content
    inner: dict[str, object] = {}
    content["deep"] = inner
    for _ in range(200):
        inner["a" * 50] = inner = {}
    wide: dict[str, object] = {}
    for _ in range(20):  # 10 ** 20 paths
        wide = {str(number): wide for number in range(10)}
    content["wide"] = wide
    torch.save(content, tmp_path / "odd.pth")
    assert_equal(load(tmp_path / "odd.pth"), tensors)


@pytest.mark.parametrize("function", [os.system, subprocess.check_call, builtins.exec, builtins.eval])
@pytest.mark.parametrize("is_torchscript", [False, True])
def test_no_function_that_a_checkpoint_names_is_called(
    function: Callable[..., object], is_torchscript: bool, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    code = f"import os; os.mkdir({str(trace)!r})" if function is builtins.exec else f"mkdir '{trace}'"
    if function is builtins.eval:
        code = f"__import__('os').mkdir({str(trace)!r})"
    argument = ["mkdir", str(trace)] if function is subprocess.check_call else code
    tensors = random_tensors()
    torch.save({**tensors, "hyper_parameters": Caller(function, argument)}, tmp_path / "trap.pth")
    if is_torchscript:
        with zipfile.ZipFile(tmp_path / "trap.pth", "a") as archive:
            archive.writestr("trap/constants.pkl", b"")
    try:
        assert_equal(load(tmp_path / "trap.pth"), tensors)
    except WeightsError as error:
        assert "contains more than tensors" in str(error)  # noqa: PT017 (either is right)
    assert not trace.exists()
    torch.load(tmp_path / "trap.pth", weights_only=False) if not is_torchscript else function(argument)
    assert trace.is_dir()
