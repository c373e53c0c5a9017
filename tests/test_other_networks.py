"""GoogLeNet and the ResNets: equal to torchvision's with random weights, since no published ones are at hand."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from vggsearch.errors import OptionError, SpecMismatch, WeightsError
from vggsearch.evaluation.networks import compare_networks, described, measured
from vggsearch.image_index import ImageIndex
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.modules import Module, describe_modules
from vggsearch.model.networks import IMAGENET_MEAN, IMAGENET_STD, VECTOR_LAYERS, describe, modules, network
from vggsearch.model.openvino_engine.engine import OpenVinoEngine
from vggsearch.model.poolings import POOLINGS, embedding
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.torch_engine.operations import TorchOperations
from vggsearch.model.weights import Kernel, find_weights, load_weights
from vggsearch.render.model import networks

OTHERS = ("googlenet", "resnet18", "resnet50")
DEPTHS = {"vgg11": 11, "vgg13": 13, "vgg16": 16, "vgg19": 19, "googlenet": 22, "resnet18": 18, "resnet50": 50}
PUBLISHED_PARAMETERS = {"googlenet": 6_624_904, "resnet18": 11_689_512, "resnet50": 25_557_032}
PUBLISHED_GFLOPS = {"googlenet": 1.498, "resnet18": 1.814, "resnet50": 4.089}  # torchvision's _ops
SIZE = 80  # pixels: odd sides of maps, where a pooling has incomplete windows
TOLERANCE = 1e-5  # of the largest value
CUTS = [(model, layer) for model in OTHERS for layer in network(model).layers]
ANY_SHA = "0" * 64
SQUARES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
SQUARES[1] //= 3


def their_network(model: str) -> nn.Module:
    """Return torchvision's network with seeded random weights, and batch normalisations that do something."""
    torch.manual_seed(0)
    options = {"transform_input": True, "aux_logits": False, "init_weights": False} if model == "googlenet" else {}
    made: nn.Module = get_model(model, weights=None, **options)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.load_state_dict(
                {
                    "weight": torch.rand(module.num_features) + 0.5,
                    "bias": torch.randn(module.num_features) * 0.1,
                    "running_mean": torch.randn(module.num_features) * 0.1,
                    "running_var": torch.rand(module.num_features) + 0.5,
                    "num_batches_tracked": torch.tensor(9),
                }
            )
    return made.eval()


