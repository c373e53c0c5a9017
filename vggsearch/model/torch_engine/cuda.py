"""The torch engine on a CUDA GPU: fixed batches through two slots, one CUDA graph, and a batch size that fits."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.model.engine import EngineOptions, rate
from vggsearch.model.local_features import LoadKernels
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.engine import Embedder, TorchEngine
from vggsearch.model.torch_engine.jpeg import DeviceJpeg
from vggsearch.model.torch_engine.pipeline import SLOTS, Pipeline, Slots
from vggsearch.model.weights import Kernel

if TYPE_CHECKING:
    from vggsearch.model.engine import SquareJpeg

WARM_UPS = 3  # runs before a capture, as in torch's documentation of CUDA graphs
NO_MEMORY = ("out of memory", "unable to find an engine", "CUBLAS_STATUS_ALLOC_FAILED")

log = logging.getLogger(__name__)
opening = threading.Lock()  # torch allows one capture at a time in a process, and no emptying of caches meanwhile


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise torch.OutOfMemoryError for all that torch raises where a GPU's memory is used up.

    Only torch's own allocator raises it. The driver says "CUDA error: out of memory"; and a convolution for which
    there is no room to work in is tried in every way that cuDNN knows, after which torch says that it "was unable
    to find an engine": both as plain RuntimeErrors.
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

    The graph reads and writes fixed memory, so one graph serves both slots: a slot's pixels are copied to its
    input first, and its output to the slot's pinned buffer afterwards, which is little next to the network.
    """

    @memory_errors()
    @torch.inference_mode()
    def __init__(self, embedder: Embedder, gpu: torch.device, batch_size: int) -> None:
        self.batch_size = batch_size
        self._embedder = embedder
        pixels, embeddings = (batch_size, *[embedder.spec.size] * 2, 3), (batch_size, embedder.spec.dim)
        torch.cuda.synchronize(gpu)  # the weights may still be on their way, in another stream
        torch.cuda.empty_cache()  # what larger slots held goes back before anything is asked for
        self._copying = torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]
        self._uploaded = [torch.cuda.Event() for _ in range(SLOTS)]  # type: ignore[no-untyped-call]
        # Blocking: while the host waits, its processor is left to the decoding threads.
        self._computed = [torch.cuda.Event(blocking=True) for _ in range(SLOTS)]  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._computing):
            self._pixels_in = [torch.empty(pixels, dtype=torch.uint8, pin_memory=True) for _ in range(SLOTS)]
            self._embeddings_out = [torch.empty(embeddings, pin_memory=True) for _ in range(SLOTS)]
            self._pixels = [torch.empty(pixels, dtype=torch.uint8, device=gpu) for _ in range(SLOTS)]
            for memory in self._pixels:
                memory.record_stream(self._copying)  # not to be given to others while a copy is under way
            self._input = torch.zeros(pixels, dtype=torch.uint8, device=gpu)
            self._output = torch.empty(embeddings, device=gpu)
            for _ in range(WARM_UPS):
                self._compute()
            self._graph = captured(self._compute, self._computing)
        self._copying.wait_stream(self._computing)

    @memory_errors()
    @torch.inference_mode()
    def upload(self, slot: int, squares: NDArray[np.uint8]) -> None:
        """See Slots."""
        self._computed[slot].synchronize()  # at once, unless a stream was given up with work in the slot
        np.copyto(self._pixels_in[slot].numpy(), squares)
        with torch.cuda.stream(self._copying):
            self._pixels[slot].copy_(self._pixels_in[slot], non_blocking=True)
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

    def _compute(self) -> None:
        # fp32 means float32, as on a CPU; torch lets cuDNN round it to TF32's 10 bits by default. As the shape is
        # always the same, it pays to try which convolution is fastest, which the first warm-up does.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            self._output.copy_(self._embedder(self._input))


def captured(work: Callable[[], None], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph | None:
    """Return the CUDA graph of `work`, captured in `stream`, or None where it cannot be captured.

    Raises torch.OutOfMemoryError. `work` must have run in `stream` before.
    """
    try:
        graph = torch.cuda.CUDAGraph()
        # thread_local, so that what other threads ask of a GPU meanwhile does not spoil the capture. The outer
        # context puts the current stream back, which torch does not where ending a capture fails.
        capture = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.stream(stream), capture:
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        log.warning("The network runs without a CUDA graph, a little slower: %s", first_line(error))
        return None
    return graph


def first_line(error: Exception) -> str:
    """Return what torch says first; advice about debugging follows it."""
    return str(error).partition("\n")[0]


class CudaEngine(TorchEngine):
    """A TorchEngine on one GPU, `gpu` with its index. `batch_size` is halved where the GPU's memory demands it.

    A stream has slots to itself; when it ends they are kept for the next, so that a graph is captured once.
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
        self._idle: Slots | None = None

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order."""
        [embeddings] = self.embed_stream([squares])
        return embeddings

    def embed_stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the embeddings of each batch, in order; at most two batches are taken ahead of what is yielded."""
        return Pipeline(self).stream(batches)

    def square_jpeg(self) -> "SquareJpeg | None":
        """See Engine.square_jpeg: the decoders of all GPUs, unless the options say that the CPU is to decode.

        Raises OptionError where they say "gpu" and this torchvision cannot.
        """
        if self._decode == "cpu":
            return None
        gpus = [torch.device("cuda", gpu) for gpu in range(torch.cuda.device_count())]
        try:
            return DeviceJpeg(gpus).square
        except OptionError as error:
            if self._decode == "gpu":
                raise
            log.warning("The CPU decodes. %s", error)
            return None

    @torch.inference_mode()
    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s."""
        side = 8192
        ramp = torch.linspace(-1, 1, side**2, device=self.torch_device)  # zeros would be too easy for it
        matrix = ramp.view(side, side).to(self._dtype)
        return side**3 * rate(lambda: (matrix @ matrix)[0, 0].item(), seconds)

    def open_slots(self, batch_size: int) -> Slots:
        """Open slots on the GPU. Raises torch.OutOfMemoryError where they do not fit."""
        with opening:
            return CudaSlots(self.embedder, self.torch_device, batch_size)

    def take_slots(self) -> Slots:
        """Return slots of the present batch size for one stream: those kept, or new ones."""
        slots, self._idle = self._idle, None
        return slots or self.open_slots(self.batch_size)

    def return_slots(self, slots: Slots) -> None:
        """Keep slots for the next stream, unless they are too large by now."""
        if slots.batch_size == self.batch_size:
            self._idle = slots

    def shrink(self, batch_size: int) -> None:
        """Halve the batch size, `batch_size` having been too much for the GPU."""
        self._idle = None
        self.batch_size = min(self.batch_size, batch_size // 2)
        log.warning(
            "%s has no memory for %d photos at once; going on with %d.", self.device, batch_size, self.batch_size
        )

    def too_small(self, error: torch.OutOfMemoryError) -> OptionError:
        """Return the error for a GPU that has no memory for one picture."""
        spec = self.embedder.spec
        free, total = (amount >> 20 for amount in self.memory())
        reason = first_line(error).partition(". ")[0]
        return OptionError(
            f"{self.device} has {free:,} of {total:,} MB free, too little for even one photo of {spec.size} x "
            f"{spec.size} pixels with {spec.model} {spec.layer} in {self.precision} ({reason}). Close what else "
            "uses the GPU, or use --device cpu."
        )

    def memory(self) -> tuple[int, int]:
        """Return the GPU's free and total memory in bytes."""
        return torch.cuda.mem_get_info(self.torch_device)
