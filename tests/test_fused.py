"""The network of fused calls, on a CPU. test_gpu.py has the real calls."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from tests.fakes import squares
from tests.helpers.interpreted import Call, interpreted
from vggsearch.evaluation.networks import random_kernels
from vggsearch.model.engine import EngineOptions
from vggsearch.model.networks import IMAGENET_MEAN, IMAGENET_STD, modules
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine import fused
from vggsearch.model.torch_engine.engine import Embedder, TorchEngine, normalised
from vggsearch.model.torch_engine.fused import MOST_VALUES, Calls, FusedEmbedder, can_fuse, fastest_calls
from vggsearch.model.weights import Kernel

KERNELS = "vggsearch.model.torch_engine.triton_kernels"
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ON_CPU = EngineOptions("torch", "cpu", "fp32")
DEEP = EmbeddingSpec("vgg11", "pool4+pool5", "spoc", (48,), "squash", "0" * 64)


def convolve(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    assert maps.is_contiguous(memory_format=torch.channels_last)
    return conv2d(maps, weight, bias, padding=1).relu()


def first_layer(images: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return convolve(normalised(images, mean, scale, weight.dtype), weight, bias)


ON_TORCH = Calls(first_layer, convolve, fused.halve)


@cache
def kernels_to(layer: str) -> dict[str, Kernel]:
    return random_kernels("vgg11", layer)


class FusedOnCpu(TorchEngine):
    """The reference engine with fused calls, each made of torch's on the CPU."""

    most_values = MOST_VALUES

    def _embedder(self, spec: EmbeddingSpec, kernels: dict[str, Kernel]) -> Embedder:
        return FusedEmbedder(spec, kernels, CPU, self._dtype, ON_TORCH, self.most_values)


class Dividing(FusedOnCpu):
    """As if two images of 48 x 48 were the largest batch whose maps a kernel can address."""

    most_values = 2 * 64 * 48 * 48


def engines(spec: EmbeddingSpec, fused_engine: type[FusedOnCpu] = FusedOnCpu) -> tuple[TorchEngine, TorchEngine]:
    """Return the engine of fused calls and the reference."""
    kernels = random_kernels(spec.model, "pool5" if "fc" not in spec.layer else spec.layer)
    load = lambda: kernels  # noqa: E731
    return fused_engine(spec, kernels, ON_CPU, load_kernels=load), TorchEngine(
        spec, kernels, ON_CPU, load_kernels=load
    )


