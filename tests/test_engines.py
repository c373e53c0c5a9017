import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggsearch import defaults
from vggsearch.errors import InstallationError, OptionError, WeightsError
from vggsearch.evaluation.networks import random_kernels
from vggsearch.model import loading
from vggsearch.model.engine import Engine, EngineOptions, rate
from vggsearch.model.layers import needed_modules
from vggsearch.model.loading import choose_engine, load_engine
from vggsearch.model.openvino_engine.engine import OpenVinoEngine
from vggsearch.model.openvino_engine.graph import FULL_RANGE, convolution_graph
from vggsearch.model.ranges import ACTIVATION_RANGES, activation_ranges
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.weights import PACKAGED_FILES, Kernel
from vggsearch.photos.decode import decode
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.photos.resize import square


def embedded(
    squares: NDArray[np.uint8], engine: str, precision: str, layer: str = "pool4+pool5"
) -> NDArray[np.float32]:
    spec, weights = EmbeddingOptions(layer=layer, size=squares.shape[1]).resolve()
    return load_engine(spec, weights, EngineOptions(engine, "cpu", precision)).embed(squares)


def squares_of(folder: Path, size: int = 192) -> NDArray[np.uint8]:
    pictures = []
    for path in sorted(folder.rglob("*.jpg")):
        with path.open("rb") as file:
            pictures.append(square(decode(file, at_least=size).image, size, "squash"))
    return np.stack(pictures)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("size", [160, 192, 224])
def test_int8_gives_nearly_the_embeddings_of_fp32_on_real_photos(sample_photos: Path, size: int) -> None:
    squares = squares_of(sample_photos, size)
    cosines = (embedded(squares, "openvino", "int8") * embedded(squares, "openvino", "fp32")).sum(axis=1)
    assert cosines.mean() >= 0.998
    assert cosines.min() >= 0.99
    assert cosines.min() < 0.9999999, "int8 was asked for, and fp32 ran"


@pytest.mark.network
@pytest.mark.parametrize(
    "layer",
    [
        *(pytest.param(layer, marks=pytest.mark.slow) for layer in ("pool1", "pool3", "pool5", "pool4+pool5")),
        "0.5*pool3+pool4+2*pool5",
    ],
)
def test_openvino_gives_the_embeddings_of_torch(sample_photos: Path, layer: str) -> None:
    squares = squares_of(sample_photos)[:4]
    reference = embedded(squares, "torch", "fp32", layer)
    np.testing.assert_allclose(embedded(squares, "openvino", "fp32", layer), reference, atol=2e-6)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        pytest.param("vgg11", "fc7", marks=pytest.mark.slow),
        pytest.param("vgg13_bn", "fc6", marks=pytest.mark.slow),
        ("vgg19", "pool2+pool5"),
        ("vgg11_bn", "pool5+fc7"),
        ("vgg16_half", "pool4+pool5"),
    ],
)
def test_both_engines_agree_on_other_networks_and_on_the_classifier(model: str, layer: str) -> None:
    pooling = "flat" if layer.startswith("fc") else "gem"
    spec = EmbeddingSpec(model, layer, pooling, (224,), "squash", "0" * 64)
    kernels = random_kernels(model, layer)
    squares = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    found = OpenVinoEngine(spec, kernels, EngineOptions("openvino", "cpu", "fp32")).embed(squares)
    reference = TorchEngine(spec, kernels, EngineOptions("torch", "cpu", "fp32")).embed(squares)
    assert found.shape == (2, spec.dim)
    np.testing.assert_allclose(found, reference, atol=1e-5 * float(reference.max()))


@pytest.fixture(scope="module")
def classifier() -> dict[str, Kernel]:
    return random_kernels("vgg11", "pool5+fc7")


def at_fp32(
    layer: str, size: int, kernels: dict[str, Kernel], engine: type[TorchEngine | OpenVinoEngine]
) -> Engine:
    pooling = "flat" if layer.startswith("fc") else "spoc"
    spec = EmbeddingSpec("vgg11", layer, pooling, (size,), "squash", "0" * 64)
    return engine(spec, kernels, EngineOptions(engine.name, "cpu", "fp32"))


