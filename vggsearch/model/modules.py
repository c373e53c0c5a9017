"""The modules that networks consist of: the tensors, the cost and the receptive field of each.

Nothing here loads weights or a backend. Tensor names are those of torchvision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["conv", "pool", "mean", "linear", "sum", "concat"]
PARALLEL = ("sum", "concat")  # kinds of a module whose branches all get its input


@dataclass(frozen=True)
class Module:
    """One module of a network, which follows the one before it.

    `kind` is a convolution, a max pooling, the mean over the map, a linear module; or the sum, followed by a ReLU,
    or the concatenation of what the `branches` make of the input. A branch is a sequence of modules; an empty one
    passes its input on. `kernel` is the side of the kernel, in cells of the input. A map is padded by `padding`
    cells on each side; `is_ceil` keeps the incomplete window at the end of a pooling. `has_relu` says whether a
    ReLU follows a convolution or a linear module.

    `key` is the prefix of its tensors in torchvision's files, `norm_key` that of the batch normalisation after it
    ("" without one).
    """

    name: str
    kind: Kind
    inputs: int
    outputs: int
    kernel: int = 1
    key: str = ""
    norm_key: str = ""
    stride: int = 1
    padding: int = 0
    is_ceil: bool = False
    has_bias: bool = True
    has_relu: bool = True
    branches: tuple[tuple["Module", ...], ...] = ()

    @property
    def weighted(self) -> tuple["Module", ...]:
        """The modules with weights: this one, or those of the branches, in order."""
        if self.kind in ("conv", "linear"):
            return (self,)
        return tuple(inner for branch in self.branches for module in branch for inner in module.weighted)

    @property
    def depth(self) -> int:
        """The number of modules with weights that follow each other, in the branch with the most."""
        if self.kind in PARALLEL:
            return max(sum(module.depth for module in branch) for branch in self.branches)
        return len(self.weighted)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of this module, by its name in torchvision's files."""
        return {key: shape for module in self.weighted for key, shape in module._own_shapes().items()}

    def _own_shapes(self) -> dict[str, tuple[int, ...]]:
        side = (self.kernel, self.kernel) if self.kind == "conv" else ()
        shapes: dict[str, tuple[int, ...]] = {f"{self.key}.weight": (self.outputs, self.inputs, *side)}
        if self.has_bias:
            shapes[f"{self.key}.bias"] = (self.outputs,)
        if self.norm_key:
            names = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{self.norm_key}.{name}": (self.outputs,) for name in names}
        return shapes

    @property
    def parameters(self) -> int:
        """The number of trainable parameters: weights, biases, and two per channel of a batch normalisation."""
        return sum(module._own_parameters() for module in self.weighted)

    def _own_parameters(self) -> int:
        norm = 2 * self.outputs if self.norm_key else 0
        size = self.kernel**2 if self.kind == "conv" else 1
        return self.outputs * self.inputs * size + (self.outputs if self.has_bias else 0) + norm


@dataclass(frozen=True)
class ModuleReport:
    """Output shape and cost of one module, for an input of a given size.

    `shape` is its output, (channels, height, width), or (dimensions,) of a vector.
    `multiply_adds` are those of one photo.
    `receptive_field` is the side of the receptive field of one output, in input pixels, were the input larger.
    """

    module: Module
    shape: tuple[int, ...]
    multiply_adds: int
    receptive_field: int


@dataclass(frozen=True)
class _Map:
    """A feature map: cells a side, receptive field and distance of its cells in input pixels, work up to here."""

    side: int
    field: int = 1
    jump: int = 1
    work: int = 0


def describe_modules(modules: Sequence[Module], size: int) -> Iterator[ModuleReport]:
    """Yield output shape and cost of each module for an input of `size` x `size` pixels."""
    at = _Map(size)
    for module in modules:
        after = _after(module, at)
        is_vector = module.kind in ("mean", "linear") and after.side == 1
        shape = (module.outputs,) if is_vector else (module.outputs, after.side, after.side)
        yield ModuleReport(module, shape, after.work - at.work, after.field)
        at = after


def _after(module: Module, at: _Map) -> _Map:
    """Return the map that a module makes of another.

    Branches add their work, and the output sees what the branch with the largest receptive field sees.
    """
    if module.kind in PARALLEL:
        ends = [_after_all(branch, at) for branch in module.branches]
        work = at.work + sum(end.work - at.work for end in ends)
        return replace(ends[0], field=max(end.field for end in ends), work=work)
    kernel = at.side if module.kind == "mean" else module.kernel
    field = at.field + (kernel - 1) * at.jump
    if module.kind == "mean":
        return replace(at, side=1, field=field)
    side = _side(module, at.side)
    cost = 0 if module.kind == "pool" else module.inputs * module.outputs * side**2
    return _Map(
        side, field, at.jump * module.stride, at.work + cost * (module.kernel**2 if module.kind == "conv" else 1)
    )


def _after_all(modules: Sequence[Module], at: _Map) -> _Map:
    for module in modules:
        at = _after(module, at)
    return at


def _side(module: Module, side: int) -> int:
    """Return the cells a side of the output; fc6 has one for each window, and one for a map smaller than that."""
    if module.kind == "linear":
        return max(1, side - module.kernel + 1)
    room = side + 2 * module.padding - module.kernel
    return -(-room // module.stride) + 1 if module.is_ceil else room // module.stride + 1
