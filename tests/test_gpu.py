"""On a real GPU: what test_cuda.py, test_jpeg.py and test_gpu_pool.py can only pretend.

`make gpu` runs this where only torch, torchvision, safetensors, numpy, Pillow, pyarrow, click and pytest are there.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import conv2d

from tests.fakes import picture, save_photo, squares
from tests.helpers.jpegs import (
    BASELINE,
    FOR_IT,
    LARGE,
    LARGEST,
    MAKE,
    NOT_FOR_IT,
    SIZE,
    SMALL,
    TALL,
    TOLERANCE,
    assert_near,
    decoded,
    encoded,
    grainy,
    on_cpu,
    photo,
    reduced,
    squared,
    turned,
)
from vggsearch.defaults import RESIZES
from vggsearch.errors import OptionError
from vggsearch.evaluation.networks import random_kernels
from vggsearch.indexing.extract import extract
from vggsearch.model.engine import Engine, EngineOptions, no_embeddings
from vggsearch.model.gpu_pool import GpuPool
from vggsearch.model.loading import load_engine, load_gpu
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.torch_engine.cuda import CudaEngine, CudaSlots
from vggsearch.model.torch_engine.engine import Embedder, TorchEngine
from vggsearch.model.torch_engine.fused import FusedEmbedder, convolve
from vggsearch.model.torch_engine.jpeg import SquareDecoder
from vggsearch.model.torch_engine.squares import TritonSquares, square_maker
from vggsearch.model.weights import load_weights
from vggsearch.photos.jpeg_header import jpeg_header
from vggsearch.photos.resize import square
from vggsearch.photos.upright import UPRIGHT
from vggsearch.photos.walk import PhotoFile, walk
from vggsearch.store.records import Embedded
from vggsearch.system.gpus import cuda_gpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda_gpus(), reason="needs a CUDA GPU")]

Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]

ON_CPU = EngineOptions("torch", "cpu", "fp32")
CARD = torch.device("cuda", 0)
MB = 1 << 20
REPEATED_CHROMA = 1.5  # levels more, in the mean, where the decoder does not smooth 4:2:0 as libjpeg does


def spec_of(layer: str, size: int = 32, pooling: str = "spoc") -> EmbeddingSpec:
    return EmbeddingSpec("vgg11", layer, pooling, (size,), "squash", "0" * 64)


SHALLOW = spec_of("pool1")  # one convolution, for the tests that run it hundreds of times
MANY = squares(40, 32)


@cache
def expected_of_many() -> Rows:
    return TorchEngine(SHALLOW, random_kernels("vgg11", "pool1"), ON_CPU).embed(MANY)


def cut(pictures: Pixels, counts: Iterable[int]) -> list[Pixels]:
    """Cut into batches of these sizes."""
    return np.split(pictures, np.cumsum(list(counts)))[:-1]


def assert_expected(found: Sequence[Rows], counts: Sequence[int], expected: Rows | None = None) -> None:
    """The embeddings of each batch, in order; those of MANY unless others are expected."""
    assert [len(rows) for rows in found] == list(counts)
    rows = np.vstack([rows for rows in found if len(rows)])
    expected = expected_of_many() if expected is None else expected
    np.testing.assert_allclose(rows, expected[: len(rows)], rtol=0, atol=1e-5)


@cache
def gpu(resize: str = "squash") -> SquareDecoder:
    return SquareDecoder(CARD, SIZE, resize)


def gpu_engine(spec: EmbeddingSpec, precision: str, batch_size: int) -> CudaEngine:
    return CudaEngine(
        spec,
        random_kernels(spec.model, spec.layer),
        EngineOptions("torch", "cuda", precision, batch_size=batch_size),
        CARD,
    )


def cosines(a: Rows, b: Rows) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: NDArray[np.float64] = (a.astype(np.float64) * b).sum(axis=1) / lengths
    return found


@pytest.fixture(autouse=True)
def on_gpu() -> Iterator[None]:
    """Give back what earlier tests held on the GPU, and let all of it be used again afterwards."""
    gc.collect()
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, CARD)
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def uncapturable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every capture fail the way real ones do: by waiting for the GPU inside."""
    real = Embedder.__call__

    def waiting(self: Embedder, pixels: torch.Tensor) -> torch.Tensor:
        embeddings = real(self, pixels)
        embeddings.sum().item()
        return embeddings

    with monkeypatch.context() as patched:
        patched.setattr(Embedder, "__call__", waiting)
        yield


