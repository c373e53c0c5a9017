"""The VGG networks as a table: configurations A, B, D and E of Simonyan & Zisserman (2014), Table 1.

Pure arithmetic; nothing here loads a weight or imports an engine. Weight names are torchvision's.
"""

from dataclasses import dataclass
from typing import Literal

from vggsearch.errors import OptionError

WIDTHS = (64, 128, 256, 512, 512)  # channels of the five blocks
CONNECTED_SIDE = 7  # cells of pool5 that fc6 sees; torchvision averages pool5 to it, which is the identity at 224
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
    """One step of the network. A ReLU follows every conv and every linear but the last.

    `key` is the prefix of its weights in torchvision's files ("" for pooling), `norm_key` that of the batch
    normalisation behind it ("" where there is none). `kernel` is its side in pixels of the map before it.
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
        """Shape of each weight this module needs, by its name in torchvision's files."""
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
        """Trainable numbers: weights and biases, and the two of a batch normalisation."""
        if self.kind == "pool":
            return 0
        norm = 2 * self.outputs if self.norm_key else 0
        size = self.kernel**2 if self.kind == "conv" else 1
        return self.outputs * self.inputs * size + self.outputs + norm


def modules(model: str) -> tuple[Module, ...]:
    """Return all steps of `model` in order, from conv1_1 to fc8. Raises OptionError for an unknown name."""
    if model not in MODELS:
        raise OptionError(f"There is no model {model!r}. Choose one of {', '.join(MODELS)}.")
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
    """What one step costs and sees, for an input of a given size.

    `shape` is its output, (channels, height, width), or (numbers,) of a linear step that sees one window.
    `multiply_adds` counts one photo.
    `receptive_field` is the side, in input pixels, of what one output sees.
    """

    module: Module
    shape: tuple[int, ...]
    multiply_adds: int
    receptive_field: int


def describe(model: str, size: int = 224) -> tuple[ModuleReport, ...]:
    """Return what each step of `model` costs and sees for a square input of `size` pixels."""
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