def pool5(size: int, kernels: dict[str, Kernel], pixels: NDArray[np.uint8]) -> Tensor:
    engine = at_fp32("pool5", size, kernels, TorchEngine)
    assert isinstance(engine, TorchEngine)
    (maps,) = engine.network(engine.normalised(pixels))
    found: Tensor = maps
    return found


def connected(name: str, kernels: dict[str, Kernel]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(kernels[name].weight), torch.from_numpy(kernels[name].bias)


def noise(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@torch.inference_mode()
@pytest.mark.parametrize("engine", [TorchEngine, OpenVinoEngine])
@pytest.mark.parametrize(
    ("layer", "size", "count"),
    [
        pytest.param("fc7", 224, 1, marks=pytest.mark.slow),
        ("fc6", 256, 4),
        pytest.param("fc7", 290, 9, marks=pytest.mark.slow),
    ],
)
def test_connected_layers_are_the_mean_over_sliding_windows(
    layer: str, size: int, count: int, engine: type[TorchEngine | OpenVinoEngine], classifier: dict[str, Kernel]
) -> None:
    pixels = noise(2, size)
    maps = pool5(size, classifier, pixels)
    windows = []
    for top in range(maps.shape[2] - 6):
        for left in range(maps.shape[3] - 6):
            x = maps[:, :, top : top + 7, left : left + 7].flatten(1)
            for name in ("fc6", "fc7")[: 1 + (layer == "fc7")]:
                weight, bias = connected(name, classifier)
                x = (x @ weight.T + bias).relu()
            windows.append(x)
    assert len(windows) == count
    assert count == 1 or float((windows[0] - windows[-1]).abs().mean()) > 0.01, "the same window again and again"
    expected = torch.nn.functional.normalize(torch.stack(windows).mean(0)).numpy()
    found = at_fp32(layer, size, classifier, engine).embed(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.max()))


@pytest.mark.slow
@torch.inference_mode()
def test_connected_layers_are_the_convolutions_of_the_vgg_paper(classifier: dict[str, Kernel]) -> None:
    """Section 3.2: fc6 as a 7 x 7 convolution, fc7 as a 1 x 1 one, and the mean over the map that they give."""
    pixels = noise(1, 288)
    x = pool5(288, classifier, pixels)
    for name, side in (("fc6", 7), ("fc7", 1)):
        weight, bias = connected(name, classifier)
        x = torch.nn.functional.conv2d(x, weight.view(4096, -1, side, side), bias).relu()
    assert x.shape == (1, 4096, 3, 3)
    expected = torch.nn.functional.normalize(x.mean((2, 3))).numpy()
    found = at_fp32("fc7", 288, classifier, TorchEngine).embed(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.max()))


@pytest.mark.slow
def test_both_engines_agree_on_a_classifier_at_several_sizes_and_mirrored(classifier: dict[str, Kernel]) -> None:
    spec = EmbeddingSpec("vgg11", "pool5+0.5*fc7", "gem", (224, 256), "squash", "0" * 64, mirror=True)
    found = OpenVinoEngine(spec, classifier, EngineOptions("openvino", "cpu", "fp32")).embed(noise(1, 256))
    reference = TorchEngine(spec, classifier, EngineOptions("torch", "cpu", "fp32")).embed(noise(1, 256))
    assert found.shape == (1, 512 + 4096)
    np.testing.assert_allclose(found, reference, atol=1e-5 * float(reference.max()))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("layer", ["pool1", "pool4+pool5"])