@pytest.mark.parametrize("size", [32, 100, 192])
@pytest.mark.parametrize("pooling", ["spoc", "gem", "mac", "rmac", "crow", "flat"])
def test_in_float32_the_gpu_gives_the_rows_of_the_cpu(
    pooling: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of("pool4+pool5", size, pooling)
    pictures = squares(7, size)
    expected = TorchEngine(spec, random_kernels(spec.model, spec.layer), ON_CPU).embed(pictures)
    found = gpu_engine(spec, "fp32", 4).embed(pictures)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert not caplog.records, "a graph was captured"


def test_float32_on_the_gpu_is_not_rounded_to_tf32() -> None:
    spec = spec_of("pool5", 96, "flat")  # no mean over the map in which roundings would cancel
    pictures = squares(4, 96)
    expected = TorchEngine(spec, random_kernels(spec.model, spec.layer), ON_CPU).embed(pictures)
    errors = np.abs(gpu_engine(spec, "fp32", 4).embed(pictures) - expected)
    assert errors.max() < 1e-4 * expected.max()


@pytest.mark.network
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_in_half_precision_the_gpu_gives_nearly_the_rows_of_the_cpu(precision: str) -> None:
    spec, weights = EmbeddingOptions().resolve()
    kernels = load_weights(weights, spec.model, spec.layer)
    pictures = squares(9, spec.size)
    expected = TorchEngine(spec, kernels, ON_CPU).embed(pictures)
    found = CudaEngine(spec, kernels, EngineOptions("torch", "cuda", precision), CARD).embed(pictures)
    assert found.dtype == np.float32
    assert cosines(found, expected).min() > 0.999
    assert cosines(found, np.roll(expected, 1, axis=0)).max() < 0.999, "the pictures must differ for this to tell"
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


# The modules round three times to 8 bits where a fused call rounds once, so they are the farther ones from float32.
LEAST_COSINE = {"fp16": 0.99999, "bf16": 0.9999}


@pytest.mark.network
def test_fused_calls_are_at_least_as_exact_as_the_modules() -> None:
    spec, weights = EmbeddingOptions().resolve()
    kernels, pictures = load_weights(weights, spec.model, spec.layer), squares(32, spec.size)

    def embedded(engine: type[TorchEngine], precision: str) -> Rows:
        return engine(spec, kernels, EngineOptions("torch", "cuda", precision), CARD).embed(pictures)

    exact = embedded(CudaEngine, "fp32")  # without the rounding to TF32 that is torch's default
    for precision in ("fp16", "bf16"):
        modules, fused = (cosines(embedded(engine, precision), exact) for engine in (TorchEngine, CudaEngine))
        assert (1 - fused).mean() <= 1.05 * (1 - modules).mean()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    "spec",
    [
        spec_of("pool4+pool5", 192),
        spec_of("pool4+pool5", 173),
        spec_of("pool1+pool3", 100, "rmac"),
        replace(spec_of("pool4+pool5", 96), sizes=(64, 96), mirror=True),
        spec_of("fc6", 224, "flat"),
    ],
    ids=str,
)
def test_fused_calls_give_the_rows_of_the_modules(
    spec: EmbeddingSpec, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = squares(9, spec.size)
    modules = TorchEngine(
        spec, random_kernels(spec.model, spec.layer), EngineOptions("torch", "cuda", precision), CARD
    )
    engine = gpu_engine(spec, precision, 4)
    assert isinstance(engine.embedder, FusedEmbedder)
    found, expected = engine.embed(pictures), modules.embed(pictures)
    assert cosines(found, expected).min() >= LEAST_COSINE[precision]
    assert cosines(found, np.roll(expected, 1, axis=0)).max() < 0.9999, "the pictures must differ for this to tell"
    assert not caplog.records, "Triton works, and a graph was captured"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_fused_calls_give_the_local_features_of_the_modules(precision: str) -> None:
    spec, kernels = spec_of("pool4+pool5", 96), random_kernels("vgg11", "pool5")
    options, pictures = EngineOptions("torch", "cuda", precision), squares(5, 96)
    found = CudaEngine(spec, kernels, options, CARD).describe(pictures)
    expected = TorchEngine(spec, kernels, options, CARD).describe(pictures)
    assert cosines(found.embeddings, expected.embeddings).min() >= LEAST_COSINE[precision]
    for ours, theirs in zip(found.levels, expected.levels, strict=True):
        assert (ours * theirs).sum(axis=-1).min() >= 0.999


@pytest.mark.network
@pytest.mark.skipif(
    bool(cuda_gpus()) and torch.cuda.get_device_capability(CARD) < (9, 0), reason="needs a Hopper GPU"
)
def test_in_fp8_the_gpu_gives_nearly_the_rows_of_fp32(caplog: pytest.LogCaptureFixture) -> None:
    spec, weights = EmbeddingOptions().resolve()
    kernels = load_weights(weights, spec.model, spec.layer)
    grey = [np.full((spec.size, spec.size, 3), value, np.uint8) for value in (0, 60, 128, 255)]
    noise = np.random.default_rng(0).integers(0, 256, (4, spec.size, spec.size, 3), dtype=np.uint8)
    pictures = np.concatenate([squares(20, spec.size), grey, noise])
    exact, engine = (
        CudaEngine(spec, kernels, EngineOptions("torch", "cuda", precision, batch_size=16), CARD)
        for precision in ("fp32", "fp8")
    )
    assert engine.precision == "fp8"
    found = engine.embed(pictures)
    assert cosines(found, exact.embed(pictures)).min() >= 0.998
    np.testing.assert_allclose(engine.embed(pictures[3:5]), found[3:5], rtol=0, atol=1e-6)
    assert not caplog.records, "a graph was captured"


@pytest.mark.parametrize("shape", [(3, 64, 48, 50), (2, 512, 13, 7), (5, 128, 6, 96)])
def test_a_convolution_does_not_depend_on_what_was_in_memory_before(shape: tuple[int, ...]) -> None:
    """torch passes its uninitialised result to cuDNN as a summand, times 0: not a number would remain one."""
    maps, weight = torch.randn(shape, device=CARD).half(), torch.randn(64, shape[1], 3, 3, device=CARD).half() / 50
    maps, weight = (x.to(memory_format=torch.channels_last) for x in (maps, weight))
    bias = torch.zeros(64, device=CARD, dtype=torch.float16)
    expected = conv2d(maps, weight, bias, padding=1).relu()
    for benchmark in (False, True):
        with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark):
            convolve(maps, weight, bias)
            filled = torch.full_like(expected, float("nan"))
            address = filled.data_ptr()
            del filled
            found = convolve(maps, weight, bias)
        assert found.data_ptr() == address
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_fully_connected_layers_run_on_the_gpu() -> None:
    spec, pictures = spec_of("fc6", 224, "flat"), squares(3, 224)
    expected = TorchEngine(spec, random_kernels(spec.model, spec.layer), ON_CPU).embed(pictures)
    found = gpu_engine(spec, "fp32", 2).embed(pictures)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_odd_batches_on_the_gpu_keep_every_row_in_its_place() -> None:
    counts = (5, 0, 1, 8, 3, 16, 0, 7)
    engine = gpu_engine(SHALLOW, "fp32", 4)
    for _ in range(20):  # a race between streams would not show each time
        assert_expected(list(engine.embed_stream(cut(MANY, counts))), counts)


