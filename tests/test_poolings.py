"""Each pooling against loops written from its paper, one picture, one channel and one cell at a time."""

import math
from collections.abc import Callable

import numpy as np
import openvino
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from openvino import opset13 as ops

from vggsearch import defaults
from vggsearch.model.engine import EngineOptions
from vggsearch.model.layers import needed_modules
from vggsearch.model.networks import CONNECTED_LAYERS, POOLS
from vggsearch.model.openvino_engine.operations import OpenVinoOperations
from vggsearch.model.poolings import POOLINGS, embedding, rmac_regions
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.torch_engine.operations import TorchOperations
from vggsearch.model.weights import Kernel

Array = NDArray[np.float64]

EPSILON = 1e-6  # the small constant of CroW's section 3.3
SIDES = [(7, 7), (12, 12), (14, 7), (7, 12), (6, 2), (3, 5), (1, 1)]


def slow_spoc(maps: Array) -> list[float]:
    """Babenko & Lempitsky 2015 without the centre prior; RootSIFT's signed root on the mean."""
    means = [float(channel.sum()) / channel.size for channel in maps]
    return [math.copysign(math.sqrt(abs(mean)), mean) for mean in means]


def slow_gem(maps: Array) -> list[float]:
    """Radenovic, Tolias & Chum 2018, equation 3, p = 3."""
    return [(sum(float(x) ** 3 for x in channel.flat) / channel.size) ** (1 / 3) for channel in maps]


def slow_mac(maps: Array) -> list[float]:
    """Tolias, Sicre & Jegou 2016, equation 1."""
    return [max(float(x) for x in channel.flat) for channel in maps]


def slow_rmac(maps: Array) -> list[float]:
    """Tolias, Sicre & Jegou 2016, section 3.2: l x (l + m - 1) squares of side 2 min(W, H) / (l + 1)."""
    _, height, width = maps.shape
    shorter, longer = min(height, width), max(height, width)
    m = 1
    if longer > shorter:
        m = min(range(2, 8), key=lambda m: abs((shorter - (longer - shorter) / (m - 1)) / shorter - 0.4))
    total = [0.0] * len(maps)
    for scale in (1, 2, 3):
        side = max(1, math.floor(2 * shorter / (scale + 1)))
        down = scale + m - 1 if height > width else scale
        across = scale + m - 1 if width > height else scale
        for i in range(down):
            for j in range(across):
                top = math.floor(i * (height - side) / (down - 1)) if down > 1 else 0
                left = math.floor(j * (width - side) / (across - 1)) if across > 1 else 0
                region = slow_mac(maps[:, top : top + side, left : left + side])
                length = math.sqrt(sum(x * x for x in region))
                if length > 0:
                    total = [t + x / length for t, x in zip(total, region, strict=True)]
    return total


def slow_crow(maps: Array) -> list[float]:
    """Kalantidis, Mellina & Osindero 2016: equation 2 with a = b = 2, then the log of rareness (section 3.3)."""
    count, height, width = maps.shape
    strength = [[sum(float(maps[k, i, j]) for k in range(count)) for j in range(width)] for i in range(height)]
    norm = math.sqrt(sum(s * s for line in strength for s in line))
    spatial = [[math.sqrt(s / norm) for s in line] for line in strength]
    active = [sum(x > 0 for x in channel.flat) / (height * width) for channel in maps]
    pooled = []
    for k in range(count):
        value = sum(float(maps[k, i, j]) * spatial[i][j] for i in range(height) for j in range(width))
        pooled.append(value * math.log((count * EPSILON + sum(active)) / (EPSILON + active[k])))
    return pooled


def slow_flat(maps: Array) -> list[float]:
    count, height, width = maps.shape
    return [float(maps[k, i, j]) for k in range(count) for i in range(height) for j in range(width)]


SLOW: dict[str, Callable[[Array], list[float]]] = {
    "spoc": slow_spoc,
    "gem": slow_gem,
    "mac": slow_mac,
    "rmac": slow_rmac,
    "crow": slow_crow,
    "flat": slow_flat,
}


def pool(pooling: str, maps: torch.Tensor) -> torch.Tensor:
    on = TorchOperations()
    return on.flatten(POOLINGS[pooling](maps, on))


def pool_on_openvino(pooling: str, maps: torch.Tensor) -> torch.Tensor:
    on = OpenVinoOperations()
    given_maps = ops.parameter([-1, *maps.shape[1:]], np.float32)
    graph = openvino.Model([on.flatten(POOLINGS[pooling](given_maps, on))], [given_maps], pooling)
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled(maps.numpy())[0].copy())


def embed_maps(outputs: list[torch.Tensor], layer: str, pooling: str) -> torch.Tensor:
    embedded: torch.Tensor = embedding(outputs, layer, pooling, TorchOperations())
    return embedded


