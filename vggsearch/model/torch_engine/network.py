"""The truncated network in torch: its modules up to the deepest layer that is needed."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vggsearch.model.layers import needed_modules, parts
from vggsearch.model.modules import PARALLEL, Module
from vggsearch.model.vgg import CONNECTED_SIDE
from vggsearch.model.weights import Kernel


class TruncatedNetwork(nn.Module):
    """A network that ends at the deepest layer of a sum, or later after `extend`.

    Its input is normalised pixels (n, 3, size, size), its output maps (n, c, h, w) or vectors (n, windows, c), in
    the order of the sum. All outputs come after a ReLU, so they are >= 0.
    """

    def __init__(self, model: str, layer: str, kernels: Mapping[str, Kernel]) -> None:
        super().__init__()
        self.wanted = parts(layer)
        self.steps = nn.ModuleDict()
        self.extend(needed_modules(model, layer), kernels)

    def extend(self, modules: Sequence[Module], kernels: Mapping[str, Kernel]) -> None:
        """Add the modules that are missing, on the device and in the format of the others.

        Threads that run the network meanwhile go on with the modules they began with.
        """
        missing = [module for module in modules if module.name not in self.steps]
        added = nn.ModuleDict({module.name: _step(module, kernels) for module in missing})
        placed = next(self.parameters(), None)
        if placed is not None:
            added.to(placed.device, placed.dtype).to(memory_format=torch.channels_last)
        self.steps = nn.ModuleDict({**self.steps, **added}).eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the outputs of the layers in the sum, in its order."""
        outputs = self.outputs(pixels, self.wanted)
        return [outputs[name] for name in self.wanted]

    def outputs(
        self,
        pixels: Tensor,
        wanted: Collection[str],
        run: Callable[[nn.Module, Tensor], Tensor] = nn.Module.__call__,
    ) -> dict[str, Tensor]:
        """Return the outputs of the `wanted` modules, by name. Modules after the last of them do not run.

        `run` returns the output of one module for its input.
        """
        kept: dict[str, Tensor] = {}
        x = pixels
        for name, step in self.steps.items():
            if name == "fc6":
                x = windows(x)
            x = run(step, x)
            if name in wanted:
                kept[name] = x
            if len(kept) == len(wanted):
                break
        return kept


def windows(maps: Tensor) -> Tensor:
    """Return the windows of pool5 for fc6, (n, windows, values), each in (channel, row, column) order."""
    cut = maps.unfold(2, CONNECTED_SIDE, 1).unfold(3, CONNECTED_SIDE, 1)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


class Branches(nn.Module):
    """Sequences of modules that get the same input: the ReLU of the sum of their outputs, or all outputs."""

    def __init__(self, branches: Sequence[nn.Sequential], *, is_sum: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.is_sum = is_sum

    def forward(self, maps: Tensor) -> Tensor:
        """Return the sum (n, c, h, w), or the outputs one after another along the channels."""
        first, *others = [branch(maps) for branch in self.branches]
        if not self.is_sum:
            return torch.cat([first, *others], dim=1) if others else first
        for other in others:
            first = first + other
        return relu(first)


class MeanOverSpace(nn.Module):
    """The mean of a map over height and width, as the only window: (n, c, h, w) to (n, 1, c)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the mean."""
        return maps.mean((2, 3)).unsqueeze(1)


def _step(module: Module, kernels: Mapping[str, Kernel]) -> nn.Module:
    if module.kind in PARALLEL:
        branches = [nn.Sequential(*(_step(inner, kernels) for inner in branch)) for branch in module.branches]
        return Branches(branches, is_sum=module.kind == "sum")
    if module.kind == "pool":
        return nn.MaxPool2d(module.kernel, module.stride, module.padding, ceil_mode=module.is_ceil)
    return MeanOverSpace() if module.kind == "mean" else _weighted(module, kernels[module.name])


def _weighted(module: Module, kernel: Kernel) -> nn.Sequential:
    with torch.device("meta"):  # neither memory nor random values for weights that are replaced below
        layer: nn.Conv2d | nn.Linear
        if module.kind == "conv":
            layer = nn.Conv2d(module.inputs, module.outputs, module.kernel, module.stride, module.padding)
        else:
            layer = nn.Linear(module.inputs, module.outputs)
    layer.weight = nn.Parameter(torch.from_numpy(kernel.weight), requires_grad=False)
    layer.bias = nn.Parameter(torch.from_numpy(kernel.bias), requires_grad=False)
    # In-place ReLU is safe: a kept output is that of a pooling, or of this very module.
    return nn.Sequential(layer, nn.ReLU(inplace=True)) if module.has_relu else nn.Sequential(layer)
