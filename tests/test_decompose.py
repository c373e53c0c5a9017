"""Decomposed networks: their modules, and the benchmark that makes their weights."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.fakes import squares
from vggsearch.errors import OptionError
from vggsearch.model.engine import EngineOptions
from vggsearch.model.networks import modules, network
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.weights import load_weights

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import decompose
from decompose import Layer, Regression, compared, embedding, explained, factored, inputs, tensors

HALF = "vgg16_half"


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_tensors_are_named_as_in_a_sequential_of_the_modules() -> None:
    steps: list[nn.Module] = []
    for module in modules(HALF):
        if module.kind == "pool":
            steps.append(nn.MaxPool2d(2))
            continue
        with torch.device("meta"):
            steps.append(nn.Conv2d(module.inputs, module.outputs, module.kernel, padding=module.padding))
        steps += [nn.ReLU()] if module.has_relu else []
    built = {f"features.{key}": tuple(value.shape) for key, value in nn.Sequential(*steps).state_dict().items()}
    assert built == {key: shape for module in modules(HALF) for key, shape in module.shapes.items()}


def test_a_decomposed_network_ends_as_its_original_does_at_half_the_work() -> None:
    for layer in network(HALF).layers:
        ours, theirs = (EmbeddingOptions(model=model, layer=layer) for model in (HALF, network(HALF).original))
        assert ours.resolve()[0].dim == theirs.resolve()[0].dim
    assert network(HALF).cells == "conv5_3b"


def test_a_decomposed_network_has_no_connected_layers() -> None:
    with pytest.raises(OptionError, match=f"{HALF} has no layer 'fc7'"):
        EmbeddingOptions(model=HALF, layer="fc7").resolve()


def test_a_regression_of_the_rank_that_responses_have_is_exact() -> None:
    given = random(400, 12).double()
    target = given @ random(12, 3, seed=1).double() @ random(3, 10, seed=2).double() + 5
    up, down, offset = Regression(given)(target, 3)
    assert torch.allclose(given @ (up @ down).T + offset, target, atol=0.05)


def test_what_the_relu_cuts_need_not_be_explained() -> None:
    target = (random(2_000, 16) @ random(16, 16, seed=1)).double() - 4

    def error(found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> float:
        up, down, offset = found
        return float(((torch.relu(target @ (up @ down).T + offset) - torch.relu(target)) ** 2).sum())

    assert error(explained(target, target, 4)) < 0.97 * error(Regression(target)(target, 4))


def test_a_layer_of_full_rank_responds_as_before() -> None:
    layer = Layer("conv", random(8, 4, 3, 3), random(8, seed=1))
    samples = random(500, 8, seed=2).double()
    found = factored(layer, samples + layer.bias.double(), samples, 8)
    maps = random(1, 4, 6, 6, seed=3)
    assert torch.allclose(found.responses(maps), layer.responses(maps), atol=0.05)


@pytest.mark.slow
def test_the_weights_make_the_maps_that_the_layers_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompose, "DTYPE", torch.float32)
    ranks = network(HALF).ranks
    layers = [
        Layer(
            step.name,
            random(ranks.get(step.name, step.outputs), step.inputs, 3, 3) * (2 / step.inputs / 9) ** 0.5,
            random(step.outputs) * 0.1,
            random(step.outputs, ranks[step.name]) * ranks[step.name] ** -0.5 if step.name in ranks else None,
            after.name if after.kind == "pool" else "",
        )
        for step, after in zip(modules("vgg16"), modules("vgg16")[1:], strict=False)
        if step.kind == "conv"
    ]
    pixels = squares(2, 32)
    photos = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    file = tmp_path / "half.safetensors"
    save_file(tensors(HALF, layers, photos), file)
    spec, weights = EmbeddingOptions(model=HALF, size=32, weights=file).resolve()
    engine = TorchEngine(spec, load_weights(weights, HALF, spec.layer), EngineOptions("torch", "cpu", "fp32"))
    expected = embedding(compared(layers, inputs(photos)))
    assert (torch.from_numpy(engine.embed(pixels)) * expected).sum(1).min() > 0.9999