@pytest.mark.parametrize(
    ("size", "sides"), [("32", (2, 2)), ("96", (6, 3)), ("192", (12, 6)), ("100+224", (14, 7))]
)
def test_openvino_gives_the_cells_of_torch_whatever_the_index_is_cut_at(
    sample_photos: Path, layer: str, size: str, sides: tuple[int, int]
) -> None:
    spec, weights = EmbeddingOptions(layer=layer, size=size, mirror=True).resolve()
    squares = squares_of(sample_photos, spec.size)[:4]
    engines = [load_engine(spec, weights, EngineOptions(name, "cpu", "fp32")) for name in ("openvino", "torch")]
    for engine in engines:  # one network for both says what the other says
        np.testing.assert_allclose(engine.describe(squares).embeddings, engine.embed(squares), atol=1e-5)
    found, reference = (engine.describe(squares).levels for engine in engines)
    for ours, theirs, side in zip(found, reference, sides, strict=True):
        assert ours.shape == (4, side, side, 64)
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=-1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.network
def test_int8_gives_nearly_the_cells_of_fp32(sample_photos: Path) -> None:
    squares = squares_of(sample_photos)[:16]
    spec, weights = EmbeddingOptions().resolve()
    int8, fp32 = (
        load_engine(spec, weights, EngineOptions("openvino", "cpu", precision)).describe(squares).levels
        for precision in ("int8", "fp32")
    )
    for ours, theirs in zip(int8, fp32, strict=True):
        assert np.median((ours * theirs).sum(axis=-1)) > 0.97


@pytest.mark.parametrize("model", ["vgg11", "vgg19_bn"])
def test_cells_of_other_weights_keep_all_channels(model: str) -> None:
    spec = EmbeddingSpec(model, "pool5", "spoc", (64,), "squash", "0" * 64)
    kernels = random_kernels(model, "pool5")
    squares = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = OpenVinoEngine(spec, kernels, EngineOptions("openvino", "cpu", "fp32")).describe(squares).levels[0]
    reference = TorchEngine(spec, kernels, EngineOptions("torch", "cpu", "fp32")).describe(squares).levels[0]
    assert found.shape == (2, 4, 4, 512)
    np.testing.assert_allclose(found, reference, atol=1e-4)


def test_cells_are_square_roots_of_the_map_before_pool5() -> None:
    spec = EmbeddingSpec("vgg11", "pool5", "spoc", (64,), "squash", "0" * 64)
    engine = TorchEngine(spec, random_kernels("vgg11", "pool5"), EngineOptions("torch", "cpu", "fp32"))
    squares = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        x = engine.normalised(squares)
        for name, step in engine.network.steps.items():
            if name == "pool5":
                break
            x = step(x)
    cell = np.sqrt(x[0, :, 2, 3].numpy())
    np.testing.assert_allclose(engine.describe(squares).levels[0][0, 2, 3], cell / np.linalg.norm(cell), atol=1e-6)


def test_cells_need_weights_up_to_pool5(tmp_path: Path) -> None:
    kernels = random_kernels("vgg11", "pool1")
    file = tmp_path / "short.pth"
    torch.save(
        {"features.0.weight": torch.from_numpy(kernels["conv1_1"].weight), "features.0.bias": torch.zeros(64)}, file
    )
    spec, weights = EmbeddingOptions(model="vgg11", layer="pool1", size=64, weights=file).resolve()
    squares = np.zeros((1, 64, 64, 3), np.uint8)
    for name in ("openvino", "torch"):
        engine = load_engine(spec, weights, EngineOptions(name, "cpu", "fp32"))
        assert engine.embed(squares).shape == (1, 64)
        with pytest.raises(WeightsError, match=r"no tensor features\.3\.weight, which vgg11 needs for conv2_1"):
            engine.describe(squares)


@pytest.mark.slow
@pytest.mark.network
def test_a_batch_that_was_given_out_is_not_overwritten_by_the_next(sample_photos: Path) -> None:
    squares = squares_of(sample_photos)
    spec, weights = EmbeddingOptions().resolve()
    engine = load_engine(spec, weights, EngineOptions("openvino"))
    first = engine.embed(squares[:4])
    kept = first.copy()
    engine.embed(squares[4:8])
    np.testing.assert_array_equal(first, kept)


def test_without_a_gpu_openvino_runs_and_with_one_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cuda_gpus", lambda: ())
    assert choose_engine(EngineOptions()) == "openvino"
    monkeypatch.setattr(loading, "cuda_gpus", lambda: ("a GPU",))
    assert choose_engine(EngineOptions()) == "torch"
    assert choose_engine(EngineOptions(device="cpu")) == "openvino"
    assert choose_engine(EngineOptions(engine="openvino")) == "openvino"


FEW = defaults.EXTRACT.few_per_cpu * default_workers()


