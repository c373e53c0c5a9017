"""GoogLeNet as a table: Szegedy et al., "Going deeper with convolutions", CVPR 2015, Table 1, as in torchvision.

torchvision's has batch normalisation, and convolutions of 3 x 3 in place of 5 x 5. The auxiliary classifiers, which
serve training only, are left out.
"""

from vggsearch.model.modules import Module

CLASSES = 1000
# Outputs of the 1 x 1 convolution; reduction to and outputs of the first 3 x 3; the same of the second,
# which is 5 x 5 in the paper; outputs after the pooling.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED_AFTER = {"3b": ("maxpool3", 3), "4e": ("maxpool4", 2)}  # the pooling, and its kernel


def googlenet() -> tuple[Module, ...]:
    """Return all modules."""
    steps = [
        _conv("conv1", 3, 64, 7, stride=2),
        _halving("maxpool1", 64, 3),
        _conv("conv2", 64, 64, 1),
        _conv("conv3", 64, 192, 3),
        _halving("maxpool2", 192, 3),
    ]
    for block, widths in INCEPTIONS.items():
        steps.append(_inception(f"inception{block}", steps[-1].outputs, *widths))
        if block in POOLED_AFTER:
            name, kernel = POOLED_AFTER[block]
            steps.append(_halving(name, steps[-1].outputs, kernel))
    channels = steps[-1].outputs
    steps.append(Module("avgpool", "mean", channels, channels))
    return (*steps, Module("fc", "linear", channels, CLASSES, 1, "fc", has_relu=False))


def _inception(
    name: str, inputs: int, single: int, reduced3: int, wide3: int, reduced5: int, wide5: int, pooled: int
) -> Module:
    branches = (
        (_conv(f"{name}.branch1", inputs, single, 1),),
        (_conv(f"{name}.branch2.0", inputs, reduced3, 1), _conv(f"{name}.branch2.1", reduced3, wide3, 3)),
        (_conv(f"{name}.branch3.0", inputs, reduced5, 1), _conv(f"{name}.branch3.1", reduced5, wide5, 3)),
        (
            Module(f"{name}.branch4.0", "pool", inputs, inputs, 3, padding=1),
            _conv(f"{name}.branch4.1", inputs, pooled, 1),
        ),
    )
    return Module(name, "concat", inputs, single + wide3 + wide5 + pooled, branches=branches)


def _conv(name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> Module:
    keys = (f"{name}.conv", f"{name}.bn")
    return Module(name, "conv", inputs, outputs, kernel, *keys, stride, padding=kernel // 2, has_bias=False)


def _halving(name: str, channels: int, kernel: int) -> Module:
    return Module(name, "pool", channels, channels, kernel, stride=2, is_ceil=True)
