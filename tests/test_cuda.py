"""The engine for a GPU, its logic: the GPU is made of CPU. test_gpu.py has the real thing."""

import gc
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fakes import squares
from tests.helpers.examples import examples
from vggsearch.errors import OptionError
from vggsearch.evaluation.networks import random_kernels
from vggsearch.model import loading
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.local_features import LoadKernels
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.torch_engine import cuda
from vggsearch.model.torch_engine.cuda import CudaEngine, captured, memory_errors
from vggsearch.model.torch_engine.engine import Embedder, TorchEngine
from vggsearch.model.torch_engine.pipeline import SLOTS, Squares
from vggsearch.model.weights import Kernel

Pixels = NDArray[np.uint8]
Rows = NDArray[np.float32]

ON_CPU = EngineOptions("torch", "cpu", "fp32")
CPU = torch.device("cpu")
MB = 1 << 20


DEEP = EmbeddingSpec("vgg11", "pool4+pool5", "spoc", (32,), "squash", "0" * 64)
SHALLOW = replace(DEEP, layer="pool1")  # one convolution, for the tests that run it hundreds of times


def cut(pictures: Pixels, counts: Iterable[int]) -> list[Pixels]:
    """Cut into batches of these sizes."""
    return np.split(pictures, np.cumsum(list(counts)))[:-1]


def one_by_one(engine: TorchEngine, pictures: Pixels) -> Rows:
    return np.vstack([engine.embed(pictures[row : row + 1]) for row in range(len(pictures))])


@dataclass
class FakeGpu:
    """What a GPU remembers and refuses: batches larger than `fits`, and the calls numbered in `failures`."""

    fits: int = 1000
    failures: frozenset[int] = frozenset()
    fails_in: str = "open"
    calls: list[tuple[str, int]] = field(default_factory=list)  # what was done, to which chunk or batch size
    opened: "weakref.WeakSet[FakeSlots]" = field(default_factory=weakref.WeakSet)
    chunks: int = 0

    def call(self, what: str, which: int, batch_size: int) -> None:
        self.calls.append((what, which))
        is_full = what == self.fails_in and batch_size > self.fits
        if is_full or (batch_size > 1 and len(self.calls) in self.failures):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nMore.")

    def counted(self, what: str) -> list[int]:
        return [which for called, which in self.calls if called == what]


class FakeSlots:
    """Slots on the CPU, which hold callers to the rules: no more than fits, and upload, run, download in turn."""

    def __init__(self, embedder: Embedder, gpu: FakeGpu, batch_size: int) -> None:
        gpu.call("open", batch_size, batch_size)
        self.batch_size = batch_size
        self._embedder, self._gpu = embedder, gpu
        size, dim = embedder.spec.size, embedder.spec.dim
        self._pixels = np.zeros((SLOTS, batch_size, size, size, 3), np.uint8)
        self._embeddings = np.zeros((SLOTS, batch_size, dim), np.float32)
        self._chunks = [-1] * SLOTS
        self._next_is = ["upload"] * SLOTS
        gpu.opened.add(self)

    def upload(self, slot: int, squares: Squares) -> None:
        assert self._next_is[slot] == "upload"
        assert 0 < len(squares) <= self.batch_size
        assert squares.shape[1:] == self._pixels.shape[2:]
        assert squares.dtype in (np.uint8, torch.uint8)
        self._chunks[slot] = self._gpu.chunks
        self._gpu.chunks += 1
        self._gpu.call("upload", self._chunks[slot], self.batch_size)
        self._pixels[slot, : len(squares)] = squares
        self._next_is[slot] = "run"

    @torch.inference_mode()
    def run(self, slot: int) -> None:
        assert self._next_is[slot] == "run"
        self._gpu.call("run", self._chunks[slot], self.batch_size)
        self._embeddings[slot] = self._embedder(torch.from_numpy(self._pixels[slot])).numpy()
        self._next_is[slot] = "download"

    def download(self, slot: int) -> Rows:
        assert self._next_is[slot] == "download"
        self._gpu.call("download", self._chunks[slot], self.batch_size)
        self._next_is[slot] = "upload"
        embeddings: Rows = self._embeddings[slot]
        return embeddings