def test_on_the_gpu_an_abandoned_stream_and_a_query_amid_another_spoil_nothing() -> None:
    engine = gpu_engine(SHALLOW, "fp32", 4)
    for _ in range(20):
        abandoned = iter(engine.embed_stream(cut(MANY, [4] * 10)))
        next(abandoned)
        del abandoned
        stream = engine.embed_stream(cut(MANY, [4] * 10))
        found = [next(stream)]
        assert_expected([engine.embed(MANY[:7])], [7])
        assert_expected([*found, *stream], [4] * 10)


def test_tensors_of_another_stream_are_read_when_they_are_complete_and_before_they_are_reused() -> None:
    engine, counts = gpu_engine(SHALLOW, "fp32", 4), [4, 3, 9, 0, 8, 4, 12]
    producer = torch.cuda.Stream(CARD)  # type: ignore[no-untyped-call]
    busy = torch.randn(8192, 8192, device=CARD)

    def batches() -> Iterator[Pixels | torch.Tensor]:
        for number, batch in enumerate(cut(MANY, counts)):
            if number % 3 == 2:
                yield batch
                continue
            with torch.cuda.stream(producer):
                pixels = torch.zeros(batch.shape, dtype=torch.uint8, device=CARD)
                busy @ busy  # keeps the stream occupied, so that the batch is incomplete when it is yielded
                pixels.copy_(torch.from_numpy(batch).pin_memory(), non_blocking=True)
                is_complete = producer.record_event()
            torch.cuda.current_stream(CARD).wait_event(is_complete)
            yield pixels

    for _ in range(5):
        assert_expected(list(engine.embed_stream(batches())), counts)
        abandoned = iter(engine.embed_stream(batches()))
        next(abandoned)
        del abandoned


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_replayed_graph_equals_the_network_run_without_one(
    precision: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = squares(10, 96)
    spec = spec_of("pool4+pool5", 96)
    replayed = gpu_engine(spec, precision, 4)
    found = replayed.embed(pictures)
    assert not caplog.records
    with uncapturable(monkeypatch):
        eager = gpu_engine(spec, precision, 4)
        expected = eager.embed(pictures)
        assert_expected([eager.embed(pictures)], [10], expected)
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "The network runs without a CUDA graph"
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(replayed.embed(pictures), found, rtol=0, atol=1e-6)


def test_after_a_failed_capture_the_next_engine_has_a_graph(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = torch.cuda.current_stream(CARD)
    with uncapturable(monkeypatch):
        gpu_engine(SHALLOW, "fp32", 4).embed(MANY[:4])
    assert torch.cuda.current_stream(CARD) == stream
    caplog.clear()
    assert_expected([gpu_engine(SHALLOW, "fp32", 4).embed(MANY[:7])], [7])
    assert not caplog.records


def test_a_failed_capture_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.cuda.memory_reserved(CARD)
    with uncapturable(monkeypatch):
        gpu_engine(spec_of("pool4+pool5", 96), "fp16", 8).embed(squares(12, 96))
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(CARD) <= before + 4 * MB


def test_memory_on_the_gpu_does_not_grow() -> None:
    spec = spec_of("pool4+pool5", 96)
    engine, pictures = gpu_engine(spec, "fp16", 8), squares(12, 96)
    list(engine.embed_stream([pictures] * 5))
    before = torch.cuda.memory_allocated(CARD), torch.cuda.memory_reserved(CARD)
    for _ in engine.embed_stream([pictures] * 50):
        assert (torch.cuda.memory_allocated(CARD), torch.cuda.memory_reserved(CARD)) == before


def test_an_engine_that_is_dropped_gives_its_memory_back() -> None:
    before = torch.cuda.memory_reserved(CARD)
    engine = gpu_engine(spec_of("pool4+pool5", 96), "fp16", 8)
    engine.embed(squares(12, 96))
    assert torch.cuda.memory_reserved(CARD) > before + 16 * MB
    gc.disable()  # it is to go with the last name, not some time later
    try:
        del engine
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved(CARD) <= before + 4 * MB
    finally:
        gc.enable()


def test_on_a_gpu_with_little_memory_the_batch_size_is_halved(caplog: pytest.LogCaptureFixture) -> None:
    spec, counts = spec_of("pool4+pool5", 192), (20, 0, 31, 5)
    pictures = squares(sum(counts), 192)
    expected = gpu_engine(spec, "fp32", 8).embed(pictures)
    engine = gpu_engine(spec, "fp32", 64)  # its first map alone takes 600 MB
    gc.collect()
    torch.cuda.empty_cache()
    limit_memory(torch.cuda.memory_reserved(CARD) + 300 * MB)
    found = list(engine.embed_stream(cut(pictures, counts)))
    assert 1 <= engine.batch_size <= 32
    assert "no memory for a batch of 64 photos. Continuing with 32." in caplog.text
    assert_expected(found, counts, expected)


def test_on_a_gpu_without_memory_for_one_photo_the_error_says_so() -> None:
    engine = gpu_engine(spec_of("pool4+pool5", 1024), "fp32", 4)
    gc.collect()
    torch.cuda.empty_cache()
    limit_memory(torch.cuda.memory_reserved(CARD) + 20 * MB)
    with pytest.raises(OptionError, match="not enough for one photo of 1024 x 1024 pixels"):
        engine.embed(squares(1, 1024))


def limit_memory(allowed: int) -> None:
    """Let torch have so many bytes of the GPU."""
    total = torch.cuda.get_device_properties(CARD).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed / total, CARD)


def test_every_gpu_can_have_its_engine() -> None:
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    options = EngineOptions("torch", "cuda", "fp32")
    engines = [
        CudaEngine(SHALLOW, random_kernels("vgg11", "pool1"), replace(options, batch_size=4), gpu) for gpu in gpus
    ]
    streams = [engine.embed_stream(cut(MANY, [4] * 10)) for engine in engines]
    for rows in zip(*streams, strict=True):
        for other in rows[1:]:
            np.testing.assert_allclose(other, rows[0], rtol=0, atol=1e-5)
    for engine in engines:
        assert_expected([engine.embed(MANY[:7])], [7])
    assert torch.cuda.current_device() == 0


def test_slots_on_the_gpu_hold_pinned_memory() -> None:
    slots = gpu_engine(SHALLOW, "fp32", 4).open_slots(4)
    assert isinstance(slots, CudaSlots)
    slots.upload(0, MANY[:4])
    slots.run(0)
    slots.upload(1, MANY[4:8])
    slots.run(1)
    assert torch.from_numpy(slots.download(0)).is_pinned()
    assert_expected([slots.download(0), slots.download(1)], [4, 4])


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [SMALL, TALL, LARGE])
@pytest.mark.parametrize("kind", MAKE)
def test_a_square_made_on_a_gpu_is_the_cpus_within_tolerance(
    kind: str, size: tuple[int, int], subsampling: int, resize: str
) -> None:
    data = photo(kind, size, subsampling)
    mean = TOLERANCE[kind] + (REPEATED_CHROMA if subsampling else 0)
    assert_near(decoded(data, gpu(resize)), on_cpu(data, resize), mean, 3 * LARGEST)