@cache
def their_outputs(model: str) -> dict[str, Tensor]:
    """Return what torchvision's feature extraction gives for each layer, for `SQUARES`."""
    pixels = torch.from_numpy(SQUARES).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    cut = create_feature_extractor(their_network(model), list(network(model).layers))
    with torch.inference_mode():
        found: dict[str, Tensor] = cut((pixels - mean) / std)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the file of the weights of each network."""
    folder = tmp_path_factory.mktemp("weights")
    found = {model: folder / f"{model}.safetensors" for model in OTHERS}
    for model, path in found.items():
        save_file(their_network(model).state_dict(), path)
    return found


@pytest.fixture(scope="module")
def kernels(files: Mapping[str, Path]) -> dict[str, dict[str, Kernel]]:
    found = {}
    for model, path in files.items():
        found[model] = load_weights(find_weights(model, "avgpool", path), model, "avgpool")
    return found


def spec_of(model: str, layer: str, pooling: str = "spoc") -> EmbeddingSpec:
    used = "flat" if layer in VECTOR_LAYERS else pooling
    return EmbeddingSpec(model, layer, used, (SIZE,), "squash", ANY_SHA)


def embedded(
    spec: EmbeddingSpec, kernels: dict[str, Kernel], engine: type[TorchEngine | OpenVinoEngine]
) -> NDArray[np.float32]:
    made: Engine = engine(spec, kernels, EngineOptions(engine.name, "cpu", "fp32"))
    return made.embed(SQUARES)


def their_embeddings(spec: EmbeddingSpec) -> NDArray[np.float32]:
    output = their_outputs(spec.model)[spec.layer]
    shown = output.flatten(2).transpose(1, 2) if spec.layer in VECTOR_LAYERS else output
    pooled: Tensor = embedding([shown], spec.layer, spec.pooling, TorchOperations())
    found: NDArray[np.float32] = pooled.numpy()
    return found


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max(), "two photos must differ"
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * float(np.abs(expected).max()))


@pytest.mark.parametrize("model", OTHERS)
def test_parameters_and_multiply_adds_are_what_is_published(model: str) -> None:
    assert sum(module.parameters for module in modules(model)) == PUBLISHED_PARAMETERS[model]
    assert round(sum(report.multiply_adds for report in describe(model)) / 1e9, 3) == PUBLISHED_GFLOPS[model]


@pytest.mark.parametrize("model", OTHERS)
def test_every_weight_has_the_name_and_shape_it_has_in_torchvision(model: str) -> None:
    theirs = {key: tuple(tensor.shape) for key, tensor in their_network(model).state_dict().items()}
    ours = {key: shape for module in modules(model) for key, shape in module.shapes.items()}
    assert ours == {key: shape for key, shape in theirs.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("model", OTHERS)
def test_shapes_are_those_torchvision_computes(model: str) -> None:
    reports = {report.module.name: report.shape for report in describe(model, SIZE)}
    for layer, output in their_outputs(model).items():
        assert reports[layer] == tuple(output.shape[1:][: 1 if layer == "avgpool" else 3])


@pytest.mark.parametrize(("model", "layer"), CUTS)
def test_every_cut_equals_the_features_of_torchvision(
    model: str, layer: str, kernels: dict[str, dict[str, Kernel]]
) -> None:
    engine = TorchEngine(spec_of(model, layer), kernels[model], EngineOptions("torch", "cpu", "fp32"))
    expected = their_outputs(model)[layer]
    with torch.inference_mode():
        [found] = engine.network(engine.normalised(SQUARES))
    assert_same(found.flatten().view(expected.shape).numpy(), expected.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("engine", [TorchEngine, OpenVinoEngine])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("model", "layer"), CUTS)
def test_every_pooling_of_every_cut_equals_that_of_torchvisions_features(
    model: str,
    layer: str,
    pooling: str,
    engine: type[TorchEngine | OpenVinoEngine],
    kernels: dict[str, dict[str, Kernel]],
) -> None:
    """By the length of the difference of unit vectors: a square root enlarges the error of values near zero."""
    spec = spec_of(model, layer, pooling)
    found, expected = embedded(spec, kernels[model], engine), their_embeddings(spec)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected, axis=1).max() < TOLERANCE


@pytest.mark.parametrize("pooling", ["gem", "flat"])
@pytest.mark.parametrize(("model", "layer"), [("googlenet", "inception3b"), ("resnet18", "layer2")])
def test_openvino_gives_the_embeddings_of_torchvisions_features(
    model: str, layer: str, pooling: str, kernels: dict[str, dict[str, Kernel]]
) -> None:
    spec = spec_of(model, layer, pooling)
    assert_same(embedded(spec, kernels[model], OpenVinoEngine), their_embeddings(spec))


def test_both_engines_agree_on_a_sum_of_maps_and_the_mean(kernels: dict[str, dict[str, Kernel]]) -> None:
    spec = EmbeddingSpec("resnet18", "layer3+0.5*avgpool", "gem", (64, SIZE), "squash", ANY_SHA, mirror=True)
    found = [embedded(spec, kernels["resnet18"], engine) for engine in (TorchEngine, OpenVinoEngine)]
    assert found[0].shape == (2, 256 + 512)
    assert_same(found[1], found[0])


def test_the_field_of_a_published_resnet50_is_the_published_one() -> None:
    """483 pixels in Araujo, Norris & Sim, "Computing receptive fields of convolutional neural networks", 2019.

    That ResNet-50 halves the map in the last block of a stage rather than in the first.
    """
    strides = [2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1]  # of the pooling and the 3 x 3 convolutions
    steps = [Module("conv1", "conv", 1, 1, 7, stride=2, padding=3)]
    steps += [Module("", "conv", 1, 1, 3, stride=stride, padding=1) for stride in strides]
    assert list(describe_modules(steps, 224))[-1].receptive_field == 483


@pytest.mark.parametrize(
    ("model", "layer"), [("resnet18", "layer2"), ("resnet50", "layer1"), ("googlenet", "inception3b")]
)
def test_a_pixel_beyond_the_receptive_field_changes_nothing(model: str, layer: str) -> None:
    """Found by the gradient of one cell of torchvision's network, with weights that let all through."""
    theirs = their_network(model)
    for parameter in theirs.parameters():
        parameter.data = parameter.abs() + 0.01
    pixels = torch.rand(1, 3, 160, 160, requires_grad=True)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.zeros(module.num_features)
        if isinstance(module, nn.MaxPool2d):
            module.forward = average_of(module)  # type: ignore[method-assign]
    maps = create_feature_extractor(theirs, [layer])(pixels)[layer]
    maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2].sum().backward()
    assert pixels.grad is not None
    seen = pixels.grad[0].abs().sum(0) > 0
    expected = next(report.receptive_field for report in describe(model) if report.module.name == layer)
    assert int(seen.any(0).sum()) == int(seen.any(1).sum()) == expected


def average_of(pooling: nn.MaxPool2d) -> nn.AvgPool2d:
    """Return an average pooling of the same windows, whose gradient reaches all cells of a window."""
    return nn.AvgPool2d(pooling.kernel_size, pooling.stride, pooling.padding, ceil_mode=pooling.ceil_mode)


def test_a_network_has_its_own_layers_and_defaults() -> None:
    with pytest.raises(
        OptionError, match=r"resnet18 has no layer 'pool5'\. Choose one of maxpool, layer1, .*avgpool"
    ):
        spec_of("resnet18", "pool5")
    with pytest.raises(OptionError, match="vgg16 has no layer 'layer4'"):
        spec_of("vgg16", "layer4")
    with pytest.raises(OptionError, match="avgpool is a vector already, with nothing to pool by gem"):
        EmbeddingSpec("resnet18", "avgpool", "gem", (224,), "squash", ANY_SHA)