class AbandonableSlots(FakeSlots):
    """Take new pictures whatever they hold, as slots must that an abandoned stream gave back."""

    def upload(self, slot: int, squares: Squares) -> None:
        self._next_is[slot] = "upload"
        super().upload(slot, squares)


class FakedEngine(CudaEngine):
    """The engine for a GPU, whose GPU is a fake one."""

    slots = FakeSlots

    def __init__(self, gpu: FakeGpu, batch_size: int, spec: EmbeddingSpec = SHALLOW) -> None:
        super().__init__(spec, KERNELS[spec], replace(ON_CPU, batch_size=batch_size), CPU)
        self.gpu = gpu

    def open_slots(self, batch_size: int) -> FakeSlots:
        return self.slots(self.embedder, self.gpu, batch_size)

    def memory(self) -> tuple[int, int]:
        return 123 * MB, 8192 * MB


KERNELS = {spec: random_kernels(spec.model, spec.layer) for spec in (SHALLOW, DEEP)}
MANY = squares(40, 32)
EXPECTED = one_by_one(TorchEngine(SHALLOW, KERNELS[SHALLOW], ON_CPU), MANY)


def assert_expected(found: Sequence[Rows], counts: Sequence[int], expected: Rows = EXPECTED) -> None:
    """The embeddings of each batch, in order; no two pictures are near enough to be taken for each other."""
    assert [len(rows) for rows in found] == list(counts)
    assert all(rows.dtype == np.float32 for rows in found)
    rows = np.vstack([rows for rows in found if len(rows)])
    np.testing.assert_allclose(rows, expected[: len(rows)], rtol=0, atol=1e-5)


def test_the_pictures_are_different_enough_for_these_tests_to_tell() -> None:
    distances = np.abs(EXPECTED[:, None] - EXPECTED[None]).max(axis=2) + np.eye(len(EXPECTED))
    assert distances.min() > 1e-3


def test_a_deep_network_gives_the_rows_of_the_torch_engine() -> None:
    pictures, counts = squares(11, 32), (3, 0, 5, 1, 2)
    engine = FakedEngine(FakeGpu(), 3, DEEP)
    found = list(engine.embed_stream(cut(pictures, counts)))
    assert_expected(found, counts, one_by_one(TorchEngine(DEEP, KERNELS[DEEP], ON_CPU), pictures))
    np.testing.assert_allclose(np.linalg.norm(np.vstack(found[:1]), axis=1), 1, atol=1e-5)


def test_a_batch_is_cut_into_chunks_of_one_size() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 3)
    assert_expected([engine.embed(MANY[:8])], [8])
    assert len(gpu.counted("upload")) == 3
    assert_expected([engine.embed(MANY[:3])], [3])
    assert len(gpu.counted("upload")) == 4


def test_arrays_and_tensors_may_follow_each_other() -> None:
    batches = cut(MANY, [5, 0, 0, 7, 1, 3, 4, 9, 11])
    mixed = [torch.from_numpy(batch) if number % 2 else batch for number, batch in enumerate(batches)]
    found = list(FakedEngine(FakeGpu(failures=frozenset([6])), 4).embed_stream(mixed))
    assert_expected(found, [len(batch) for batch in batches])


def test_the_next_chunk_is_uploaded_before_the_last_is_downloaded() -> None:
    gpu = FakeGpu()
    list(FakedEngine(gpu, 4).embed_stream(cut(MANY, [4] * 10)))
    at = {call: position for position, call in enumerate(gpu.calls)}
    assert all(at["run", chunk + 1] < at["download", chunk] for chunk in range(9))
    assert all(at["download", chunk] < at["upload", chunk + SLOTS] for chunk in range(10 - SLOTS))


