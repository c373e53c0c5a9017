"""The network on a CUDA GPU in half precision, with as few passes over memory as possible.

With the plain modules, each convolution writes its maps three times: without bias, with it, and after the ReLU.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from vggsearch.model.modules import Module
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.engine import Embedder, normalised
from vggsearch.model.vgg import WIDTHS
from vggsearch.model.weights import Kernel

COLOURS = 3
HALF = (torch.float16, torch.bfloat16)
LEAST_CAPABILITY = (8, 0)  # Ampere: tensor cores for both formats, and the oldest that Triton supports
MOST_VALUES = 2**31 - 1  # in a map; beyond, offsets of 32 bits overflow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calls:
    """The calls that a network consists of. Maps and weights are channels-last and of one dtype.

    `first_layer` takes images as Embedder.outputs does, their mean and scale, weight and bias, and returns the maps
    of the first convolution; `convolve` takes maps, weight and bias. Both include the ReLU. `max_pool` takes maps
    and halves their height and width.
    """

    first_layer: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    convolve: Callable[[Tensor, Tensor, Tensor], Tensor]
    max_pool: Callable[[Tensor], Tensor]


class FusedEmbedder(Embedder):
    """An Embedder that runs convolutions and poolings by `calls`, by default the fastest ones.

    Those are compiled when they are first needed. The modules of its network hold the weights; linear ones run as
    they are. A batch is divided where the first maps would have more than `most_values` values.
    """

    def __init__(
        self,
        spec: EmbeddingSpec,
        kernels: dict[str, Kernel],
        device: torch.device,
        dtype: torch.dtype,
        calls: Calls | None = None,
        most_values: int = MOST_VALUES,
    ) -> None:
        super().__init__(spec, kernels, device, dtype)
        self._device, self._given, self._most_values = device, calls, most_values

    @cached_property
    def calls(self) -> Calls:
        """What the network consists of."""
        return self._given or fastest_calls(self._device, self._dtype)

    def outputs(self, view: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """See Embedder.outputs."""
        most = self._most_values // (WIDTHS[0] * view.shape[2] * view.shape[3])
        parts = [self._outputs(images, wanted) for images in torch.split(view, most)]
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _outputs(self, images: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        return self.network.outputs(images, wanted, self._run)

    def _run(self, step: nn.Module, x: Tensor) -> Tensor:
        if isinstance(step, nn.MaxPool2d):
            return self.calls.max_pool(x)
        layer = next(step.children())
        if not isinstance(layer, nn.Conv2d) or layer.bias is None:
            return nn.Module.__call__(step, x)  # type: ignore[no-any-return]
        if layer.in_channels == COLOURS:
            return self.calls.first_layer(x, self._mean, self._scale, layer.weight, layer.bias)
        return self.calls.convolve(x, layer.weight, layer.bias)


def can_fuse(device: torch.device, dtype: torch.dtype, modules: Sequence[Module]) -> bool:
    """Return whether the calls of `fastest_calls` support this device, number format and network."""
    if device.type != "cuda" or torch.version.cuda is None:  # None in builds for AMD
        return False
    if not all(map(is_of_calls, modules)):
        return False
    return dtype in HALF and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


def is_of_calls(module: Module) -> bool:
    """Return whether a module is one that Calls computes, or a linear one."""
    if module.kind == "conv":
        return (module.kernel, module.stride, module.padding, module.has_relu) == (3, 1, 1, True)
    return module.kind == "linear" or (
        module.kind == "pool" and (module.kernel, module.stride, module.is_ceil) == (2, 2, False)
    )


def fastest_calls(device: torch.device, dtype: torch.dtype) -> Calls:
    """Return the calls for a GPU that `can_fuse`: kernels in Triton if it works here, otherwise torch's."""
    try:
        from vggsearch.model.torch_engine import triton_kernels
    except ImportError:  # there is no Triton for Windows
        return Calls(first_layer, convolve, halve)
    try:
        triton_kernels.compile_for(device, dtype)
    except triton_kernels.CANNOT_COMPILE as error:
        log.warning("Triton compiles no kernels here, so the network is slower: %s", error)
        return Calls(first_layer, convolve, halve)
    return Calls(triton_kernels.first_layer, convolve, triton_kernels.max_pool)


def convolve(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ReLU(convolution of 3 x 3 + bias) in one call of cuDNN."""
    result: Tensor = torch.cudnn_convolution_relu(maps, weight, bias, (1, 1), (1, 1), (1, 1), 1)
    return result


def first_layer(images: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the maps of the first convolution of normalised images."""
    return convolve(normalised(images, mean, scale, weight.dtype), weight, bias)


def halve(maps: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 square."""
    return max_pool2d(maps, 2, 2)
