"""The network in fp8, on a CPU that rounds as a GPU does. test_gpu.py has the real one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from tests.fakes import squares
from tests.helpers.interpreted import Call, interpreted
from tests.test_fused import KERNELS, ON_TORCH, without_triton
from vggsearch.errors import OptionError
from vggsearch.model.engine import EngineOptions
from vggsearch.model.ranges import activation_ranges
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.torch_engine.engine import Embedder, TorchEngine
from vggsearch.model.torch_engine.fp8 import (
    FP8,
    LARGEST,
    Fp8Calls,
    Fp8Embedder,
    fp8_embedder,
    quantised,
    scales,
)
from vggsearch.model.weights import Kernel, load_weights

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ON_CPU = EngineOptions("torch", "cpu", "fp32")
SPEC, WEIGHTS = EmbeddingOptions().resolve()


def max_pool(maps: Tensor, dtype: torch.dtype | None = None, factor: float = 1.0) -> Tensor:
    most = max_pool2d(maps.float(), 2, 2)
    return to_fp8(most * factor) if (dtype or maps.dtype) == FP8 else most.to(maps.dtype)


def convolve(maps: Tensor, weight: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    assert maps.dtype == weight.dtype == FP8
    assert maps.is_contiguous(memory_format=torch.channels_last)
    result = conv2d(maps.float(), weight.float().permute(0, 3, 1, 2), padding=1)
    return to_fp8((result * factor.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)).relu())


def to_fp8(values: Tensor) -> Tensor:
    return values.clamp(max=LARGEST).to(FP8, memory_format=torch.channels_last)


class Fp8OnCpu(TorchEngine):
    """The reference engine with the calls of fp8 made of torch's on the CPU; what is in float16 is in float32."""

    def _embedder(self, spec: EmbeddingSpec, kernels: dict[str, Kernel]) -> Embedder:
        calls, fp8_calls = replace(ON_TORCH, max_pool=max_pool), Fp8Calls(max_pool, convolve)
        return Fp8Embedder(spec, kernels, CPU, self._dtype, calls, fp8_calls, activation_ranges(spec, "fp8"))


@pytest.mark.slow
@pytest.mark.network
def test_embeddings_and_local_features_are_nearly_those_of_fp32() -> None:
    kernels = load_weights(WEIGHTS, SPEC.model, SPEC.layer)
    noise = np.random.default_rng(0).integers(0, 256, (2, 192, 192, 3), dtype=np.uint8)
    grey = [np.full((192, 192, 3), value, np.uint8) for value in (0, 60, 255)]
    pictures = np.concatenate([squares(3, 192), grey, noise])
    reference, found = (engine(SPEC, kernels, ON_CPU).describe(pictures) for engine in (TorchEngine, Fp8OnCpu))
    cosines = (found.embeddings * reference.embeddings).sum(axis=1)
    assert 0.998 <= cosines.min() < 0.99999, "the upper bound shows that it was in fp8"
    for ours, theirs in zip(found.levels, reference.levels, strict=True):
        assert (ours * theirs).sum(axis=-1).mean() >= 0.995


def test_maps_are_in_fp8_from_the_second_pooling_on_and_outputs_are_not() -> None:
    spec = replace(SPEC, layer="pool1+pool2+pool3", sizes=(32,))
    embedder = Fp8OnCpu(spec, load_weights(WEIGHTS, spec.model, "pool3"), ON_CPU).embedder
    reference = TorchEngine(spec, load_weights(WEIGHTS, spec.model, "pool3"), ON_CPU).embedder
    view = torch.from_numpy(squares(2, 32)).permute(0, 3, 1, 2)
    names = ("pool1", "conv2_2", "pool2", "conv3_1", "pool3")
    found, expected = embedder.outputs(view, names), reference.outputs(view, names)
    assert {maps.dtype for maps in found.values()} == {torch.float32}
    for name in ("pool1", "conv2_2"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["pool2"], expected["pool2"], rtol=1 / 16, atol=1e-2)
    for name in ("pool2", "conv3_1", "pool3"):
        assert not torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
        assert torch.cosine_similarity(found[name].flatten(), expected[name].flatten(), 0) > 0.998


def test_the_scale_of_maps_is_that_of_the_convolution_before() -> None:
    ranges = activation_ranges(SPEC, "fp8")
    found = scales("vgg16", ranges)
    assert found["pool4"] == found["conv4_3"] == 4 * ranges["conv4_3"] / 448
    assert found["conv5_1"] == 4 * ranges["conv5_1"] / 448
    assert list(found)[:3] == ["conv1_1", "conv1_2", "pool1"]


