"""The proof against torchvision: the same numbers from the same weights, for every configuration and cut."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, get_model
from torchvision.transforms.functional import normalize as normalise_pixels

from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.networks import CONNECTED_LAYERS, NETWORKS, POOLS
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.torch_engine.network import TruncatedNetwork
from vggsearch.model.vgg import DEPTHS
from vggsearch.model.weights import PACKAGED, find_weights, load_weights

MODELS = tuple(name + norm for name in DEPTHS for norm in ("", "_bn"))
LAYERS = NETWORKS["vgg16"].layers
SUFFIXES = dict(zip(MODELS, (".pth", ".safetensors", ".safetensors", ".pth") * 2, strict=True))
TOLERANCE = 1e-5  # of the largest value


def empty_torchvision(model: str) -> nn.Module:
    with torch.device("meta"):
        built: nn.Module = get_model(model, weights=None, init_weights=False)
    return built.eval().requires_grad_(False)


def seeded_torchvision(model: str) -> nn.Module:
    """He-initialised, with biases and with batch normalisations that are far from doing nothing."""
    torch.manual_seed(MODELS.index(model))
    network = empty_torchvision(model).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert module.num_batches_tracked is not None
            deviation = 10 ** torch.empty(module.num_features).uniform_(-1.5, 0.3)
            module.running_var.copy_(deviation**2)
            module.running_mean.copy_(deviation * torch.randn(module.num_features) * 0.2)
            module.weight.copy_(deviation * torch.empty(module.num_features).uniform_(0.5, 1.5))
            nn.init.normal_(module.bias, std=0.2)
            module.num_batches_tracked.fill_(1)
    return network


def torchvision_outputs(network: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Outputs by layer: features cut after each max pooling, the classifier after its first two ReLUs."""
    x, maps, vectors = pixels, [], []
    for step in network.get_submodule("features").children():
        x = step(x)
        if isinstance(step, nn.MaxPool2d):
            maps.append(x.clone())
    x = network.get_submodule("avgpool")(x).flatten(1)
    for step in network.get_submodule("classifier").children():
        x = step(x)
        if isinstance(step, nn.ReLU):
            vectors.append(x.clone())
    return dict(zip(LAYERS, maps + vectors, strict=True))


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())


def smooth_pictures(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random colours that change slowly, with fine grain: uint8 of shape (count, size, size, 3)."""
    torch.manual_seed(seed)
    scales = [(3, 90.0), (12, 50.0), (48, 25.0)]
    pictures = torch.full((count, 3, size, size), 127.0)
    for cells, strength in scales:
        noise = torch.randn(count, 3, cells, cells)
        pictures += strength * nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
    squares: NDArray[np.uint8] = pictures.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return squares


def default_engine(options: EngineOptions | None = None) -> Engine:
    return load_engine(*EmbeddingOptions().resolve(), options)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    found: NDArray[np.float64] = (a64 * b64).sum(1) / lengths
    return found


@pytest.fixture
def checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, nn.Module, Path]]:
    """A configuration, torchvision's network, and its file, deleted afterwards as it takes half a gigabyte."""
    model: str = request.param
    network = seeded_torchvision(model)
    path = tmp_path / f"{model}{SUFFIXES[model]}"
    if path.suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    yield model, network, path
    path.unlink()


@torch.inference_mode()
@pytest.mark.parametrize(
    "checkpoint",
    ["vgg11", *(pytest.param(model, marks=pytest.mark.slow) for model in MODELS if model != "vgg11")],
    indirect=True,
)
def test_every_layer_of_every_configuration_equals_torchvision(checkpoint: tuple[str, nn.Module, Path]) -> None:
    model, theirs, path = checkpoint
    everything = "+".join(LAYERS)
    ours = TruncatedNetwork(
        model, everything, load_weights(find_weights(model, everything, path), model, everything)
    )
    pixels = torch.randn(2, 3, 224, 224)
    expected = torchvision_outputs(theirs, pixels)
    for layer, output in zip(LAYERS, ours(pixels), strict=True):
        reference = expected[layer] if layer in POOLS else expected[layer][:, None]  # one window
        assert float(reference.std()) > 0.1, "so small a reference would prove nothing"
        assert float((reference[0] - reference[1]).std()) > 0.1, "so constant a reference would prove nothing"
        assert_same(output, reference)


@torch.inference_mode()
@pytest.mark.parametrize("model", [pytest.param("vgg11", marks=pytest.mark.slow), "vgg11_bn"])
def test_a_network_cut_early_equals_the_same_layers_of_the_whole_one(model: str, tmp_path: Path) -> None:
    theirs = seeded_torchvision(model)
    kept = {key: tensor for key, tensor in theirs.state_dict().items() if key.startswith("features.")}
    torch.save(kept, tmp_path / "features.pth")
    pixels = torch.randn(2, 3, 96, 96)
    expected = torchvision_outputs(theirs, pixels)
    for layer in (*POOLS, "pool5+pool2"):
        kernels = load_weights(find_weights(model, layer, tmp_path / "features.pth"), model, layer)
        for part, output in zip(layer.split("+"), TruncatedNetwork(model, layer, kernels)(pixels), strict=True):
            assert_same(output, expected[part])


@pytest.mark.slow
@pytest.mark.network
@torch.inference_mode()
def test_packaged_maps_equal_torchvision_under_the_same_weights() -> None:
    theirs = packaged_torchvision_features()
    layer = "+".join(POOLS)
    ours = TruncatedNetwork("vgg16", layer, load_weights(find_weights("vgg16", layer), "vgg16", layer))
    pixels = imagenet_pixels(smooth_pictures(2, 224))
    x, expected = pixels, []
    for step in theirs.children():
        x = step(x)
        if isinstance(step, nn.MaxPool2d):
            expected.append(x.clone())
    for output, reference in zip(ours(pixels), expected, strict=True):
        assert float(reference.std()) > 0.1
        assert_same(output, reference)


@pytest.mark.network
@torch.inference_mode()
def test_an_embedding_is_torchvision_then_mean_root_and_unit_length() -> None:
    squares = smooth_pictures(2, 192)
    features = list(packaged_torchvision_features().children())
    pools = [position for position, step in enumerate(features) if isinstance(step, nn.MaxPool2d)]
    pixels = imagenet_pixels(squares)
    pool4 = nn.Sequential(*features[: pools[3] + 1])(pixels).numpy().astype(np.float64)
    pool5 = nn.Sequential(*features)(pixels).numpy().astype(np.float64)
    halves = [np.sqrt(maps.mean((2, 3))) for maps in (pool4, pool5)]
    expected = np.hstack([half / np.linalg.norm(half, axis=1, keepdims=True) for half in halves]) / np.sqrt(2)
    found = default_engine(EngineOptions("torch", "cpu", "fp32")).embed(squares)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * expected.max())