def test_chunks_of_one_large_batch_overlap_in_the_same_way() -> None:
    gpu = FakeGpu()
    FakedEngine(gpu, 4).embed(MANY)
    at = {call: position for position, call in enumerate(gpu.calls)}
    assert all(at["run", chunk + 1] < at["download", chunk] for chunk in range(9))


def test_an_empty_batch_gives_no_embeddings_and_no_work() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 4)
    empty = MANY[:0]
    assert [rows.shape for rows in engine.embed_stream([empty, empty])] == [(0, 0), (0, 0)]
    assert engine.embed(empty).shape == (0, 0)
    assert gpu.calls == []


def test_an_empty_batch_between_others_does_not_make_the_gpu_wait() -> None:
    gpu = FakeGpu()
    counts = (4, 0, 4)
    assert_expected(list(FakedEngine(gpu, 4).embed_stream(cut(MANY, counts))), counts)
    assert gpu.calls.index(("upload", 1)) < gpu.calls.index(("download", 0))


def test_no_batches_give_nothing() -> None:
    assert list(FakedEngine(FakeGpu(), 4).embed_stream([])) == []


@pytest.mark.parametrize("counts", [[4] * 10, [1, 0, 9, 0, 0, 0, 4, 4, 12], [0] * 6, [9] * 4])
def test_at_most_two_batches_are_taken_ahead_of_what_is_yielded(counts: list[int]) -> None:
    pulled = 0

    def batches() -> Iterator[Pixels]:
        nonlocal pulled
        for batch in cut(MANY, counts):
            pulled += 1
            yield batch

    for yielded, _ in enumerate(FakedEngine(FakeGpu(), 4).embed_stream(batches()), start=1):
        assert pulled <= yielded + 2
    assert pulled == len(counts)


def test_what_was_yielded_does_not_change_afterwards() -> None:
    found = list(FakedEngine(FakeGpu(), 4).embed_stream(cut(MANY, [4] * 10)))
    assert_expected(found, [4] * 10)


def test_slots_are_kept_for_the_next_stream() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 4)
    for _ in range(3):
        assert_expected([engine.embed(MANY[:5])], [5])
    assert gpu.counted("open") == [4]


def test_a_prepared_engine_has_the_slots_of_the_first_stream() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 4)
    engine.prepare()
    assert gpu.counted("open") == [4]
    assert_expected([engine.embed(MANY[:5])], [5])
    assert gpu.counted("open") == [4]


def test_a_gpu_that_is_full_while_an_engine_is_prepared_gets_smaller_batches_later() -> None:
    gpu = FakeGpu(fits=2)
    engine = FakedEngine(gpu, 4)
    engine.prepare()
    assert gpu.counted("open") == [4]
    assert_expected([engine.embed(MANY[:5])], [5])
    assert gpu.counted("open") == [4, 4, 2]


def test_a_stream_and_a_query_at_once_do_not_mix() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 4)
    stream = engine.embed_stream(cut(MANY, [4] * 10))
    found = [next(stream)]
    assert_expected([engine.embed(MANY[:7])], [7])
    assert_expected([*found, *stream], [4] * 10)
    assert gpu.counted("open") == [4, 4]


def test_an_abandoned_stream_leaves_slots_that_work() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 4)
    engine.slots = AbandonableSlots
    stream = iter(engine.embed_stream(cut(MANY, [4] * 10)))
    next(stream)
    del stream
    assert_expected([engine.embed(MANY[:7])], [7])
    assert gpu.counted("open") == [4]


def test_an_error_of_the_photos_is_raised_as_it_is() -> None:
    def batches() -> Iterator[Pixels]:
        yield MANY[:4]
        raise FileNotFoundError("photos/1.jpg")

    with pytest.raises(FileNotFoundError, match=r"photos/1\.jpg"):
        list(FakedEngine(FakeGpu(), 4).embed_stream(batches()))


