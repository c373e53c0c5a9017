"""The VGG networks as tables: configurations A, B, D and E of Simonyan & Zisserman (2014), Table 1.

And networks made from them by benchmarks/decompose.py: Zhang, Zou, He & Sun, "Accelerating very deep convolutional
networks for classification and detection", 2015.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vggsearch.model.modules import Module

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
# Of vgg16_half: outputs of convolutions, and ranks of others. Of the choices that take a CPU with AMX 1/1.75 of the
# time of VGG16 or less, this one lost least in closed form. There, most time goes into writing maps, so narrow
# layers beat ranks up to conv3_1, and a rank saves little in conv5.
HALF_WIDTHS = {"conv1_1": 32, "conv1_2": 32, "conv2_1": 64, "conv3_1": 128}
HALF_RANKS = {"conv3_2": 128, "conv3_3": 128, "conv4_1": 192, "conv4_2": 192, "conv4_3": 192, "conv5_1": 384}


def vgg(depths: tuple[int, ...], *, with_norm: bool) -> tuple[Module, ...]:
    """Return all modules in order, from conv1_1 to fc8, with so many convolutions in each block."""
    steps: list[Module] = []
    channels, position = 3, 0
    for block, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), start=1):
        for number in range(1, depth + 1):
            norm_key = f"features.{position + 1}" if with_norm else ""
            name = f"conv{block}_{number}"
            steps.append(Module(name, "conv", channels, width, 3, f"features.{position}", norm_key, padding=1))
            channels = width
            position += 3 if with_norm else 2  # conv, (norm,) ReLU
        steps.append(Module(f"pool{block}", "pool", channels, channels, 2, stride=2))
        position += 1
    steps.append(Module("fc6", "linear", channels * CONNECTED_SIDE**2, 4096, CONNECTED_SIDE, "classifier.0"))
    steps.append(Module("fc7", "linear", 4096, 4096, 1, "classifier.3"))
    steps.append(Module("fc8", "linear", 4096, CLASSES, 1, "classifier.6", has_relu=False))
    return tuple(steps)


def decomposed(steps: Sequence[Module], ranks: Mapping[str, int], widths: Mapping[str, int]) -> tuple[Module, ...]:
    """Return the modules up to the last pooling, with each convolution in `ranks` replaced by two.

    Those in `widths` have so many outputs.

    convN_Ma is the convolution with as many outputs as its rank, without a ReLU, and convN_Mb one of 1 x 1. Tensors
    are named as in a torch.nn.Sequential of all modules and ReLUs.
    """
    found: list[Module] = []
    position, channels = 0, steps[0].inputs
    for original in steps:
        if original.kind == "linear":
            break
        width = widths.get(original.name, original.outputs) if original.kind == "conv" else channels
        step = replace(original, inputs=channels, outputs=width)
        channels = width
        rank = ranks.get(step.name)
        if rank is not None:
            key = f"features.{position}"
            found.append(replace(step, name=f"{step.name}a", outputs=rank, key=key, has_relu=False))
            step = replace(step, name=f"{step.name}b", inputs=rank, kernel=1, padding=0)
            position += 1
        found.append(replace(step, key=f"features.{position}") if step.kind == "conv" else step)
        position += 2 if step.kind == "conv" else 1
    return tuple(found)
