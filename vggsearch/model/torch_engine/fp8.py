"""The network with its deeper convolutions in fp8 (e4m3: 4 bits of exponent, 3 of mantissa), from Hopper GPUs on.

Weights have a scale per output channel, activations one per layer, from their ranges. Micikevicius et al., "FP8
formats for deep learning", 2022.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vggsearch.errors import OptionError, option
from vggsearch.model.networks import modules
from vggsearch.model.ranges import activation_ranges
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.fused import Calls, FusedEmbedder, fastest_calls
from vggsearch.model.weights import Kernel

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # number in fp8
# The module after which maps are in fp8. From conv2_1 on, cosines to float32 fall to 0.987 for pictures of few
# colours, where all cells of a map are rounded alike.
LAST_IN_HALF = "pool2"
HEADROOM = 4.0  # times the range; a floating-point number loses nothing by it
LEAST_CAPABILITY = (9, 0)  # Hopper; Ada computes in fp8 too, but lacks the shared memory that the kernel takes


@dataclass(frozen=True)
class Fp8Calls:
    """The calls of triton_kernels that compute in fp8."""

    max_pool: Callable[[Tensor, torch.dtype, float], Tensor]
    convolve: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Fp8Convolution:
    """Arguments of triton_kernels.convolve_fp8 for one layer, whose input and output are in units of two scales."""

    weight: Tensor
    factor: Tensor
    bias: Tensor


class Fp8Embedder(FusedEmbedder):
    """A FusedEmbedder in float16 whose maps are in fp8 from pool2 on. `ranges` are those of activation_ranges."""

    def __init__(
        self,
        spec: EmbeddingSpec,
        kernels: dict[str, Kernel],
        device: torch.device,
        dtype: torch.dtype,
        calls: Calls,
        fp8_calls: Fp8Calls,
        ranges: dict[str, float],
    ) -> None:
        super().__init__(spec, kernels, device, dtype, calls)
        self._fp8_calls = fp8_calls
        self._scales = scales(spec.model, ranges)
        self._convolutions: dict[str, Fp8Convolution] = {}

    def _outputs(self, images: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        outputs = super()._outputs(images, wanted)
        return {
            name: maps.to(self._dtype) * self._scales[name] if maps.dtype == FP8 else maps
            for name, maps in outputs.items()
        }

    def _run(self, step: nn.Module, x: Tensor) -> Tensor:
        name = next(name for name, other in self.network.steps.items() if other is step)
        if name == LAST_IN_HALF:
            return self._fp8_calls.max_pool(x, FP8, 1 / self._scales[name])
        if x.dtype != FP8 or isinstance(step, nn.MaxPool2d):
            return super()._run(step, x)
        layer = self._convolution(name, next(step.children()))
        return self._fp8_calls.convolve(x, layer.weight, layer.factor, layer.bias)

    def _convolution(self, name: str, layer: nn.Module) -> Fp8Convolution:
        if name not in self._convolutions:
            weight, bias = (values.float() for values in layer.parameters())
            names = list(self._scales)
            scale_in, scale_out = self._scales[names[names.index(name) - 1]], self._scales[name]
            self._convolutions[name] = quantised(weight, bias, scale_in, scale_out)
        return self._convolutions[name]


def scales(model: str, ranges: dict[str, float]) -> dict[str, float]:
    """Return the value of 1 in the fp8 maps of each module, in their order."""
    found: dict[str, float] = {}
    scale = 1.0
    for module in modules(model):
        scale = HEADROOM * ranges[module.name] / LARGEST if module.name in ranges else scale
        found[module.name] = scale
    return found


def quantised(weight: Tensor, bias: Tensor, scale_in: float, scale_out: float) -> Fp8Convolution:
    """Return a convolution, weight (outputs, channels, 3, 3) and bias in float32, in fp8."""
    unit = weight.abs().amax((1, 2, 3)).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
    rounded = (weight / unit[:, None, None, None]).permute(0, 2, 3, 1).contiguous().to(FP8)
    return Fp8Convolution(rounded, unit * scale_in / scale_out, bias / scale_out)


def fp8_embedder(spec: EmbeddingSpec, kernels: dict[str, Kernel], gpu: torch.device) -> Fp8Embedder:
    """Return an Fp8Embedder on a GPU. Raises OptionError if the GPU, Triton or the weights do not support it."""
    ranges = activation_ranges(spec, "fp8")
    if torch.cuda.get_device_capability(gpu) < LEAST_CAPABILITY:
        raise unsupported(torch.cuda.get_device_name(gpu), "it needs a Hopper GPU or later")
    try:
        from vggsearch.model.torch_engine import triton_kernels
    except ImportError as error:
        raise unsupported("this PyTorch", str(error)) from error
    try:
        triton_kernels.compile_fp8(gpu)
    except triton_kernels.CANNOT_COMPILE as error:
        raise unsupported(torch.cuda.get_device_name(gpu), str(error)) from error
    calls = fastest_calls(gpu, torch.float16)
    fp8_calls = Fp8Calls(triton_kernels.max_pool, triton_kernels.convolve_fp8)
    return Fp8Embedder(spec, kernels, gpu, torch.float16, calls, fp8_calls, ranges)


def unsupported(what: str, reason: str) -> OptionError:
    """Return the error for fp8 where it does not work."""
    return OptionError(f"{what} does not support fp8 ({reason}). Use ", option("precision", "auto"), ".")