def assert_same_directions(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Rows of unit length, cosine at least 0.99999; pictures differ by far more."""
    assert found.shape == expected.shape
    assert (found * expected).sum(axis=-1).min() >= 0.99999
    assert (found * np.roll(expected, 1, axis=0)).sum(axis=-1).min() < 0.9999


@pytest.mark.parametrize(
    "spec",
    [
        DEEP,
        replace(DEEP, sizes=(45,)),
        replace(DEEP, sizes=(33, 48), mirror=True),
        replace(DEEP, layer="0.5*pool1+pool3", pooling="rmac"),
        replace(DEEP, layer="pool5", pooling="flat"),
    ],
    ids=str,
)
@pytest.mark.parametrize("engine", [FusedOnCpu, Dividing])
def test_fused_calls_give_the_embeddings_of_the_modules(engine: type[FusedOnCpu], spec: EmbeddingSpec) -> None:
    found, reference = engines(spec, engine)
    pictures = squares(5, spec.size)
    assert_same_directions(found.embed(pictures), reference.embed(pictures))


def test_fused_calls_lead_to_the_connected_layers() -> None:
    spec = replace(DEEP, layer="pool5+fc6", sizes=(224,))
    found, reference = engines(spec)
    pictures = squares(2, 224)
    assert_same_directions(found.embed(pictures), reference.embed(pictures))


@pytest.mark.parametrize("engine", [FusedOnCpu, Dividing])
@pytest.mark.parametrize("layer", ["pool4+pool5", "pool2"])
def test_fused_calls_give_the_local_features_of_the_modules(layer: str, engine: type[FusedOnCpu]) -> None:
    found, reference = (each.describe(squares(5, 48)) for each in engines(replace(DEEP, layer=layer), engine))
    assert_same_directions(found.embeddings, reference.embeddings)
    for ours, theirs in zip(found.levels, reference.levels, strict=True):
        assert_same_directions(ours, theirs)


def test_a_batch_is_divided_so_that_no_map_is_larger_than_a_kernel_can_address() -> None:
    sizes: list[int] = []

    def counted(images: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        maps = first_layer(images, mean, scale, weight, bias)
        sizes.append(maps.numel())
        return maps

    most = 3 * 64 * 48 * 48 + 1
    calls = replace(ON_TORCH, first_layer=counted)
    embedder = FusedEmbedder(DEEP, kernels_to("pool5"), CPU, torch.float32, calls, most)
    embedder(torch.from_numpy(squares(8, 48)))
    assert [size // (64 * 48 * 48) for size in sizes] == [3, 3, 2]


MAPS = torch.Generator().manual_seed(0)
SHAPES = [(2, 64, 9, 11), (1, 128, 6, 6), (3, 512, 3, 2), (1, 16, 130, 140)]
IMAGES = [(2, 3, 13, 10), (1, 3, 2, 70), (1, 3, 1, 1)]
MEANS = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255
SCALES = 1 / (torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255)


def random_maps(shape: Sequence[int]) -> Tensor:
    return torch.randn(tuple(shape), generator=MAPS).half().to(memory_format=torch.channels_last)


def random_images(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    n, channels, height, width = shape
    pixels = torch.randint(0, 256, (n, height, width, channels), dtype=torch.uint8, generator=MAPS)
    return pixels.permute(0, 3, 1, 2).to(dtype)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Call, Tensor]]:
    """Calls of the kernels with their results in Triton's interpreter."""
    pytest.importorskip("triton", reason="needs Triton")
    not_numbers = random_maps(SHAPES[0])
    not_numbers[0, 5, 2, 3] = float("nan")
    calls: list[Call] = [("max_pool", (maps,)) for maps in (*map(random_maps, SHAPES), not_numbers)]
    weight, bias = random_maps((64, 3, 3, 3)), random_maps((64, 1, 1, 1)).flatten()
    images = [random_images(shape, dtype) for shape, dtype in product(IMAGES, (torch.uint8, torch.float32))]
    images.append(random_images((2, 3, 9, 12), torch.uint8).flip(3))
    calls += [("first_layer", (each, MEANS, SCALES, weight, bias)) for each in images]
    return list(zip(calls, interpreted(calls, tmp_path_factory.mktemp("calls")), strict=True))


def test_the_pooling_kernel_equals_torchs(results: list[tuple[Call, Tensor]]) -> None:
    found = [(given[0], result) for (name, given), result in results if name == "max_pool"]
    assert len(found) == len(SHAPES) + 1
    for maps, result in found:
        assert result.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(result, max_pool2d(maps, 2, 2), rtol=0, atol=0, equal_nan=True)


def test_the_kernel_of_the_first_layer_equals_torchs_normalisation_and_convolution(
    results: list[tuple[Call, Tensor]],
) -> None:
    found = [(given, result) for (name, given), result in results if name == "first_layer"]
    assert len(found) == 2 * len(IMAGES) + 1
    for (images, mean, scale, weight, bias), result in found:
        assert result.is_contiguous(memory_format=torch.channels_last)
        pixels = normalised(images, mean, scale, torch.float16).float()
        expected = conv2d(pixels, weight.float(), bias.float(), padding=1).relu().half()
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)


def test_calls_are_fused_on_gpus_of_nvidia_that_compute_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    network = modules("vgg19_bn")
    assert can_fuse(GPU, torch.float16, network)
    assert can_fuse(GPU, torch.bfloat16, network)
    assert not can_fuse(GPU, torch.float32, network)
    assert not can_fuse(CPU, torch.float16, network)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not can_fuse(GPU, torch.float16, network)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not can_fuse(GPU, torch.float16, network)


@pytest.mark.parametrize("model", ["googlenet", "resnet18", "resnet50"])
def test_calls_of_vgg_do_not_run_other_networks(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert not can_fuse(GPU, torch.float16, modules(model)[:1])


def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the import of the kernels fail, also where they have been imported before."""
    monkeypatch.setitem(sys.modules, KERNELS, None)
    monkeypatch.delattr(KERNELS, raising=False)


def test_without_triton_torch_pools(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    without_triton(monkeypatch)
    assert fastest_calls(GPU, torch.float16) == Calls(fused.first_layer, fused.convolve, fused.halve)
    assert not caplog.records


def test_where_triton_cannot_compile_torch_pools_and_a_warning_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernels = pytest.importorskip(KERNELS, reason="needs Triton")

    def fails(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(kernels, "compile_for", fails)
    with caplog.at_level(logging.WARNING):
        assert fastest_calls(GPU, torch.float16) == Calls(fused.first_layer, fused.convolve, fused.halve)
    assert [record.message for record in caplog.records] == [
        "Triton compiles no kernels here, so the network is slower: Failed to find C compiler."
    ]
    monkeypatch.setattr(kernels, "compile_for", lambda *_: None)
    assert fastest_calls(GPU, torch.float16) == Calls(kernels.first_layer, fused.convolve, kernels.max_pool)


def test_the_call_of_cudnn_is_a_convolution_with_bias_and_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    def cudnn(
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        return conv2d(maps, weight, bias, stride, padding, dilation, groups).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", cudnn)
    kernels = kernels_to("pool5")
    calls = Calls(fused.first_layer, fused.convolve, fused.halve)
    pixels = torch.from_numpy(squares(3, 48))
    found = FusedEmbedder(DEEP, kernels, CPU, torch.float32, calls)(pixels)
    assert_same_directions(found.numpy(), Embedder(DEEP, kernels, CPU, torch.float32)(pixels).numpy())