@pytest.mark.parametrize("fails_in", ["open", "upload", "run"])
def test_the_batch_size_is_halved_until_it_fits(fails_in: str, caplog: pytest.LogCaptureFixture) -> None:
    gpu = FakeGpu(fits=3, fails_in=fails_in)
    engine = FakedEngine(gpu, 16)
    counts = (16, 0, 7, 17)
    with caplog.at_level(logging.WARNING):
        assert_expected(list(engine.embed_stream(cut(MANY, counts))), counts)
    assert engine.batch_size == 2
    assert gpu.counted("open") == [16, 8, 4, 2]
    assert [record.message.partition("has ")[2] for record in caplog.records] == [
        "no memory for a batch of 16 photos. Continuing with 8.",
        "no memory for a batch of 8 photos. Continuing with 4.",
        "no memory for a batch of 4 photos. Continuing with 2.",
    ]
    assert_expected([engine.embed(MANY[:5])], [5])
    assert gpu.counted("open") == [16, 8, 4, 2], "what fits is remembered"


def test_a_batch_size_that_is_no_power_of_two_ends_at_one() -> None:
    engine = FakedEngine(FakeGpu(fits=1), 7)
    assert_expected([engine.embed(MANY[:9])], [9])
    assert engine.batch_size == 1


@pytest.mark.parametrize("fails_in", ["open", "run"])
def test_where_one_photo_does_not_fit_the_error_says_the_numbers_and_the_way_out(fails_in: str) -> None:
    engine = FakedEngine(FakeGpu(fits=0, fails_in=fails_in), 4)
    with pytest.raises(OptionError) as caught:
        engine.embed(MANY[:4])
    message = str(caught.value)
    assert "has 123 of 8,192 MB free, not enough for one photo of 32 x 32 pixels" in message
    assert (
        "vgg11 pool1 in fp32 (CUDA out of memory). Close other programs that use the GPU, or use device='cpu'."
        in message
    )
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.parametrize("fails_in", ["upload", "run"])
def test_slots_that_were_too_large_are_freed_before_others_are_opened(fails_in: str) -> None:
    gpu = FakeGpu(fits=3, fails_in=fails_in)
    alive: list[int] = []

    class Watching(FakedEngine):
        def open_slots(self, batch_size: int) -> FakeSlots:
            alive.append(len(gpu.opened))
            return super().open_slots(batch_size)

    gc.disable()  # they are to go at once, not when the garbage is collected
    try:
        Watching(gpu, 16).embed(MANY)
    finally:
        gc.enable()
    assert alive == [0, 0, 0, 0]


def test_slots_that_are_too_large_by_now_are_not_kept() -> None:
    gpu = FakeGpu()
    engine = FakedEngine(gpu, 4)
    stream = engine.embed_stream(cut(MANY, [4] * 3))
    next(stream)
    engine.shrink(4)
    assert len(list(stream)) == 2
    assert_expected([engine.embed(MANY[:3])], [3])
    assert gpu.counted("open") == [4, 2]