@pytest.mark.parametrize(("model", "dim"), [("googlenet", 1856), ("resnet18", 768), ("resnet50", 3072)])
def test_defaults_are_the_maps_of_two_strides_at_the_size_of_training(
    model: str, dim: int, files: dict[str, Path]
) -> None:
    spec, _ = EmbeddingOptions(model=model, weights=files[model]).resolve()
    assert (spec.dim, spec.sizes, spec.pooling) == (dim, (224,), "spoc")


def test_int8_is_refused_since_no_ranges_were_measured(kernels: dict[str, dict[str, Kernel]]) -> None:
    with pytest.raises(OptionError, match="not for resnet18 with weights 00000000"):
        OpenVinoEngine(spec_of("resnet18", "layer1"), kernels["resnet18"], EngineOptions("openvino", "cpu", "int8"))


def test_weights_of_a_deeper_resnet_are_refused(tmp_path: Path) -> None:
    """ResNet-34 has every tensor of ResNet-18, with the same shape, and would run without its other blocks."""
    torch.manual_seed(0)
    save_file(get_model("resnet34", weights=None).state_dict(), tmp_path / "r.safetensors")
    found = find_weights("resnet18", "layer2", tmp_path / "r.safetensors")
    with pytest.raises(WeightsError, match=r"is for another network: resnet18 has no tensor 'layer1\.2\."):
        load_weights(found, "resnet18", "layer2")


@pytest.mark.parametrize("prefix", ["module.", "state_dict.backbone."])
def test_tensors_may_have_a_prefix(prefix: str, kernels: dict[str, dict[str, Kernel]], tmp_path: Path) -> None:
    theirs = their_network("resnet18").state_dict()
    save_file({prefix + key: tensor for key, tensor in theirs.items()}, tmp_path / "r.safetensors")
    found = load_weights(find_weights("resnet18", "layer1", tmp_path / "r.safetensors"), "resnet18", "layer1")
    assert np.array_equal(found["layer1.1.conv2"].weight, kernels["resnet18"]["layer1.1.conv2"].weight)


@pytest.mark.parametrize(
    "model", ["resnet18", *(pytest.param(model, marks=pytest.mark.slow) for model in ("googlenet", "resnet50"))]
)
def test_an_index_of_it_finds_photos_and_duplicates(
    model: str, files: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    (photos / "copy.jpg").write_bytes((photos / "summer" / "1.jpg").read_bytes())
    options = EmbeddingOptions(model=model, size=32, weights=files[model])
    with ImageIndex.create(tmp_path / model, options, engine_options=EngineOptions("torch", "cpu")) as index:
        assert index.update(photos).indexed == 6
        found = [match.path for match in index.query(photos / "summer" / "1.jpg", count=2).matches]
        assert set(found) == {"copy.jpg", "summer/1.jpg"}
        assert [pair.kind for pair in index.duplicates().pairs] == ["exact"]
        with pytest.raises(OptionError, match=f"{model} has no local features"):
            index.update(local_features=True)
        with pytest.raises(OptionError, match=f"local features, which {model} does not have"):
            index.query(photos / "summer" / "1.jpg", containing=True)
    with pytest.raises(SpecMismatch, match=f"contains embeddings with model {model}, which cannot be compared"):
        ImageIndex.open(tmp_path / model, EmbeddingOptions(model="vgg16"))


def test_side_by_side_networks_have_the_published_figures() -> None:
    found = {report.model: report for report in compare_networks()}
    assert {model: report.depth for model, report in found.items() if report.model in DEPTHS} == DEPTHS
    assert found["vgg16"].parameters == 138_357_544
    assert found["vgg16"].connected_share == pytest.approx(123_642_856 / 138_357_544)
    assert found["vgg16"].receptive_field == 212
    assert found["vgg16"].weight_bytes == 4 * 14_714_688
    assert found["resnet50"].multiply_adds == pytest.approx(4.089e9, rel=1e-3)
    assert found["resnet50"].dimensions == 1024 + 2048
    assert all(report.photos_per_s is None for report in found.values())


def test_photos_per_second_are_those_of_the_default_embedding() -> None:
    report = replace(described("resnet18"), layer="layer1", size=32)
    found = measured(report, seconds=0.01)
    assert found.photos_per_s is not None
    assert found.photos_per_s > 0
    assert found.engine.startswith("openvino, cpu")


@pytest.mark.parametrize("engine", ["", "openvino, cpu (2 threads), bf16"])
def test_the_comparison_fits_a_terminal(engine: str) -> None:
    reports = [
        replace(report, photos_per_s=1234.5 if engine else None, engine=engine) for report in compare_networks()
    ]
    shown = networks(reports, "table")
    assert max(map(len, shown.splitlines())) <= 80
    assert ("photos/s" in shown) == bool(engine)
    assert "inception4e+inception5b at 224: googlenet" in shown
    assert [each["model"] for each in json.loads(networks(reports, "json"))] == [each.model for each in reports]