def test_weights_are_rounded_to_fp8_in_units_of_their_channel() -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 4, 3, 3, generator=random) * torch.tensor([1e-3, 1, 50, 1, 0]).view(5, 1, 1, 1)
    bias, maps = torch.randn(5, generator=random), torch.rand(2, 4, 6, 6, generator=random)
    found = quantised(weight, bias, scale_in=0.5, scale_out=3.0)
    assert found.weight.dtype == FP8
    assert found.weight.float().abs().amax((1, 2, 3)).tolist() == [448, 448, 448, 448, 0]
    result = conv2d(maps / 0.5, found.weight.float().permute(0, 3, 1, 2), padding=1) * found.factor.view(1, 5, 1, 1)
    expected = conv2d(maps, weight, padding=1)
    error = (
        (result * 3.0 - expected).abs().amax((0, 2, 3)) / expected.abs().amax((0, 2, 3)).clamp(min=1e-9)
    ).tolist()
    assert max(error) < 0.05
    torch.testing.assert_close(found.bias * 3.0, bias)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Call, Tensor]]:
    """Calls of the kernels with their results in Triton's interpreter, on numbers that fp8 holds exactly."""
    pytest.importorskip("triton", reason="needs Triton")
    random = np.random.default_rng(0)

    def integers(shape: tuple[int, ...], values: list[int], shares: list[float]) -> Tensor:
        return torch.from_numpy(random.choice(values, shape, p=shares)).float()

    maps = integers((2, 128, 5, 7), [0, 1, 2], [0.4, 0.3, 0.3]).to(FP8, memory_format=torch.channels_last)
    weight = integers((256, 3, 3, 128), [-1, 0, 1], [0.002, 0.995, 0.003]).to(FP8)
    factor, bias = integers((256,), [1, 2], [0.5, 0.5]), integers((256,), [-2, 0, 1], [0.3, 0.4, 0.3])
    half = (50 * integers((2, 64, 9, 6), [0, 1, 7, 16], [0.25] * 4)).half().to(memory_format=torch.channels_last)
    calls: list[Call] = [("convolve_fp8", (maps, weight, factor, bias)), ("max_pool", (maps,))]
    calls += [("max_pool", (half, FP8, 0.02)), ("max_pool", (half, FP8, 1.0))]
    return list(zip(calls, interpreted(calls, tmp_path_factory.mktemp("calls")), strict=True))


def test_the_convolution_in_fp8_equals_torchs(results: list[tuple[Call, Tensor]]) -> None:
    (_, (maps, weight, factor, bias)), result = results[0]
    expected = conv2d(maps.float(), weight.float().permute(0, 3, 1, 2), padding=1) * factor.view(1, -1, 1, 1)
    expected = (expected + bias.view(1, -1, 1, 1)).relu()
    assert result.dtype == FP8
    assert result.is_contiguous(memory_format=torch.channels_last)
    exact = expected <= 16  # beyond, not all integers are numbers in fp8
    assert exact.float().mean() > 0.9
    assert torch.equal(result.float()[exact], expected[exact])


def test_maps_are_pooled_in_fp8_into_it_and_clipped(results: list[tuple[Call, Tensor]]) -> None:
    inside, scaled, clipped = (result.float() for _, result in results[1:])
    maps, half = results[1][0][1][0].float(), results[2][0][1][0].float()
    assert torch.equal(inside, max_pool2d(maps, 2, 2))
    assert torch.equal(scaled, max_pool2d(half / 50, 2, 2))
    assert torch.equal(clipped.bool(), max_pool2d(half, 2, 2).bool())
    assert clipped.max() == LARGEST


def test_fp8_is_refused_where_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        OptionError, match="fp8 needs activation ranges, which were measured for the packaged weights"
    ):
        fp8_embedder(replace(SPEC, weights_sha256="0" * 64), {}, GPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    with pytest.raises(OptionError, match=r"NVIDIA X does not support fp8 \(it needs a Hopper GPU"):
        fp8_embedder(SPEC, {}, GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    without_triton(monkeypatch)
    with pytest.raises(OptionError, match="this PyTorch does not support fp8"):
        fp8_embedder(SPEC, {}, GPU)


def test_fp8_is_refused_where_triton_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip(KERNELS, reason="needs Triton")

    def fails(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(kernels, "compile_fp8", fails)
    with pytest.raises(OptionError, match=r"NVIDIA X does not support fp8 \(Failed to find C compiler"):
        fp8_embedder(SPEC, {}, GPU)