@settings(max_examples=examples(60))
@given(
    counts=st.lists(st.integers(0, 9), max_size=8).filter(lambda counts: sum(counts) <= len(MANY)),
    batch_size=st.integers(1, 12),
    failures=st.frozensets(st.integers(1, 60), max_size=6),
)
def test_running_out_of_memory_anywhere_loses_nothing_and_doubles_nothing(
    counts: list[int], batch_size: int, failures: frozenset[int]
) -> None:
    gpu = FakeGpu(failures=failures)
    engine = FakedEngine(gpu, batch_size)
    found = list(engine.embed_stream(cut(MANY, counts)))
    if sum(counts):
        assert_expected(found, counts)
    assert all(repeats == 1 for repeats in Counter(gpu.counted("download")).values())
    sizes = gpu.counted("open")
    assert all(smaller == larger // 2 for larger, smaller in pairwise(sizes))


def test_what_cannot_be_captured_runs_without_a_graph_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    graph, told = capture_with(monkeypatch, None)
    assert graph is not None
    assert not told
    assert not caplog.records
    error = RuntimeError("CUDA error: operation not permitted when stream is capturing\nMore advice.\n")
    assert capture_with(monkeypatch, error) == (None, ["end", "release"])
    assert [record.message for record in caplog.records] == [
        "The network runs without a CUDA graph, slightly slower: "
        "CUDA error: operation not permitted when stream is capturing"
    ]


def test_a_capture_that_torch_has_ended_is_not_ended_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert capture_with(monkeypatch, RuntimeError("The work failed."), is_over=True) == (None, [])


def test_running_out_of_memory_in_a_capture_is_no_reason_to_go_without_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        capture_with(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."))


def capture_with(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, is_over: bool = False
) -> tuple[torch.cuda.CUDAGraph | None, list[str]]:
    """Capture with torch's part faked, work that raises an error.

    Return also what the allocator was told; it refuses to end a capture that `is_over`.
    """
    told: list[str] = []

    def graph(*arguments: object, **options: object) -> AbstractContextManager[None]:
        assert options["capture_error_mode"] == "thread_local"
        assert options["pool"] == (0, 7)
        return nullcontext()

    def work() -> None:
        if error:
            raise error

    def end(*given: object) -> None:
        assert given == (3, (0, 7))
        if is_over:
            raise RuntimeError("not currently recording to mempool_id")
        told.append("end")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *_: told.append("release"), raising=False)
    return captured(work, SimpleNamespace(device_index=3)), told  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("CUDA error: out of memory\nCompile with ...", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_all_ways_in_which_torch_says_that_memory_is_used_up(message: str, is_memory: bool) -> None:
    with pytest.raises(RuntimeError) as caught, memory_errors():
        raise RuntimeError(message)
    assert isinstance(caught.value, torch.OutOfMemoryError) == is_memory
    assert message.startswith(str(caught.value))


class Ordered:
    """A stream or an event of a GPU that does everything at once, and remembers what it waited for."""

    def __init__(self, *_: object, **__: object) -> None:
        self.waited_for: list[object] = []

    def record(self, stream: object) -> None: ...

    def synchronize(self) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def wait_stream(self, stream: object) -> None:
        self.waited_for.append(stream)


@dataclass
class MadeOfCpu:
    """What the real slots asked of torch.cuda: the streams that use the memory of each tensor, and replays."""

    used_by: dict[int, object] = field(default_factory=dict)  # by address
    replays: int = 0
    has_graph: bool = True

    def captured(self, work: Callable[[], None], _: object) -> "Graph | None":
        return Graph(self, work) if self.has_graph else None


@dataclass
class Graph:
    gpu: MadeOfCpu
    work: Callable[[], None]

    def replay(self) -> None:
        self.gpu.replays += 1
        self.work()


PRODUCER = "the current stream"


@pytest.fixture
def made_of_cpu(monkeypatch: pytest.MonkeyPatch) -> MadeOfCpu:
    """Let torch.cuda do its work on the CPU, and return what it was asked for."""
    gpu = MadeOfCpu()

    def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **_: object) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def record_stream(tensor: torch.Tensor, stream: object) -> None:
        gpu.used_by[tensor.data_ptr()] = stream

    monkeypatch.setattr(torch, "empty", empty)
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Ordered)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: PRODUCER)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    monkeypatch.setattr(cuda, "captured", gpu.captured)
    return gpu


