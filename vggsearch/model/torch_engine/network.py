"""The truncated VGG in torch: convolutions, ReLU and pooling up to the deepest layer that is needed."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from vggsearch.model.layers import needed_modules, parts
from vggsearch.model.vgg import CONNECTED_SIDE, Module
from vggsearch.model.weights import Kernel


class TruncatedVGG(nn.Module):
    """A VGG that ends at the deepest layer of a sum, or later after `extend`.

    Its input is normalised pixels (n, 3, size, size), its output maps (n, c, h, w) or, for fc6 and fc7,
    (n, windows, 4096), in the order of the sum. All outputs come after a ReLU, so they are >= 0.
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
        added = nn.ModuleDict({module.name: _step(module, kernels.get(module.name)) for module in missing})
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


def _step(module: Module, kernel: Kernel | None) -> nn.Module:
    if kernel is None:
        return nn.MaxPool2d(2, 2)
    with torch.device("meta"):  # neither memory nor random values for weights that are replaced below
        layer: nn.Conv2d | nn.Linear
        if module.kind == "conv":
            layer = nn.Conv2d(module.inputs, module.outputs, module.kernel, padding=1)
        else:
            layer = nn.Linear(module.inputs, module.outputs)
    layer.weight = nn.Parameter(torch.from_numpy(kernel.weight), requires_grad=False)
    layer.bias = nn.Parameter(torch.from_numpy(kernel.bias), requires_grad=False)
    # In-place ReLU is safe: a kept output is that of a pooling, or of this very module.
    return nn.Sequential(layer, nn.ReLU(inplace=True))
