"""The PyTorch backend on a CUDA GPU: fixed batches through two slots, a CUDA graph, and a batch size that fits."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggsearch.errors import OptionError, option
from vggsearch.model.decoding_engine import DecodingEngine
from vggsearch.model.engine import EngineOptions, rate
from vggsearch.model.layers import needed_modules
from vggsearch.model.local_features import LoadKernels
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.engine import Embedder, TorchEngine
from vggsearch.model.torch_engine.fp8 import fp8_embedder
from vggsearch.model.torch_engine.fused import FusedEmbedder, can_fuse
from vggsearch.model.torch_engine.jpeg import SquareDecoder
from vggsearch.model.torch_engine.pipeline import SLOTS, Pipeline, Slots, Squares
from vggsearch.model.weights import Kernel

WARM_UPS = 3  # runs before a capture, as in torch's documentation of CUDA graphs
NO_MEMORY = ("out of memory", "unable to find an engine", "CUBLAS_STATUS_ALLOC_FAILED")

log = logging.getLogger(__name__)
# In a process, torch allows one capture at a time, and neither emptying of caches nor a new decoder meanwhile.
opening = threading.Lock()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise torch.OutOfMemoryError for every error that torch raises when the memory of a GPU is full.

    Only torch's own allocator raises it. The driver reports "CUDA error: out of memory", and a convolution without
    room for its workspace fails with "unable to find an engine" once cuDNN has tried all algorithms. Both are plain
    RuntimeErrors.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if any(words in str(error) for words in NO_MEMORY):
            raise torch.OutOfMemoryError(first_line(error)) from error
        raise


class CudaSlots:
    """Slots on a GPU: pinned buffers, a stream that copies, a stream that computes, a graph of the computation.

    The graph reads and writes fixed memory, so one graph serves both slots: the pixels of a slot are copied to its
    input first, and its output to the pinned buffer of the slot afterwards, which is cheap next to the network.
    """

    @memory_errors()
    @torch.inference_mode()
    def __init__(self, embedder: Embedder, gpu: torch.device, batch_size: int) -> None:
        self.batch_size = batch_size
        self._embedder, self._gpu = embedder, gpu
        pixels, embeddings = (batch_size, *[embedder.spec.size] * 2, 3), (batch_size, embedder.spec.dim)
        torch.cuda.synchronize(gpu)  # another stream may still be copying the weights
        torch.cuda.empty_cache()  # release the memory of larger slots before allocating
        self._copying = torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]
        self._uploaded = [torch.cuda.Event() for _ in range(SLOTS)]  # type: ignore[no-untyped-call]
        # Blocking: while the host waits, decoding threads can use its CPU.
        self._computed = [torch.cuda.Event(blocking=True) for _ in range(SLOTS)]  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._computing):
            self._pixels_in = [torch.empty(pixels, dtype=torch.uint8, pin_memory=True) for _ in range(SLOTS)]
            self._embeddings_out = [torch.empty(embeddings, pin_memory=True) for _ in range(SLOTS)]
            self._pixels = [torch.empty(pixels, dtype=torch.uint8, device=gpu) for _ in range(SLOTS)]
            for memory in self._pixels:
                memory.record_stream(self._copying)  # not to be reused while a copy is in progress
            self._input = torch.zeros(pixels, dtype=torch.uint8, device=gpu)
            self._output = torch.empty(embeddings, device=gpu)
            for _ in range(WARM_UPS):
                self._compute()
            self._graph = captured(self._compute, self._computing)
        self._copying.wait_stream(self._computing)

    @memory_errors()
    @torch.inference_mode()
    def upload(self, slot: int, squares: Squares) -> None:
        """See Slots."""
        self._computed[slot].synchronize()  # immediate, unless a stream was abandoned with work in the slot
        source = self._produced(squares) if isinstance(squares, Tensor) else self._pinned(slot, squares)
        with torch.cuda.stream(self._copying):
            self._pixels[slot][: len(source)].copy_(source, non_blocking=True)
            self._uploaded[slot].record(self._copying)

    @memory_errors()
    @torch.inference_mode()
    def run(self, slot: int) -> None:
        """See Slots."""
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(self._uploaded[slot])
            self._input.copy_(self._pixels[slot])
            if self._graph is not None:
                self._graph.replay()
            else:
                self._compute()
            self._embeddings_out[slot].copy_(self._output, non_blocking=True)
            self._computed[slot].record(self._computing)

    def download(self, slot: int) -> NDArray[np.float32]:
        """See Slots."""
        self._computed[slot].synchronize()
        embeddings: NDArray[np.float32] = self._embeddings_out[slot].numpy()
        return embeddings

    def _produced(self, squares: Tensor) -> Tensor:
        """Let the copy wait for the stream that produced the images, and their memory outlast the copy.

        Raises ValueError for another type or device, between which torch would convert without a word.
        """
        if squares.dtype != torch.uint8 or squares.device != self._gpu:
            raise ValueError(f"A batch must be uint8 on {self._gpu}, not {squares.dtype} on {squares.device}.")
        self._copying.wait_stream(torch.cuda.current_stream(self._gpu))
        squares.record_stream(self._copying)  # a stream may be abandoned, and its tensors freed, during the copy
        return squares

    def _pinned(self, slot: int, squares: NDArray[np.uint8]) -> Tensor:
        """Copy the images to the pinned buffer of the slot, from which alone a copy runs beside the host."""
        memory = self._pixels_in[slot][: len(squares)]
        np.copyto(memory.numpy(), squares)
        return memory

    def _compute(self) -> None:
        # fp32 means float32, as on a CPU; by default torch lets cuDNN round to the 10 bits of TF32. Since the shape
        # is fixed, it pays to benchmark the convolution algorithms, which happens in the first warm-up run.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            self._output.copy_(self._embedder(self._input))


def captured(work: Callable[[], None], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph | None:
    """Return the CUDA graph of `work`, captured in `stream`, or None if it cannot be captured.

    `work` must have run in `stream` before. Raises torch.OutOfMemoryError.
    """
    pool = torch.cuda.graph_pool_handle()
    try:
        graph = torch.cuda.CUDAGraph()
        # thread_local, so that calls of other threads do not break the capture. The outer context restores the
        # current stream, which torch does not do if ending a capture fails.
        capture = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.stream(stream), capture:
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        log.warning("The network runs without a CUDA graph, slightly slower: %s", first_line(error))
        end_capture(stream.device_index, pool)
        return None
    return graph


def end_capture(gpu: int, pool: tuple[int, int]) -> None:
    """Tell torch's allocator that the capture which allocated from `pool` is over.

    After a capture that failed, torch leaves it in the state of a capture for good: no memory that several streams
    used is given back any more, and `empty_cache` releases nothing.
    """
    names = "_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"  # the latter before torch 2.8
    end = next(getattr(torch._C, name) for name in names if hasattr(torch._C, name))
    try:
        end(gpu, pool)
    except RuntimeError:  # torch has ended it: the work failed, but not the capture
        return
    torch._C._cuda_releasePool(gpu, pool)


def first_line(error: Exception) -> str:
    """Return the first line of a message of torch; the others are advice on debugging."""
    return str(error).partition("\n")[0]


class CudaEngine(TorchEngine, DecodingEngine):
    """A TorchEngine on one GPU. `batch_size` is halved if the memory of the GPU requires it.

    Each stream has its own slots. When it ends they are kept for the next one, so that the graph is captured once.
    Threads that call `embed` take turns, so that they share one pair of slots.
    """

    def __init__(
        self,
        spec: EmbeddingSpec,
        kernels: dict[str, Kernel],
        options: EngineOptions,
        gpu: torch.device,
        load_kernels: LoadKernels | None = None,
    ) -> None:
        super().__init__(spec, kernels, options, gpu, load_kernels)
        self._decode = options.decode
        self._idle: list[Slots] = []  # at most one
        self._embedding = threading.Lock()

    def _embedder(self, spec: EmbeddingSpec, kernels: dict[str, Kernel]) -> Embedder:
        if self.precision == "fp8":
            return fp8_embedder(spec, kernels, self.torch_device)
        if can_fuse(self.torch_device, self._dtype, needed_modules(spec.model, spec.layer)):
            return FusedEmbedder(spec, kernels, self.torch_device, self._dtype)
        return super()._embedder(spec, kernels)

    def prepare(self, levels: int = 0) -> None:  # noqa: ARG002 - `describe` needs nothing more
        """See Engine.prepare: compile the kernels, and capture the graph."""
        if isinstance(self.embedder, FusedEmbedder):
            _ = self.embedder.calls  # before the slots, which wait for a decoder that is being opened
        with suppress(torch.OutOfMemoryError):  # the first stream reports it, and halves the batch size
            self.return_slots(self.take_slots())

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.embed."""
        with self._embedding:
            [embeddings] = self.embed_stream([squares])
        return embeddings

    def embed_stream(self, batches: Iterable[Squares]) -> Iterator[NDArray[np.float32]]:
        """Yield the embeddings of each batch, in order, taking at most two batches ahead of what is yielded.

        A batch is an array or a uint8 tensor (n, size, size, 3) on this GPU, which does not pass through the host.
        As for any operation of torch, a tensor has to be complete in the current stream of the thread that iterates
        here: if another stream writes it, let `torch.cuda.current_stream().wait_event(...)` precede the yield of
        `batches`. Its memory may be overwritten as soon as its embeddings are yielded.
        """
        return Pipeline(self).stream(batches)

    def square_decoder(self) -> SquareDecoder | None:
        """Return a JPEG decoder on this GPU, or None if the CPU is to decode.

        Raises OptionError if decode="gpu" was wanted and there is no decoder for GPUs.
        """
        if self._decode == "cpu":
            return None
        spec = self.embedder.spec
        try:
            with opening:
                return SquareDecoder(self.torch_device, spec.size, spec.resize)
        except OptionError as error:
            if self._decode == "gpu":
                raise
            log.warning("The CPU decodes JPEG. %s", error)
            return None

    @torch.inference_mode()
    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s."""
        side = 8192
        ramp = torch.linspace(-1, 1, side**2, device=self.torch_device)  # zeros would be unrealistically fast
        matrix = ramp.view(side, side).to(self._dtype)
        return side**3 * rate(lambda: (matrix @ matrix)[0, 0].item(), seconds)

    def open_slots(self, batch_size: int) -> Slots:
        """Open slots on the GPU. Raises torch.OutOfMemoryError if they do not fit."""
        with opening:
            return CudaSlots(self.embedder, self.torch_device, batch_size)

    def take_slots(self) -> Slots:
        """Return slots of the current batch size for one stream: the kept ones, or new ones."""
        try:
            return self._idle.pop()  # one step, so that no two threads get the same
        except IndexError:
            return self.open_slots(self.batch_size)

    def return_slots(self, slots: Slots) -> None:
        """Keep slots for the next stream, unless they have become too large."""
        if slots.batch_size == self.batch_size:
            self._idle = [slots]

    def shrink(self, batch_size: int) -> None:
        """Halve the batch size after `batch_size` was too large for the GPU."""
        self._idle = []
        self.batch_size = min(self.batch_size, batch_size // 2)
        log.warning(
            "%s has no memory for a batch of %d photos. Continuing with %d.",
            self.device,
            batch_size,
            self.batch_size,
        )

    def too_small(self, error: torch.OutOfMemoryError) -> OptionError:
        """Return the error for a GPU without memory for a single image."""
        spec = self.embedder.spec
        free, total = (amount >> 20 for amount in self.memory())
        reason = first_line(error).partition(". ")[0]
        return OptionError(
            f"{self.device} has {free:,} of {total:,} MB free, not enough for one photo of {spec.size} x "
            f"{spec.size} pixels with {spec.model} {spec.layer} in {self.precision} ({reason}). Close other "
            "programs that use the GPU, or use ",
            option("device", "cpu"),
            ".",
        )

    def memory(self) -> tuple[int, int]:
        """Return the free and total memory of the GPU, in bytes."""
        return torch.cuda.mem_get_info(self.torch_device)