@pytest.mark.parametrize("has_graph", [True, False])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])
def test_the_real_slots_give_the_rows_of_the_torch_engine_on_a_gpu_made_of_cpu(
    make: Callable[[Pixels], Squares], has_graph: bool, made_of_cpu: MadeOfCpu
) -> None:
    made_of_cpu.has_graph = has_graph
    engine = CudaEngine(SHALLOW, KERNELS[SHALLOW], replace(ON_CPU, batch_size=4), CPU)
    counts = (5, 0, 1, 8, 3, 16, 0, 7)
    assert_expected(list(engine.embed_stream(map(make, cut(MANY, counts)))), counts)
    assert made_of_cpu.replays == (sum(-(-count // 4) for count in counts) if has_graph else 0)


def test_a_tensor_is_copied_after_the_stream_that_wrote_it_and_not_freed_before(made_of_cpu: MadeOfCpu) -> None:
    slots = CudaEngine(SHALLOW, KERNELS[SHALLOW], ON_CPU, CPU).open_slots(4)
    slots.upload(0, MANY[:4])
    assert PRODUCER not in waited_for_by_all(made_of_cpu)
    batch = torch.from_numpy(MANY[:3])
    slots.upload(1, batch)
    copying = made_of_cpu.used_by[batch.data_ptr()]
    assert isinstance(copying, Ordered)
    assert copying.waited_for[-1] == PRODUCER


@pytest.mark.parametrize("batch", [torch.zeros(1, 32, 32, 3), torch.zeros(1, 32, 32, 3).byte().to("meta")])
def test_a_tensor_of_another_type_or_device_is_refused(batch: torch.Tensor, made_of_cpu: MadeOfCpu) -> None:
    engine = CudaEngine(SHALLOW, KERNELS[SHALLOW], ON_CPU, CPU)
    with pytest.raises(ValueError, match=f"must be uint8 on cpu, not {batch.dtype} on {batch.device}"):
        list(engine.embed_stream([batch]))


def waited_for_by_all(gpu: MadeOfCpu) -> list[object]:
    return [other for stream in gpu.used_by.values() for other in getattr(stream, "waited_for", [])]


@pytest.mark.parametrize(("gpus", "shown"), [(1, "torch, NVIDIA X, fp16"), (3, "torch, 3 x NVIDIA X, fp16")])
def test_all_gpus_that_torch_can_use_are_used(gpus: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, weights = EmbeddingOptions(layer="pool1", size=32).resolve()
    asked: list[torch.device] = []

    def on_cpu(
        spec: EmbeddingSpec,
        kernels: dict[str, Kernel],
        options: EngineOptions,
        gpu: torch.device,
        load_kernels: LoadKernels,
    ) -> Engine:
        asked.append(gpu)
        return TorchEngine(spec, kernels, ON_CPU, load_kernels=load_kernels)

    monkeypatch.setattr(cuda, "CudaEngine", on_cpu)
    monkeypatch.setattr(loading, "cuda_gpus", lambda: ("NVIDIA X",) * gpus)
    engine = load_engine(spec, weights, EngineOptions("torch", "cuda"))
    assert str(engine) == shown
    assert not asked, "no GPU is used before there is something to embed"
    assert engine.embed(squares(2, 32)).shape == (2, spec.dim)
    assert asked == [torch.device("cuda", 0)], "the other GPUs are loaded by their own processes"
    assert isinstance(load_engine(spec, weights, EngineOptions("torch", "cpu")), TorchEngine)


@dataclass
class FakeDecoder:
    """Stands in for SquareDecoder: remembers what for, and works or not."""

    gpu: torch.device
    size: int
    resize: str
    works: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.works:
            raise OptionError("no nvJPEG. Use --decode cpu.")


def test_jpeg_is_decoded_on_the_gpu_unless_the_cpu_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def asked(decode: str) -> object:
        return CudaEngine(SHALLOW, KERNELS[SHALLOW], replace(ON_CPU, decode=decode), CPU).square_decoder()

    monkeypatch.setattr(cuda, "SquareDecoder", FakeDecoder)
    for decode in ("auto", "gpu"):
        assert asked(decode) == FakeDecoder(CPU, SHALLOW.size, SHALLOW.resize)
    assert asked("cpu") is None
    monkeypatch.setattr(FakeDecoder, "works", False)
    assert asked("cpu") is None
    assert not caplog.records
    assert asked("auto") is None
    assert [record.message for record in caplog.records] == ["The CPU decodes JPEG. no nvJPEG. Use --decode cpu."]
    with pytest.raises(OptionError, match="no nvJPEG"):
        asked("gpu")