@pytest.mark.slow
@pytest.mark.network
def test_a_photo_has_the_same_embedding_alone_and_in_a_batch() -> None:
    squares = smooth_pictures(8, 192)
    engine = default_engine(EngineOptions("torch", "cpu", "fp32"))
    alone = np.vstack([engine.embed(squares[row : row + 1]) for row in range(8)])
    np.testing.assert_allclose(engine.embed(squares), alone, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.network
def test_alone_and_in_a_batch_agree_in_the_precision_chosen_by_itself() -> None:
    squares = smooth_pictures(8, 192)
    engine = default_engine()
    together = engine.embed(squares)
    alone = np.vstack([engine.embed(squares[row : row + 1]) for row in range(8)])
    assert cosines(together, alone).min() > 0.9999
    assert cosines(together, np.roll(alone, 1, axis=0)).max() < 0.9999, "the pictures must differ for this to tell"


@pytest.mark.slow
@pytest.mark.network
def test_bfloat16_gives_nearly_the_embeddings_of_float32() -> None:
    squares = smooth_pictures(4, 192)
    exact = default_engine(EngineOptions("torch", "cpu", "fp32")).embed(squares)
    short = default_engine(EngineOptions("torch", "cpu", "bf16")).embed(squares)
    assert short.dtype == np.float32
    assert not np.allclose(exact, short, rtol=0, atol=1e-6), "bf16 was asked for, and fp32 ran"
    assert cosines(exact, short).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)


@pytest.mark.network
def test_only_what_the_default_layer_needs_is_built() -> None:
    spec, weights = EmbeddingOptions().resolve()
    network = TruncatedNetwork(spec.model, spec.layer, load_weights(weights, spec.model, spec.layer))
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_714_688
    assert list(network.steps)[-1] == "pool5"
    assert not any(layer in name for name, _ in network.named_modules() for layer in CONNECTED_LAYERS)


def packaged_torchvision_features() -> nn.Module:
    network = empty_torchvision("vgg16")
    tensors = {key.removeprefix("features."): tensor.float() for key, tensor in load_file(PACKAGED).items()}
    features = network.get_submodule("features")
    features.load_state_dict(tensors, assign=True)
    return features.requires_grad_(False)


def imagenet_pixels(squares: NDArray[np.uint8]) -> Tensor:
    """Normalise as torchvision's published transform does."""
    published = VGG16_Weights.IMAGENET1K_V1.transforms()
    pixels = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
    normalised: Tensor = normalise_pixels(pixels, published.mean, published.std)
    return normalised
