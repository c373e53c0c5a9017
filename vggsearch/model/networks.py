"""The table of networks: what each consists of, the layers to choose from, and what its weights expect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

from vggsearch.defaults import EMBEDDING
from vggsearch.errors import OptionError
from vggsearch.model.googlenet import INCEPTIONS, googlenet
from vggsearch.model.modules import Module, ModuleReport, describe_modules
from vggsearch.model.resnet import resnet
from vggsearch.model.vgg import DEPTHS, HALF_RANKS, HALF_WIDTHS, decomposed, vgg

POOLS = ("pool1", "pool2", "pool3", "pool4", "pool5")
CONNECTED_LAYERS = ("fc6", "fc7")  # of VGG; they limit the input size
VECTOR_LAYERS = (*CONNECTED_LAYERS, "avgpool")  # their outputs are vectors already, with nothing to pool
STAGES = ("layer1", "layer2", "layer3", "layer4")  # of a ResNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # used in training: red, green and blue in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
MIDDLE = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Network:
    """One network.

    `layers` are those that an embedding can be made of, `layer` and `size` the default ones. `cells` is the module
    whose map local features are made of, "" if re-ranking does without, because nothing was measured with it.

    Pixels, in 0..1, are normalised by `mean` and `std`. `features` is the prefix of the first convolution in
    torchvision's files, `first` the rest of its name. `norm_epsilon` is that of the batch normalisation with which
    the weights were trained. `original` is the network that this one approximates, with the `ranks` and `widths`
    of its convolutions (vgg.decomposed).
    """

    build: Callable[[], tuple[Module, ...]]
    layers: tuple[str, ...]
    layer: str
    size: int
    cells: str = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    features: str = ""
    first: str = "conv1.weight"
    norm_epsilon: float = 1e-5  # torch.nn.BatchNorm2d's
    original: str = ""
    ranks: Mapping[str, int] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)


def _vgg(name: str, *, with_norm: bool) -> Network:
    depths = DEPTHS[name]
    return Network(
        partial(vgg, depths, with_norm=with_norm),
        layers=(*POOLS, *CONNECTED_LAYERS),
        layer=EMBEDDING.layer,
        size=EMBEDDING.map_size,
        cells=f"conv5_{depths[-1]}",
        features="features.",
        first="0.weight",
    )


def _decomposed(original: str, ranks: Mapping[str, int], widths: Mapping[str, int]) -> Network:
    row = _vgg(original, with_norm=False)
    return replace(
        row,
        build=lambda: decomposed(row.build(), ranks, widths),
        layers=tuple(
            pool
            for pool, (block, depth) in zip(POOLS, enumerate(DEPTHS[original], 1), strict=True)
            if f"conv{block}_{depth}" not in widths  # else the maps of this pool are not those of the original
        ),
        cells=f"{row.cells}b" if row.cells in ranks else row.cells,
        original=original,
        ranks=ranks,
        widths=widths,
    )


def _resnet(depths: tuple[int, ...], *, expansion: int) -> Network:
    return Network(
        partial(resnet, depths, expansion=expansion),
        layers=("maxpool", *STAGES, "avgpool"),
        layer=EMBEDDING.resnet_layer,
        size=EMBEDDING.trained_size,
    )


NETWORKS = {
    **{name + norm: _vgg(name, with_norm=bool(norm)) for name in DEPTHS for norm in ("", "_bn")},
    "vgg16_half": _decomposed("vgg16", HALF_RANKS, HALF_WIDTHS),
    "googlenet": Network(
        googlenet,
        layers=("maxpool1", "maxpool2", *(f"inception{block}" for block in INCEPTIONS), "avgpool"),
        layer=EMBEDDING.googlenet_layer,
        size=EMBEDDING.trained_size,
        mean=MIDDLE,  # the weights were converted from TensorFlow's
        std=MIDDLE,
        first="conv1.conv.weight",
        norm_epsilon=1e-3,
    ),
    "resnet18": _resnet((2, 2, 2, 2), expansion=1),
    "resnet50": _resnet((3, 4, 6, 3), expansion=4),
}
MODELS = tuple(NETWORKS)


def network(model: str) -> Network:
    """Return the row of `model`. Raises OptionError for an unknown name."""
    if model not in NETWORKS:
        raise OptionError(f"Unknown model {model!r}. Choose one of {', '.join(NETWORKS)}.")
    return NETWORKS[model]


@cache
def modules(model: str) -> tuple[Module, ...]:
    """Return all modules of `model`, from the first convolution to the classifier. Raises OptionError."""
    return network(model).build()


def describe(model: str, size: int = 224) -> tuple[ModuleReport, ...]:
    """Return output shape and cost of each module of `model` for an input of `size` x `size` pixels."""
    return tuple(describe_modules(modules(model), size))
