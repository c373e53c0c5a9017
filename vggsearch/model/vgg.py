"""The VGG networks as a table: configurations A, B, D and E of Simonyan & Zisserman (2014), Table 1.

Nothing here loads weights or a backend. Tensor names are those of torchvision.
"""

from dataclasses import dataclass
from typing import Literal

from vggsearch.errors import OptionError

WIDTHS = (64, 128, 256, 512, 512)  # channels of the five blocks
CONNECTED_SIDE = (
    7  # cells of pool5 that fc6 covers, a side; torchvision averages pool5 to it: the identity at 224 pixels
)
CLASSES = 1000
DEPTHS = {  # convolutions in each of the five blocks, each followed by a max pooling
    "vgg11": (1, 1, 2, 2, 2),  # A
    "vgg13": (2, 2, 2, 2, 2),  # B
    "vgg16": (2, 2, 3, 3, 3),  # D
    "vgg19": (2, 2, 4, 4, 4),  # E
}
MODELS = tuple(name + norm for name in DEPTHS for norm in ("", "_bn"))


@dataclass(frozen=True)
class Module:
    """One module of the network. A ReLU follows each convolution and each linear module but the last.

    `key` is the prefix of its tensors in torchvision's files ("" for pooling), `norm_key` that of the batch
    normalisation after it ("" without one). `kernel` is the side of its kernel, in cells of its input.
    """

    name: str
    kind: Literal["conv", "pool", "linear"]
    inputs: int
    outputs: int
    kernel: int
    key: str = ""
    norm_key: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of this module, by its name in torchvision's files."""
        if self.kind == "pool":
            return {}
        if self.kind == "linear":
            weight: tuple[int, ...] = (self.outputs, self.inputs)
        else:
            weight = (self.outputs, self.inputs, self.kernel, self.kernel)
        shapes = {f"{self.key}.weight": weight, f"{self.key}.bias": (self.outputs,)}
        if self.norm_key:
            names = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{self.norm_key}.{name}": (self.outputs,) for name in names}
        return shapes

    @property
    def parameters(self) -> int:
        """The number of trainable parameters: weights, biases, and two per channel of a batch normalisation."""
        if self.kind == "pool":
            return 0
        norm = 2 * self.outputs if self.norm_key else 0
        size = self.kernel**2 if self.kind == "conv" else 1
        return self.outputs * self.inputs * size + self.outputs + norm


def modules(model: str) -> tuple[Module, ...]:
    """Return all modules of `model` in order, from conv1_1 to fc8. Raises OptionError for an unknown name."""
    if model not in MODELS:
        raise OptionError(f"Unknown model {model!r}. Choose one of {', '.join(MODELS)}.")
    depths = DEPTHS[model.removesuffix("_bn")]
    with_norm = model.endswith("_bn")
    steps: list[Module] = []
    channels, position = 3, 0
    for block, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), start=1):
        for number in range(1, depth + 1):
            norm_key = f"features.{position + 1}" if with_norm else ""
            name = f"conv{block}_{number}"
            steps.append(Module(name, "conv", channels, width, 3, f"features.{position}", norm_key))
            channels = width
            position += 3 if with_norm else 2  # conv, (norm,) ReLU
        steps.append(Module(f"pool{block}", "pool", channels, channels, 2))
        position += 1
    steps.append(Module("fc6", "linear", channels * CONNECTED_SIDE**2, 4096, CONNECTED_SIDE, "classifier.0"))
    steps.append(Module("fc7", "linear", 4096, 4096, 1, "classifier.3"))
    steps.append(Module("fc8", "linear", 4096, CLASSES, 1, "classifier.6"))
    return tuple(steps)


@dataclass(frozen=True)
class ModuleReport:
    """Output shape and cost of one module, for an input of a given size.

    `shape` is its output, (channels, height, width), or (dimensions,) of a linear module with one window.
    `multiply_adds` are those of one photo.
    `receptive_field` is the side of the receptive field of one output, in input pixels.
    """

    module: Module
    shape: tuple[int, ...]
    multiply_adds: int
    receptive_field: int


def describe(model: str, size: int = 224) -> tuple[ModuleReport, ...]:
    """Return output shape and cost of each module of `model` for an input of `size` x `size` pixels."""
    side, field, jump = size, 1, 1
    reports = []
    for module in modules(model):
        field += (module.kernel - 1) * jump
        if module.kind == "pool":
            side, jump = side // 2, jump * 2
        shape: tuple[int, ...] = (module.outputs, side, side)
        work = 0
        if module.kind == "linear":
            side = max(1, side - module.kernel + 1)
            shape = (module.outputs, side, side) if side > 1 else (module.outputs,)
            work = module.inputs * module.outputs * side**2
        elif module.kind == "conv":
            work = module.inputs * module.outputs * module.kernel**2 * side**2
        reports.append(ModuleReport(module, shape, work, field))
    return tuple(reports)
