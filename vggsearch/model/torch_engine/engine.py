"""The reference backend: torch on a CPU, a CUDA GPU or Apple's MPS."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggsearch.defaults import EXTRACT
from vggsearch.errors import OptionError, option
from vggsearch.model.engine import Description, Engine, EngineOptions, no_int8_in_torch, rate
from vggsearch.model.layers import has_cells, modules_before_cells
from vggsearch.model.local_features import LEVELS, LoadKernels, find_whitening, half_size, local_cells, no_cells
from vggsearch.model.networks import network
from vggsearch.model.poolings import embedding
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.network import TruncatedNetwork
from vggsearch.model.torch_engine.operations import TorchOperations
from vggsearch.model.views import embedding_of_views, shrinking
from vggsearch.model.weights import Kernel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.float16}  # outside fp8


class Embedder:
    """Pixels to embeddings, both on one device, with no synchronisation in between.

    A truncated network in channels-last layout; pooling and L2 are in float32 at every precision.
    """

    def __init__(
        self, spec: EmbeddingSpec, kernels: dict[str, Kernel], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec = spec
        truncated = TruncatedNetwork(spec.model, spec.layer, kernels)
        self.network = truncated.to(device, dtype).to(memory_format=torch.channels_last)
        self._dtype = dtype
        trained = network(spec.model)
        self._mean = torch.tensor(trained.mean, device=device).view(1, 3, 1, 1) * 255
        self._scale = 1 / (torch.tensor(trained.std, device=device).view(1, 3, 1, 1) * 255)
        self._matrices = {size: torch.from_numpy(shrinking(spec.size, size)).to(device) for size in spec.sizes[:-1]}

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the embeddings of RGB pixels, uint8 (n, size, size, 3): float32 (n, dim), rows of unit length."""
        return self.of_views(to_images(pixels), self._embed_view)

    def of_views(self, images: Tensor, embed_view: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the embeddings of images (n, 3, size, size): the mean of `embed_view` over all views.

        Images are in 0..255, uint8 or float32.
        """
        embeddings: Tensor = embedding_of_views(images, self.spec, self._matrices, embed_view, TorchOperations())
        return embeddings

    def pooled(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the embeddings of one view from the outputs of its layers, by name."""
        layers = [outputs[part].float() for part in self.network.wanted]
        embeddings: Tensor = embedding(layers, self.spec.layer, self.spec.pooling, TorchOperations())
        return embeddings

    def normalised(self, view: Tensor) -> Tensor:
        """Return the network's input for images of one size, (n, 3, size, size) in 0..255, uint8 or float32."""
        return normalised(view, self._mean, self._scale, self._dtype)

    def outputs(self, view: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the outputs of the `wanted` modules for images of one size, as TruncatedNetwork.outputs does."""
        return self.network.outputs(self.normalised(view), wanted)

    def _embed_view(self, view: Tensor) -> Tensor:
        return self.pooled(self.outputs(view, self.network.wanted))


def normalised(images: Tensor, mean: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (images - mean) * scale, computed in float32, as `dtype` and channels-last."""
    return ((images - mean) * scale).to(dtype, memory_format=torch.channels_last)


def to_images(pixels: Tensor) -> Tensor:
    """Return pixels (n, size, size, 3) as images (n, 3, size, size), the same in memory."""
    return pixels.permute(0, 3, 1, 2)


class TorchEngine(Engine):
    """An Embedder on the device of `options`, or on `device` if it is given.

    `load_kernels` loads the kernels for local features in case `kernels` end before them.
    """

    name = "torch"

    def __init__(
        self,
        spec: EmbeddingSpec,
        kernels: dict[str, Kernel],
        options: EngineOptions,
        device: torch.device | None = None,
        load_kernels: LoadKernels | None = None,
    ) -> None:
        self._load_kernels = load_kernels
        self._extending = Lock()
        self.torch_device = device or torch.device(choose_device(options.device))
        self.precision = choose_precision(options.precision, self.torch_device.type)
        self._dtype = DTYPES[self.precision]
        self.embedder = self._embedder(spec, kernels)
        self.network = self.embedder.network
        usual = {"cuda": EXTRACT.gpu_batch_size, "mps": EXTRACT.mps_batch_size}
        self.batch_size = options.batch_size or usual.get(self.torch_device.type, EXTRACT.batch_size)

    def _embedder(self, spec: EmbeddingSpec, kernels: dict[str, Kernel]) -> Embedder:
        return Embedder(spec, kernels, self.torch_device, self._dtype)

    @property
    def device(self) -> str:
        """See Engine.device."""
        return device_description(self.torch_device)

    @torch.inference_mode()
    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.embed."""
        embeddings = self.embedder(torch.from_numpy(squares).to(self.torch_device))
        result: NDArray[np.float32] = embeddings.cpu().numpy()
        return result

    @torch.inference_mode()
    def describe(self, squares: NDArray[np.uint8], levels: int = 2) -> Description:
        """See Engine.describe."""
        embedder, spec = self.embedder, self.embedder.spec
        if not has_cells(spec.model):
            return Description(self.embed(squares), no_cells(len(squares), spec.size, levels))
        extended = self._network_with_cells()
        last, on = modules_before_cells(spec.model)[-1].name, TorchOperations()
        images = to_images(torch.from_numpy(squares).to(self.torch_device))
        half = [embedder.outputs(on.shrink(images, self._halving), [last])[last]] if levels == LEVELS else []
        maps: list[Tensor] = []

        def embed_view(view: Tensor) -> Tensor:
            outputs = embedder.outputs(view, {*extended.wanted, last})
            if view is images:
                maps.append(outputs[last])
            return embedder.pooled(outputs)

        embeddings = embedder.of_views(images, embed_view)
        whitening = find_whitening(spec.weights_sha256)
        cells = tuple(local_cells(each.float(), whitening, on).contiguous().cpu().numpy() for each in maps + half)
        return Description(embeddings.cpu().numpy(), cells)

    @cached_property
    def _halving(self) -> Tensor:
        """The matrix that downscales an image to half its size."""
        size = self.embedder.spec.size
        return torch.from_numpy(shrinking(size, half_size(size))).to(self.torch_device)

    def _network_with_cells(self) -> TruncatedNetwork:
        """Return the network, extended to the module with the cells if it ends earlier."""
        modules = modules_before_cells(self.embedder.spec.model)
        with self._extending:
            if modules[-1].name not in self.network.steps and self._load_kernels is not None:
                self.network.extend(modules, self._load_kernels())
        return self.network

    @torch.inference_mode()
    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s."""
        batch, channels, side = 8, 512, 28
        convolution = torch.nn.Conv2d(channels, channels, 3, padding=1, device=self.torch_device, dtype=self._dtype)
        convolution = convolution.to(memory_format=torch.channels_last)
        maps = torch.ones(batch, channels, side, side, device=self.torch_device, dtype=self._dtype)
        maps = maps.contiguous(memory_format=torch.channels_last)
        return batch * channels**2 * 9 * side**2 * rate(lambda: convolution(maps)[0, 0, 0, 0].item(), seconds)

    def normalised(self, squares: NDArray[np.uint8]) -> Tensor:
        """Copy RGB pixels to the device as uint8; return the network's input, (n, 3, size, size)."""
        return self.embedder.normalised(to_images(torch.from_numpy(squares).to(self.torch_device)))


def device_description(device: torch.device) -> str:
    """Return the device as shown to the user: its name, or its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def choose_device(wanted: str) -> str:
    """Return the device: the wanted one, or the fastest available. Raises OptionError if it is missing."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[wanted]:
        available = ", ".join(device for device, is_present in present.items() if is_present)
        raise OptionError(f"torch finds no {wanted} device, only {available}. Use ", option("device", "auto"), ".")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """Return the number format: the wanted one, or the fastest that leaves results unchanged.

    Raises OptionError for int8, which is not supported, and for fp8 on other devices than CUDA.
    """
    if wanted == "int8":
        raise no_int8_in_torch()
    if wanted == "fp8" and device != "cuda":
        raise OptionError(f"fp8 needs a CUDA GPU, not {device}. Use ", option("precision", "auto"), ".")
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "fp16"
    return "bf16" if device == "cpu" and has_fast_bfloat16() else "fp32"


def has_fast_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16 (AVX512-BF16 or AMX).

    Without them bfloat16 is slower than float32. torch has no public function for this, so its private ones are
    called; if they are missing, float32 is used.
    """
    functions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in functions)
