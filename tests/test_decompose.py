"""Decomposed networks: their modules, and the benchmark that makes their weights."""

import sys
from itertools import pairwise
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

import decompose_layers
import decompose_training
import decompose_variations
from decompose import tensors, training_files
from decompose_layers import SIZE, Layer, compared, embedding, inputs
from decompose_regression import Regression, decomposed, explained, factored, kept_channels, patches
from decompose_training import OF_BATCH, Learned, Limit, Schedule, learning_rate, trained
from decompose_variations import SOURCE, mixed, parts, recoloured

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
    cells = [next(each for each in modules(m) if each.name == network(m).cells) for m in (HALF, "vgg16")]
    assert cells[0].outputs == cells[1].outputs


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


def test_patches_are_what_a_convolution_sees() -> None:
    maps, layer = random(2, 4, 6, 5), Layer("conv", random(8, 4, 3, 3, seed=1), random(8, seed=2))
    places = torch.tensor([0, 7, 29])
    expected = layer.responses(maps).flatten(2)[:, :, places].permute(0, 2, 1).flatten(0, 1)
    seen = patches(maps, places).float()
    assert torch.allclose(seen @ layer.weight.flatten(1).T + layer.bias, expected, atol=1e-4)


def test_the_channels_are_kept_that_the_next_layer_needs() -> None:
    channels = random(500, 6).double()
    cells = channels[:, :, None] * (1 + random(500, 6, 9, seed=1).double() / 10)
    target = cells.flatten(1)[:, 9:36] @ random(27, 5, seed=2).double()
    assert kept_channels(cells.flatten(1), target, 3) == [1, 2, 3]


def test_of_two_channels_that_say_the_same_one_is_kept() -> None:
    cells = random(500, 4, 9).double()
    cells[:, 2] = cells[:, 0] * 2
    kept = kept_channels(cells.flatten(1), cells[:, (0, 1, 3)].flatten(1), 3)
    assert kept in ([0, 1, 3], [1, 2, 3])


def test_a_network_without_channels_that_nothing_needs_does_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompose_layers, "DTYPE", torch.float32)
    second = random(10, 8, 3, 3, seed=2) / 8
    second[:, 5:] = 0
    layers = [
        Layer("conv1_1", random(8, 3, 3, 3) / 5, random(8, seed=1)),
        Layer("conv1_2", second, random(10, seed=3), pool="pool4"),
        Layer("conv2_1", random(6, 10, 3, 3, seed=4) / 10, random(6, seed=5), pool="pool5"),
    ]
    photos = (uniform(16, 3, 16, 16) * 255).byte()
    found = decomposed(layers, {"conv1_2": 10}, {"conv1_1": 5}, photos)
    assert [len(layer.bias) for layer in found] == [5, 10, 6]
    assert found[2] is layers[2]
    ours, theirs = (compared(each, inputs(photos)) for each in (found, layers))
    assert (ours["pool5"] - theirs["pool5"]).norm() < 0.05 * theirs["pool5"].norm()


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_a_layer_is_learned_in_other_coordinates_but_starts_as_it_was() -> None:
    layer = Layer("conv", random(5, 8, 3, 3), random(12, seed=1), random(12, 5, seed=2), "pool")
    maps = uniform(4, 8, 10, 10, seed=3) + uniform(4, 8, 1, 1, seed=4)
    found = Learned(layer, maps, torch.Generator().manual_seed(0)).layer()
    assert torch.allclose(found(maps), layer(maps), atol=1e-3)
    assert found.pool == "pool"


def test_photos_are_varied_within_the_range_of_pixels() -> None:
    photos = (uniform(3, 3, SOURCE, SOURCE) * 255).byte()
    generator = torch.Generator().manual_seed(0)
    some = recoloured(parts(photos, generator), generator)
    assert some.shape == (3, 3, SIZE, SIZE)
    assert 0 <= some.min() < 60 < 200 < some.max() <= 255


def test_some_photos_show_two() -> None:
    levels = torch.arange(200.0).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    shown = mixed(levels, torch.Generator().manual_seed(0))
    deviation = shown.std((1, 2, 3))
    changed = (shown != levels).flatten(1).any(1)
    assert 0.3 < changed.float().mean() < 0.5
    assert (deviation[~changed] == 0).all()
    assert (deviation > 0.01).sum() > 20
    assert ((deviation < 1e-3) & changed).sum() > 20


