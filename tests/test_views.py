"""Several sizes and the mirror image, against one engine a view, with squares that Pillow made."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops
from PIL import Image

from tests.fakes import squares
from vggsearch.errors import OptionError
from vggsearch.evaluation.networks import random_kernels
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.openvino_engine.engine import OpenVinoEngine
from vggsearch.model.openvino_engine.operations import OpenVinoOperations, floats
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec, parse_sizes
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.torch_engine.operations import TorchOperations
from vggsearch.model.views import shrinking

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

SPEC = EmbeddingSpec("vgg11", "0.5*pool2+pool3", "spoc", (96,), "squash", "0" * 64)
KERNELS = random_kernels("vgg11", "pool3")
ENGINES: dict[str, Callable[[EmbeddingSpec], Engine]] = {
    "torch": lambda spec: TorchEngine(spec, KERNELS, EngineOptions("torch", "cpu", "fp32")),
    "openvino": lambda spec: OpenVinoEngine(spec, KERNELS, EngineOptions("openvino", "cpu", "fp32")),
}
# Pillow rounds the pixels of a smaller square, the network does not: half a level of 255, which averages out.
ROUNDED = 2e-4


def pillow_resized(pixels: Pixels, size: int) -> Pixels:
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in pixels]
    )


def mirrored(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, :, ::-1])


def mean_direction(embeddings: list[Floats]) -> Floats:
    mean = np.mean(np.stack(embeddings).astype(np.float64), axis=0)
    unit: Floats = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
    return unit


def noise(size: int) -> Pixels:
    return np.random.default_rng(size).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "smaller"), [(224, 160), (224, 192), (225, 224), (1024, 32), (97, 33), (64, 32), (100, 99)]
)
def test_shrinking_is_what_pillow_does_without_rounding(size: int, smaller: int) -> None:
    column = np.random.default_rng(size).uniform(0, 255, (size, 1)).astype(np.float32)
    resized = Image.fromarray(column).resize((1, smaller), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(shrinking(size, smaller) @ column, np.asarray(resized), atol=0.01)


def shrunk_and_mirrored_by_torch(pictures: Floats, matrix: Floats) -> list[Floats]:
    on, given = TorchOperations(), torch.from_numpy(pictures)
    return [on.shrink(given, torch.from_numpy(matrix)).numpy(), on.mirror(given).numpy()]


def shrunk_and_mirrored_by_openvino(pictures: Floats, matrix: Floats) -> list[Floats]:
    on, given = OpenVinoOperations(), ops.parameter([-1, *pictures.shape[1:]], np.float32)
    graph = openvino.Model([on.shrink(given, floats(matrix)), on.mirror(given)], [given], "views")
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [output.copy() for output in compiled(pictures).values()]


@pytest.mark.parametrize("run", [shrunk_and_mirrored_by_torch, shrunk_and_mirrored_by_openvino])
def test_a_picture_is_shrunk_as_by_pillow_and_mirrored(
    run: Callable[[Floats, Floats], list[Floats]],
) -> None:
    pixels = squares(2, 120)
    pixels[1, 40:80, 40:80] = 255 * (np.indices((40, 40)).sum(axis=0) % 2)[:, :, None]  # rings beyond 0..255
    shrunk, flipped = run(pixels.transpose(0, 3, 1, 2).astype(np.float32), shrinking(120, 75))
    expected = pillow_resized(pixels, 75).transpose(0, 3, 1, 2)
    assert shrunk.min() >= 0
    assert shrunk.max() <= 255
    np.testing.assert_allclose(shrunk[0], expected[0], atol=1.1)  # Pillow rounds twice: rows, then columns
    assert np.abs(shrunk[1] - expected[1]).mean() < 0.5
    np.testing.assert_array_equal(flipped, mirrored(pixels).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("sizes", "mirror"), [((64, 96), False), ((96,), True), ((48, 64, 96), True)])
def test_an_embedding_is_the_mean_over_its_views(name: str, sizes: tuple[int, ...], mirror: bool) -> None:
    pixels = squares(3, 96)
    alone = []
    for size in sizes:
        engine = ENGINES[name](replace(SPEC, sizes=(size,)))
        seen = pixels if size == 96 else pillow_resized(pixels, size)
        alone += [engine.embed(view) for view in ([seen, mirrored(seen)] if mirror else [seen])]
    found = ENGINES[name](replace(SPEC, sizes=sizes, mirror=mirror)).embed(pixels)
    np.testing.assert_allclose(found, mean_direction(alone), atol=ROUNDED if len(sizes) > 1 else 1e-6)
    assert np.abs(found - alone[-1]).max() > 5 * ROUNDED, "the largest view alone would do as well"


@pytest.mark.parametrize(("sizes", "mirror"), [((64, 96), False), ((96,), True), ((48, 64, 96), True)])
def test_both_engines_agree_on_views(sizes: tuple[int, ...], mirror: bool) -> None:
    spec = replace(SPEC, sizes=sizes, mirror=mirror)
    torchs, openvinos = (ENGINES[name](spec).embed(noise(96)) for name in ("torch", "openvino"))
    np.testing.assert_allclose(openvinos, torchs, atol=1e-5 * float(torchs.max()))


@pytest.mark.parametrize("name", ENGINES)
def test_with_its_mirror_image_a_photo_and_its_mirror_image_are_the_same(name: str) -> None:
    spec = replace(SPEC, sizes=(64, 96))
    both, one = ENGINES[name](replace(spec, mirror=True)), ENGINES[name](spec)
    pixels = noise(96)
    np.testing.assert_allclose(both.embed(mirrored(pixels)), both.embed(pixels), atol=2e-6)
    assert np.abs(one.embed(mirrored(pixels)) - one.embed(pixels)).max() > 1e-3


@pytest.mark.network
def test_all_views_run_in_int8_and_give_nearly_the_embeddings_of_fp32() -> None:
    spec, weights = EmbeddingOptions(size="160+192", mirror=True).resolve()
    short, exact = (
        load_engine(spec, weights, EngineOptions("openvino", "cpu", precision)) for precision in ("int8", "fp32")
    )
    assert isinstance(short, OpenVinoEngine)
    steps = [step.get_rt_info() for step in short._network().get_runtime_model().get_ops()]
    ran_as = [(step["layerType"].astype(str), step["runtimePrecision"].astype(str)) for step in steps]
    of_convolutions = [precision for kind, precision in ran_as if kind == "Convolution"]
    assert len(of_convolutions) == 4 * 13
    assert set(of_convolutions) <= {"u8", "i8"}, "eight bits; a processor with AMX runs some of them signed"
    assert [kind for kind, _ in ran_as].count("Eltwise") < 13, "biases are added outside of the convolutions"
    pixels = squares(4, 192)
    assert (short.embed(pixels) * exact.embed(pixels)).sum(axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("size", "sizes"), [(192, (192,)), ("192", (192,)), ("224+160", (160, 224)), (" 64 + 32 +48", (32, 48, 64))]
)
def test_sizes_are_named_in_any_order(size: int | str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(size) == sizes
    assert EmbeddingOptions(size=size).resolve()[0].sizes == sizes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EmbeddingOptions(size="big"), "Invalid size 'big'. Give a number of pixels, such as 192, or a sum"),
        (EmbeddingOptions(size="160+"), r"Invalid size '160\+'"),
        (EmbeddingOptions(size="192.5"), "Invalid size '192.5'"),
        (EmbeddingOptions(size=""), "Invalid size ''"),
        (EmbeddingOptions(size="160+160"), r"must be unique, smallest first, not '160\+160'"),
        (EmbeddingOptions(size="16+160"), "32 to 1024 pixels, not 16"),
        (EmbeddingOptions(size="192+224", layer="fc7"), "at least 224 x 224 pixels, not 192"),
        (
            EmbeddingOptions(size="160+224", pooling="flat"),
            r"160\+224 differ in length.*Choose another pooling",
        ),
    ],
)
def test_what_is_no_size_is_refused_with_the_way_out(options: EmbeddingOptions, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options.resolve()


@pytest.mark.parametrize("sizes", [(), (224, 160), (160, 160)])
def test_a_spec_holds_its_sizes_in_one_order(sizes: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="smallest first"):
        replace(SPEC, sizes=sizes)


def test_a_spec_with_views_reads_as_messages_name_it_and_decodes_the_largest() -> None:
    spec = replace(SPEC, sizes=(64, 96), mirror=True)
    assert str(spec) == "vgg11 0.5*pool2+pool3 spoc, 64+96 squash mirror, weights 00000000 (384 dimensions)"
    assert (spec.size, spec.dim) == (96, SPEC.dim)