@pytest.mark.parametrize(
    ("options", "photos", "expected"),
    [
        (EngineOptions(), 1, "openvino"),
        (EngineOptions(), FEW, "openvino"),
        (EngineOptions(batch_size=1), 1, "openvino"),
        (EngineOptions(), FEW + 1, "torch"),
        (EngineOptions(), None, "torch"),
        (EngineOptions(device="cuda"), 1, "torch"),
        (EngineOptions("torch"), 1, "torch"),
        (EngineOptions(precision="fp16"), 1, "torch"),  # which OpenVINO does not support on a CPU
        (EngineOptions(decode="gpu"), 1, "torch"),
    ],
)
def test_beside_a_gpu_the_cpu_embeds_a_few_photos_unless_options_say_otherwise(
    options: EngineOptions, photos: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cuda_gpus", lambda: ("a GPU",))
    assert choose_engine(options, photos) == expected


def test_for_a_few_photos_a_gpu_is_used_if_openvino_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    monkeypatch.setattr(loading, "cuda_gpus", lambda: ("a GPU",))
    assert choose_engine(EngineOptions(), 1) == "torch"


INDEX_AND_QUERY = """
import sys
from pathlib import Path
from vggsearch import EmbeddingOptions, ImageIndex
from vggsearch.model import loading
loading.cuda_gpus = lambda: ("a GPU",)
photos = Path(sys.argv[1])
with ImageIndex.create(photos.parent / "made", EmbeddingOptions(layer="pool1", size=32)) as index:
    print(index.update(photos).indexed, index.query(photos / "winter" / "5.jpg", rerank=False).matches[0].path)
    print([name.partition(" ")[0] for name in index.info().made_by], "torch" in sys.modules)
"""


def test_beside_a_gpu_a_small_update_and_a_query_do_not_import_torch(photos: Path) -> None:
    command = [sys.executable, "-c", INDEX_AND_QUERY, str(photos)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["6 winter/5.jpg", "['openvino'] False"]


def test_without_openvino_torch_runs_and_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "cuda_gpus", lambda: ())
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    assert load_engine(*EmbeddingOptions(layer="pool1", size=32).resolve()).name == "torch"
    assert "less than half the speed" in caplog.text
    with pytest.raises(InstallationError, match="pip install openvino"):
        choose_engine(EngineOptions(engine="openvino"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions("torch", "cpu", "int8"), "torch does not support int8 here"),
        (EngineOptions("torch", "cpu", "fp8"), "fp8 needs a CUDA GPU"),
        (EngineOptions("openvino", "cpu", "fp16"), "does not support fp16 on a CPU"),
        (EngineOptions("openvino", "cpu", "fp8"), "does not support fp8 on a CPU"),
        (EngineOptions("openvino", "cuda"), "not on cuda"),
        (EngineOptions("torch", "cpu", decode="gpu"), r"Only a CUDA GPU decodes JPEG; .* cpu \(\d+ threads\)"),
    ],
)
def test_what_does_not_go_together_is_refused(options: EngineOptions, message: str) -> None:
    spec, weights = EmbeddingOptions(layer="pool1", size=32).resolve()
    with pytest.raises(OptionError, match=message):
        load_engine(spec, weights, options)


def test_int8_is_refused_for_weights_without_ranges() -> None:
    spec = EmbeddingSpec("vgg11", "pool1", "spoc", (32,), "squash", "0" * 64)
    kernels = random_kernels("vgg11", "pool1")
    with pytest.raises(OptionError, match="packaged weights only"):
        OpenVinoEngine(spec, kernels, EngineOptions("openvino", "cpu", "int8"))
    assert OpenVinoEngine(spec, kernels, EngineOptions("openvino")).precision in ("bf16", "fp32")


def test_the_ranges_are_those_of_the_packaged_weights() -> None:
    specs = [EmbeddingOptions(model=model).resolve()[0] for model in PACKAGED_FILES]
    assert set(ACTIVATION_RANGES) == {spec.weights_sha256 for spec in specs}
    for spec in specs:
        convolutions = [module.name for module in needed_modules(spec.model, "pool5") if module.kind == "conv"]
        assert list(ACTIVATION_RANGES[spec.weights_sha256]) == convolutions