def test_a_part_shows_the_photo_straight_or_turned() -> None:
    rows = torch.arange(SOURCE).float().view(1, 1, SOURCE, 1).expand(20, 3, SOURCE, SOURCE).byte()
    shown = parts(rows, torch.Generator().manual_seed(0))
    straight = shown.std(3).mean((1, 2)) < 1
    turned = shown.std(2).mean((1, 2)) < 1
    assert (straight ^ turned).all()
    assert straight.any()
    assert turned.any()
    assert (shown.amax((1, 2, 3)) - shown.amin((1, 2, 3))).min() > 0.6 * SOURCE


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [learning_rate(spent / 100, OF_BATCH) for spent in range(101)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0)
    assert max(rates) == pytest.approx(rates[5], rel=0.02)


def test_training_ends_after_so_many_seconds() -> None:
    assert Limit(10, float("inf")).spent(5) == 0.5
    assert Limit(10, 1e-9).spent(0) >= 1


@pytest.mark.parametrize(("start", "views"), [("", None), ("", 8), ("second", 8)])
def test_training_brings_a_network_nearer_to_its_original(
    start: str, views: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decompose_layers, "DTYPE", torch.float32)
    monkeypatch.setattr(decompose_variations, "SIZE", 16)
    monkeypatch.setattr(decompose_training, "REPORT_EVERY", 0)
    monkeypatch.setattr(decompose_training, "REPORTING", float("inf"))
    monkeypatch.setattr(decompose_training, "LEARNING_RATE", 0.02)
    monkeypatch.setattr(decompose_training, "OF_BATCH", 4)
    exact = [
        Layer("first", random(8, 3, 3, 3) / 5, random(8, seed=1)),
        Layer("second", random(16, 8, 3, 3, seed=2) / 8, random(16, seed=3), pool="pool4"),
        Layer("third", random(16, 16, 3, 3, seed=4) / 12, random(16, seed=5), pool="pool5"),
    ]
    begun = [
        Layer("first", exact[0].weight + random(8, 3, 3, 3, seed=12) / 20, exact[0].bias),
        Layer("second", random(12, 8, 3, 3, seed=6) / 8, random(16, seed=7), random(16, 12, seed=8) / 3, "pool4"),
        Layer(
            "third", random(12, 16, 3, 3, seed=9) / 12, random(16, seed=10), random(16, 12, seed=11) / 3, "pool5"
        ),
    ]
    photos, small = (uniform(8, 3, side, side, seed=side).mul(255).byte() for side in (20, 16))
    found = trained(exact, begun, photos, small, small, Schedule(4, 30, start=start, views=views))
    assert torch.equal(found[0].weight, begun[0].weight) is bool(start)
    assert not torch.equal(found[1].weight, begun[1].weight)
    errors = [float(line.rsplit(maxsplit=1)[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(errors) == 32
    assert min(errors) < 0.7 * errors[0]
    wanted, before, after = (embedding(compared(layers, inputs(small))) for layers in (exact, begun, found))
    assert (after - wanted).norm() < 0.8 * (before - wanted).norm()


def test_the_photos_to_judge_by_are_not_trained_on() -> None:
    files = [Path(f"{number}.jpg") for number in range(40)]
    trained_on, judged = training_files(files, None)
    assert len(judged) == 3
    assert sorted(trained_on + judged) == sorted(files)


def random_layers() -> list[Layer]:
    ranks, widths = network(HALF).ranks, network(HALF).widths
    layers: list[Layer] = []
    channels = 3
    for step, after in pairwise(modules("vgg16")):
        if step.kind != "conv":
            continue
        rank, outputs = ranks.get(step.name), widths.get(step.name, step.outputs)
        weight = random(outputs if rank is None else rank, channels, 3, 3) * (2 / channels / 9) ** 0.5
        mix = None if rank is None else random(outputs, rank) * rank**-0.5
        pool = after.name if after.kind == "pool" else ""
        layers.append(Layer(step.name, weight, random(outputs) * 0.1, mix, pool))
        channels = outputs
    return layers


@pytest.mark.slow
def test_the_weights_make_the_maps_that_the_layers_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompose_layers, "DTYPE", torch.float32)
    layers = random_layers()
    pixels = squares(2, 32)
    photos = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    file = tmp_path / "half.safetensors"
    save_file(tensors(HALF, layers, photos), file)
    spec, weights = EmbeddingOptions(model=HALF, size=32, weights=file).resolve()
    engine = TorchEngine(spec, load_weights(weights, HALF, spec.layer), EngineOptions("torch", "cpu", "fp32"))
    expected = embedding(compared(layers, inputs(photos)))
    assert (torch.from_numpy(engine.embed(pixels)) * expected).sum(1).min() > 0.9999
