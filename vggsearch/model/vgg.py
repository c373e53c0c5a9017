"""The VGG networks as tables: configurations A, B, D and E of Simonyan & Zisserman (2014), Table 1."""

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