@pytest.mark.parametrize("resize", RESIZES)
def test_the_kernels_on_a_gpu_make_pillows_squares(resize: str) -> None:
    make_squares = square_maker(CARD, SIZE, resize)
    assert isinstance(make_squares, TritonSquares)
    sizes = [(500, 375), (375, 500), (192, 192), (300, 640), (193, 3000), (1001, 801), (4000, 3000)]
    images = [grainy(picture(seed, size)) for seed, size in enumerate(sizes)]
    photos = [torch.from_numpy(np.array(image)).to(CARD) for image in images]
    as_stored = [reduced(image, SIZE) for image in images]
    for turn in range(1, 9):
        found = torch.empty(len(photos), SIZE, SIZE, 3, dtype=torch.uint8, device=CARD)
        in_use = make_squares(photos, [turn] * len(photos), [0x11] * len(photos), found, range(len(photos)))
        torch.cuda.synchronize()
        del in_use
        for ours, stored in zip(found.cpu().numpy(), as_stored, strict=True):
            upright = stored.transpose(UPRIGHT[turn]) if turn in UPRIGHT else stored
            assert_near(ours, square(upright, SIZE, resize), mean=0.002, largest=1)


@pytest.mark.parametrize("data", FOR_IT.values(), ids=FOR_IT)
def test_a_gpu_decodes_other_kinds_of_jpeg_or_leaves_them_to_the_cpu(data: bytes) -> None:
    pixels = squared(data, gpu())
    if pixels is not None:
        assert_near(pixels, on_cpu(data, "squash"), TOLERANCE["smooth"] + REPEATED_CHROMA, 3 * LARGEST)