def test_fp8_is_refused_for_a_decomposed_network() -> None:
    spec, _ = EmbeddingOptions(model=defaults.EMBEDDING.fast_model).resolve()
    with pytest.raises(OptionError, match="fp8 does not support vgg16_half"):
        activation_ranges(spec, "fp8")


@pytest.mark.network
def test_int8_serves_the_decomposed_network_as_it_does_vgg16(sample_photos: Path) -> None:
    squares = squares_of(sample_photos)[:6]
    spec, weights = EmbeddingOptions(model=defaults.EMBEDDING.fast_model).resolve()
    exact, fast = (
        load_engine(spec, weights, EngineOptions(engine, "cpu", precision)).embed(squares)
        for engine, precision in (("torch", "fp32"), ("openvino", "int8"))
    )
    assert (exact * fast).sum(axis=1).min() >= 0.995


@pytest.mark.network
def test_a_query_on_a_cpu_imports_no_torch(sample_photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from vggsearch import ImageIndex\n"
        "with ImageIndex.for_photos(sys.argv[1], sys.argv[2]) as photos:\n"
        "    photos.update(sys.argv[1]); photos.query(sys.argv[1] + '/originals/coffee.jpg')\n"
        "print(photos.info().made_by, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(sample_photos), str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "('openvino int8',) False\n"


@pytest.mark.slow
@pytest.mark.network
def test_an_index_made_by_one_engine_answers_queries_of_another(sample_photos: Path, tmp_path: Path) -> None:
    from vggsearch import ImageIndex

    with ImageIndex.create(tmp_path / "x", engine_options=EngineOptions("openvino", "cpu", "int8")) as made:
        made.update(sample_photos)
    with ImageIndex.open(tmp_path / "x", engine_options=EngineOptions("torch", "cpu", "fp32")) as asked:
        best = asked.query(sample_photos / "originals" / "coffee.jpg", count=1).matches[0]
    assert best.path == "originals/coffee.jpg"
    assert best.similarity > 0.995


def test_a_rate_counts_all_runs_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    ended: list[float] = []

    def run() -> None:
        nonlocal now
        now += 0.01 if ended else 0.5
        ended.append(now)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    found = rate(run, 0.2)
    assert found == pytest.approx((len(ended) - 1) / (ended[-1] - ended[0]))
    assert found == pytest.approx(1 / 0.01)
    assert ended[-1] - ended[0] >= 0.2


@pytest.mark.parametrize("is_int8", [False, True])
def test_the_work_of_the_measuring_graph_is_that_of_its_convolutions(is_int8: bool) -> None:
    graph, work = convolution_graph(is_int8=is_int8)
    convolutions = [node for node in graph.get_ops() if node.get_type_name() == "Convolution"]
    kernel = [node.input(1).get_shape() for node in convolutions]
    outputs = [node.output(0).get_shape() for node in convolutions]
    assert len(convolutions) > 1
    assert work == sum(np.prod(out) * np.prod(shape[1:]) for out, shape in zip(outputs, kernel, strict=True))
    quantisers = [node for node in graph.get_ops() if node.get_type_name() == "FakeQuantize"]
    assert len(quantisers) == (len(convolutions) + 1 if is_int8 else 0)


@pytest.mark.parametrize(("engine", "precision"), [("openvino", "int8"), ("openvino", "fp32"), ("torch", "fp32")])
def test_an_engine_measures_what_the_device_can_do(engine: str, precision: str) -> None:
    spec, weights = EmbeddingOptions(layer="pool1", size=32).resolve()
    found = load_engine(spec, weights, EngineOptions(engine, "cpu", precision)).multiply_adds_per_s(0.1)
    assert 1e9 < found < 1e14  # one slow core, a thousand fast ones


def test_the_largest_weight_is_one_whose_products_this_processor_adds_right() -> None:
    from vggsearch.model.openvino_engine import processor

    found = processor.largest_weight()
    assert found in (processor.HALF_RANGE, FULL_RANGE)
    assert processor._is_exact(found)
    assert processor._is_exact(processor.HALF_RANGE)
    assert found == FULL_RANGE or not processor._is_exact(FULL_RANGE)
