"""ResNets as tables: He, Zhang, Ren & Sun, "Deep residual learning for image recognition", CVPR 2016, Table 1.

ResNet-50 halves the map in the 3 x 3 convolution of a block, as torchvision does ("v1.5"), not in the first one.
"""

from vggsearch.model.modules import Module

WIDTHS = (64, 128, 256, 512)  # of the 3 x 3 convolutions of the four stages
STEM = 64  # channels of the first convolution
CLASSES = 1000


def resnet(depths: tuple[int, ...], *, expansion: int) -> tuple[Module, ...]:
    """Return all modules, with so many blocks in each stage.

    With `expansion` 1, a block is two 3 x 3 convolutions; otherwise a 3 x 3 convolution between two of 1 x 1, the
    last of which has `expansion` times the channels.
    """
    first = Module("conv1", "conv", 3, STEM, 7, "conv1", "bn1", stride=2, padding=3, has_bias=False)
    steps = [first, Module("maxpool", "pool", STEM, STEM, 3, stride=2, padding=1)]
    channels = STEM
    for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), start=1):
        name, outputs = f"layer{stage}", width * expansion
        blocks = []
        for number in range(depth):
            stride = 2 if number == 0 and stage > 1 else 1
            blocks.append(_block(f"{name}.{number}", channels, width, outputs, stride))
            channels = outputs
        steps.append(Module(name, "concat", blocks[0].inputs, channels, branches=(tuple(blocks),)))
    steps.append(Module("avgpool", "mean", channels, channels))
    return (*steps, Module("fc", "linear", channels, CLASSES, 1, "fc", has_relu=False))


def _block(name: str, inputs: int, width: int, outputs: int, stride: int) -> Module:
    changes: tuple[Module, ...]
    if outputs == width:
        changes = (_conv(name, 1, inputs, width, 3, stride), _conv(name, 2, width, width, 3, has_relu=False))
    else:
        changes = (
            _conv(name, 1, inputs, width, 1),
            _conv(name, 2, width, width, 3, stride),
            _conv(name, 3, width, outputs, 1, has_relu=False),
        )
    shortcut: tuple[Module, ...] = ()
    if stride > 1 or inputs != outputs:
        key = f"{name}.downsample"
        keys = (f"{key}.0", f"{key}.1")
        shortcut = (Module(key, "conv", inputs, outputs, 1, *keys, stride, has_bias=False, has_relu=False),)
    return Module(name, "sum", inputs, outputs, branches=(changes, shortcut))


def _conv(
    block: str, number: int, inputs: int, outputs: int, kernel: int, stride: int = 1, *, has_relu: bool = True
) -> Module:
    return Module(
        f"{block}.conv{number}",
        "conv",
        inputs,
        outputs,
        kernel,
        key=f"{block}.conv{number}",
        norm_key=f"{block}.bn{number}",
        stride=stride,
        padding=kernel // 2,
        has_bias=False,
        has_relu=has_relu,
    )