@pytest.mark.parametrize("subsampling", [1, 2])
def test_chroma_on_a_gpu_is_interpolated_as_by_libjpeg(subsampling: int) -> None:
    noise = np.random.default_rng(1).integers(0, 2, (80, 100, 1), np.uint8)
    colours = np.where(noise, np.array([220, 90, 60], np.uint8), np.array([40, 140, 200], np.uint8))
    data = encoded(Image.fromarray(colours.repeat(4, axis=0).repeat(4, axis=1)), subsampling=subsampling)
    assert_near(decoded(data, gpu()), on_cpu(data, "squash"), mean=0.5)


def test_a_file_that_a_gpu_refuses_costs_only_itself() -> None:
    files = [BASELINE]
    for data in NOT_FOR_IT.values():
        files += [data, BASELINE]
    found, is_decoded, _ = gpu().squares(files, [jpeg_header(data, SIZE) for data in files])
    assert is_decoded.tolist() == [data == BASELINE for data in files]
    for pixels in found[is_decoded].cpu().numpy():
        assert_near(pixels, decoded(BASELINE), REPEATED_CHROMA, 3 * LARGEST)


def test_a_file_with_damaged_data_costs_only_itself_on_a_gpu() -> None:
    middle = len(BASELINE) // 2
    damaged = BASELINE[:middle] + bytes(200) + BASELINE[middle + 200 :]
    files = [BASELINE, damaged, BASELINE[:middle] + b"\xff\xd9", BASELINE] * 8
    found, is_decoded, _ = gpu().squares(files, [jpeg_header(data, SIZE) for data in files])
    assert is_decoded.reshape(-1, 4)[:, [0, 3]].all()
    for pixels in found.reshape(-1, 4, SIZE, SIZE, 3)[:, [0, 3]].flatten(0, 1).cpu().numpy():
        assert_near(pixels, decoded(BASELINE), REPEATED_CHROMA, 3 * LARGEST)