def relu_maps(seed: int, count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Maps as they come out of a ReLU: over half of the cells are 0, and one channel wholly."""
    random = np.random.default_rng(seed)
    cells = np.maximum(random.normal(-0.3, 1, (count, channels, height, width)), 0) * random.gamma(2, 2)
    cells[:, 0] = 0
    cells[:, 1:3, 0, 0] = 0.5
    return torch.from_numpy(cells.astype(np.float32))


def unit(vectors: Array) -> Array:
    lengths: Array = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def zero_kernels(model: str, layer: str) -> dict[str, Kernel]:
    """Kernels of the right shapes, which cost no memory until they are used."""
    return {
        module.name: Kernel(
            np.zeros(module.shapes[f"{module.key}.weight"], np.float32), np.zeros(module.outputs, np.float32)
        )
        for module in needed_modules(model, layer)
        if module.kind != "pool"
    }


def test_every_pooling_has_slow_loops_to_compare_it_with() -> None:
    assert set(SLOW) == set(POOLINGS)


@pytest.mark.parametrize("run", [pool, pool_on_openvino])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_a_pooling_equals_the_loops_of_its_paper(
    pooling: str, height: int, width: int, run: Callable[[str, torch.Tensor], torch.Tensor]
) -> None:
    maps = relu_maps(height * 100 + width, 3, 6, height, width)
    expected = np.array([SLOW[pooling](one) for one in maps.numpy().astype(np.float64)])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(run(pooling, maps).numpy(), expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 15), width=st.integers(1, 15))
def test_a_pooling_equals_its_loops_on_maps_of_any_shape(pooling: str, seed: int, height: int, width: int) -> None:
    maps = relu_maps(seed, 1, 4, height, width)
    expected = SLOW[pooling](maps[0].numpy().astype(np.float64))
    np.testing.assert_allclose(pool(pooling, maps)[0].numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_maps_that_lie_channels_last_in_memory_pool_the_same(pooling: str) -> None:
    maps = relu_maps(5, 2, 8, 7, 12)
    lying = maps.contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(pool(pooling, lying).numpy(), pool(pooling, maps).numpy(), rtol=1e-6)


@pytest.mark.parametrize("run", [pool, pool_on_openvino])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_all_zero_map_gives_finite_numbers(
    pooling: str, run: Callable[[str, torch.Tensor], torch.Tensor]
) -> None:
    maps = torch.cat([torch.zeros(1, 6, 5, 7), relu_maps(1, 1, 6, 5, 7)])
    pooled = run(pooling, maps)
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(embed_maps([maps], "pool5", pooling)).all()
    assert float(pooled[0].abs().max()) < 1e-5
    np.testing.assert_allclose(pooled[1].numpy(), run(pooling, maps[1:])[0].numpy(), rtol=1e-6)


def test_gem_lies_between_the_mean_and_the_maximum() -> None:
    maps = torch.tensor([[[[0.0, 0.0], [0.0, 2.0]]]])
    assert float(pool("gem", maps)) == pytest.approx((8 / 4) ** (1 / 3), rel=1e-6)


def test_crow_weighs_a_rare_channel_more_and_a_silent_one_not() -> None:
    maps = torch.zeros(1, 3, 2, 2)
    maps[0, 0] = 1.0
    maps[0, 1, 0, 0] = 1.0
    common, rare, silent = pool("crow", maps)[0].tolist()
    # Strengths 2, 1, 1, 1 have the norm sqrt(7); channels are active in 4 and 1 of 4 cells, 1.25 together.
    assert common == pytest.approx((math.sqrt(2) + 3) / 7**0.25 * math.log(1.25), rel=1e-4)
    assert rare == pytest.approx(math.sqrt(2) / 7**0.25 * math.log(5), rel=1e-4)
    assert silent == 0


def test_rmac_regions_of_a_12_by_12_map_are_known_by_eye() -> None:
    one = [(0, 0, 12)]
    four = [(0, 0, 8), (0, 4, 8), (4, 0, 8), (4, 4, 8)]
    nine = [(top, left, 6) for top in (0, 3, 6) for left in (0, 3, 6)]
    assert rmac_regions(12, 12) == one + four + nine


def test_rmac_regions_of_a_7_by_7_map_are_known_by_eye() -> None:
    one = [(0, 0, 7)]
    four = [(0, 0, 4), (0, 3, 4), (3, 0, 4), (3, 3, 4)]
    nine = [(top, left, 3) for top in (0, 2, 4) for left in (0, 2, 4)]
    assert rmac_regions(7, 7) == one + four + nine


def test_rmac_regions_of_a_14_by_7_map_are_known_by_eye() -> None:
    """Of two, three ... squares of side 7 along 14 cells, three overlap by 50 %, which is closest to 40 %."""
    three = [(0, 0, 7), (3, 0, 7), (7, 0, 7)]
    eight = [(top, left, 4) for top in (0, 3, 6, 10) for left in (0, 3)]
    fifteen = [(top, left, 3) for top in (0, 2, 5, 8, 11) for left in (0, 2, 4)]
    assert rmac_regions(14, 7) == three + eight + fifteen


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_rmac_regions_lie_inside_the_map_and_turn_with_it(height: int, width: int) -> None:
    regions = rmac_regions(height, width)
    assert all(side >= 1 and 0 <= top <= height - side and 0 <= left <= width - side for top, left, side in regions)
    assert sorted((left, top, side) for top, left, side in rmac_regions(width, height)) == sorted(regions)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_are_pooled_parts_each_of_unit_length_joined(pooling: str) -> None:
    deep, shallow = relu_maps(2, 3, 8, 6, 6), relu_maps(3, 3, 5, 12, 12) * 50
    found = embed_maps([shallow, deep], "pool4+pool5", pooling).numpy()
    pooled = [np.array([SLOW[pooling](one) for one in maps.numpy().astype(np.float64)]) for maps in (shallow, deep)]
    np.testing.assert_allclose(found, np.hstack([unit(part) for part in pooled]) / math.sqrt(2), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_parts_of_a_sum_weigh_the_same_whatever_their_size_and_strength(pooling: str) -> None:
    strong, weak, vector = relu_maps(4, 2, 4, 9, 9) * 1000, relu_maps(5, 2, 32, 3, 3), torch.rand(2, 1, 64) / 1000
    found = embed_maps([strong, weak, vector], "pool3+pool5+fc7", pooling).numpy()
    first, second = pool(pooling, strong).shape[1], pool(pooling, weak).shape[1]
    for part in np.split(found, [first, first + second], axis=1):
        np.testing.assert_allclose((part**2).sum(1), 1 / 3, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_part_counts_as_much_as_its_factor_says(pooling: str) -> None:
    maps = [relu_maps(seed, 3, channels, 6, 6) for seed, channels in ((7, 3), (8, 5), (9, 8))]
    found = embed_maps(maps, "0.5*pool3+pool4+2*pool5", pooling).numpy()
    pooled = [np.array([SLOW[pooling](one) for one in each.numpy().astype(np.float64)]) for each in maps]
    joined = np.hstack([unit(part) * factor for part, factor in zip(pooled, (0.5, 1, 2), strict=True)])
    np.testing.assert_allclose(found, joined / math.sqrt(0.25 + 1 + 4), atol=2e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("windows", [1, 4])
def test_a_connected_layer_is_the_mean_over_its_windows_as_it_is(pooling: str, windows: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(6).normal(size=(3, windows, 50)).astype(np.float32)).relu()
    expected = unit(vectors.numpy().astype(np.float64).sum(axis=1))
    np.testing.assert_allclose(embed_maps([vectors], "fc7", pooling).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("size", [32, 64, 100])
@pytest.mark.parametrize("layer", [*POOLS, "pool4+pool5", "pool5+pool1"])
def test_dim_is_what_comes_out_of_the_network(layer: str, size: int, pooling: str) -> None:
    assert_dim_is_true(EmbeddingSpec("vgg11", layer, pooling, (size,), "squash", ""))


@pytest.mark.parametrize(
    ("layer", "pooling"),
    [*((layer, "flat") for layer in CONNECTED_LAYERS), ("pool5+fc7", "spoc"), ("fc6+pool4", "flat")],
)
def test_dim_is_what_comes_out_of_the_connected_layers(layer: str, pooling: str) -> None:
    for size in (defaults.EMBEDDING.trained_size, 256):
        assert_dim_is_true(EmbeddingSpec("vgg11", layer, pooling, (size,), "squash", ""))


def assert_dim_is_true(spec: EmbeddingSpec) -> None:
    engine = TorchEngine(spec, zero_kernels(spec.model, spec.layer), EngineOptions("torch", "cpu", "fp32"))
    squares = np.zeros((2, spec.size, spec.size, 3), np.uint8)
    assert engine.embed(squares).shape == (2, spec.dim)


@pytest.mark.parametrize(
    ("layer", "pooling", "dim"),
    [
        ("pool5", "spoc", 512),
        ("pool4+pool5", "spoc", 1024),
        ("pool5", "flat", 25_088),
        ("fc7", "flat", 4096),
        ("pool5+fc6", "rmac", 4608),
        ("pool1", "gem", 64),
    ],
)
def test_dims_of_vgg16_at_224_are_known(layer: str, pooling: str, dim: int) -> None:
    assert EmbeddingSpec("vgg16", layer, pooling, (224,), "squash", "").dim == dim