def test_batches_on_a_gpu_get_what_single_files_get() -> None:
    files = [turned(encoded(picture(seed, (400 + seed, 300))), seed % 8 + 1) for seed in range(40)]
    headers = [jpeg_header(data, SIZE) for data in files]
    expected = [decoded(data, gpu()) for data in files]
    for _ in range(5):
        found, is_decoded, facts = gpu().squares(files, headers)
        assert is_decoded.all()
        assert not facts().is_blank.any()
        for ours, theirs in zip(found.cpu().numpy(), expected, strict=True):
            assert (ours == theirs).all()


def test_decoding_leaves_alone_what_the_network_has_still_to_read() -> None:
    busy = torch.randn(8192, 8192, device="cuda")
    for _ in range(10):
        given_back = torch.full((3, SMALL[1], SMALL[0]), 7, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        for _ in range(8):
            busy @ busy  # keeps the GPU occupied, so that the sum is still to come
        total = given_back.sum()
        del given_back
        decoded(BASELINE, gpu())
        assert int(total) == 7 * 3 * SMALL[0] * SMALL[1]


def test_squares_are_left_alone_until_they_are_read() -> None:
    busy = torch.randn(8192, 8192, device="cuda")
    files = [encoded(picture(seed, SMALL)) for seed in range(16)]
    headers = [jpeg_header(data, SIZE) for data in files]
    expected = [decoded(data, gpu()).astype(np.int64).sum() for data in files]
    sums = []
    for _ in range(10):
        found, _, _ = gpu().squares(files, headers)
        busy @ busy
        sums.append(found.long().sum(dim=(1, 2, 3)))
        del found
    for each in sums:
        assert each.tolist() == expected


def default_engine(options: EngineOptions) -> Engine:
    return load_engine(*EmbeddingOptions().resolve(), options)


def test_two_processes_on_one_gpu_give_the_rows_of_one() -> None:
    spec, weights = EmbeddingOptions().resolve()
    load = partial(load_gpu, spec, weights, EngineOptions("torch", "cuda", "fp32"))
    first = load(0)
    batches = cut(squares(60, spec.size), [7, 0, 13, 20, 1, 19])
    expected = list(first.embed_stream(batches))
    with GpuPool(load, [0, 0]) as pool:
        found = [pool.embed(batch).result() if len(batch) else no_embeddings() for batch in batches]
    assert_expected(found, [len(batch) for batch in batches], np.vstack([rows for rows in expected if len(rows)]))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_all_gpus_together_give_the_rows_of_one() -> None:
    options = EngineOptions("torch", "cuda", "fp32")
    batches = cut(squares(400, 192), [20] * 20)
    engine = default_engine(options)
    assert engine.device.startswith(f"{torch.cuda.device_count()} x ")
    found = list(engine.embed_stream(batches))
    expected = [engine.embed(batch) for batch in batches]
    assert_expected(found, [20] * 20, np.vstack(expected))


def test_photos_are_decoded_and_embedded_on_the_gpu_nearly_as_on_the_cpu(tmp_path: Path) -> None:
    for seed in range(20):
        save_photo(tmp_path / f"{seed:02}.{'png' if seed % 7 == 3 else 'jpg'}", seed, (500, 375))
    files = [item for item in walk(tmp_path) if isinstance(item, PhotoFile)]
    spec, _ = EmbeddingOptions().resolve()

    def embedded(options: EngineOptions) -> Rows:
        items = extract(files, tmp_path, spec, lambda: default_engine(options))
        return np.stack([item.embedding for item in items if isinstance(item, Embedded)])

    expected = embedded(ON_CPU)
    found = embedded(EngineOptions("torch", "cuda"))
    assert found.shape == expected.shape == (20, spec.dim)
    assert cosines(found, expected).min() > 0.995
    assert (found @ expected.T).argmax(axis=1).tolist() == list(range(20))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_measures_what_it_can_do(precision: str) -> None:
    found = gpu_engine(SHALLOW, precision, 4).multiply_adds_per_s(0.5)
    assert 1e11 < found < 1e16


@pytest.mark.parametrize("recipe", ["flat", "ivf-flat", "ivf-sq8"])
def test_faiss_on_the_gpu_finds_what_the_cpu_finds_beside_torch(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS brings CUDA 12 libraries and torch its own: both have to work in one process."""
    faiss = pytest.importorskip("faiss", reason="needs FAISS")
    if faiss.get_num_gpus() == 0:
        pytest.skip("this FAISS sees no GPU")
    from tests.helpers.vectors import families, saved
    from vggsearch.defaults import BUILD
    from vggsearch.knn.vector_index import Tuning
    from vggsearch.knn.vectors import unit_rows

    def on_torch() -> float:
        return float((torch.ones(64, 64, device=CARD) @ torch.ones(64, 64, device=CARD)).sum())

    monkeypatch.setattr("vggsearch.knn.vector_index.BUILD", replace(BUILD, gpu_queries=20))
    assert on_torch() == 64**3
    stored = families(20_000)
    index = saved(tmp_path / "x", stored, recipe, Tuning(32, 4))
    queries = unit_rows(stored[:200] + 0.1 * np.random.default_rng(1).standard_normal((200, stored.shape[1])))
    on_cpu, truth = index.nearest(queries, 10)
    index.use_gpus()
    on_gpu, similarities = index.nearest(queries, 10)
    assert index._gpu_index is not None
    assert (on_gpu == on_cpu).mean() > 0.99
    np.testing.assert_allclose(similarities, truth, atol=1e-3)
    assert on_torch() == 64**3
