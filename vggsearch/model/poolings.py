"""Poolings, which turn a feature map into one vector, independent of the backend.

Maps are (n, channels, height, width), float32, and >= 0, since they come after a ReLU. A pooling returns
(n, channels, 1, 1), or the map itself for `flat`; `embedding` applies the L2 normalisation.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from vggsearch.model.layers import factors, parts
from vggsearch.model.networks import VECTOR_LAYERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RMAC_LEVELS = 3
RMAC_OVERLAP = 0.4
GEM_POWER = 3.0
SMALL = 1e-6  # keeps divisions and logarithms finite on an all-zero map

Maps: TypeAlias = Any  # a torch tensor or a node of an OpenVINO graph; both support + * /


class Operations(Protocol):
    """The operations that poolings consist of, implemented by each backend.

    "Over space" means over height and width; no axis is removed.
    """

    def shape(self, maps: Maps) -> tuple[int, int, int]:
        """Return channels, height and width."""

    def mean(self, maps: Maps) -> Maps:
        """Return the mean over space."""

    def maximum(self, maps: Maps) -> Maps:
        """Return the maximum over space."""

    def sum(self, maps: Maps) -> Maps:
        """Return the sum over space."""

    def sum_channels(self, maps: Maps) -> Maps:
        """Return the sum over channels."""

    def power(self, maps: Maps, exponent: float) -> Maps:
        """Raise all values, which are >= 0, to a power."""

    def plus(self, maps: Maps, number: float) -> Maps:
        """Add a number to all values."""

    def times(self, maps: Maps, number: float) -> Maps:
        """Multiply all values by a number."""

    def log(self, maps: Maps) -> Maps:
        """Return the natural logarithm of all values."""

    def is_positive(self, maps: Maps) -> Maps:
        """Return 1.0 where a value is > 0, else 0.0."""

    def cut(self, maps: Maps, top: int, left: int, side: int) -> Maps:
        """Return a square region of the map, given in cells."""

    def unit(self, maps: Maps) -> Maps:
        """Scale along the channels to unit length; zero stays zero."""

    def mean_windows(self, vectors: Maps) -> Maps:
        """Return the mean over windows: (n, windows, dimensions) to (n, dimensions)."""

    def project(self, maps: Maps, weight: "NDArray[np.float32]", bias: "NDArray[np.float32]") -> Maps:
        """Multiply the channels of each cell by `weight` (dimensions, channels), and add `bias` (dimensions,)."""

    def channels_last(self, maps: Maps) -> Maps:
        """Return (n, height, width, channels)."""

    def flatten(self, maps: Maps) -> Maps:
        """Return (n, dimensions), in (channel, row, column) order."""

    def join(self, vectors: Sequence[Maps]) -> Maps:
        """Concatenate vectors (n, dimensions) along their dimensions."""


def spoc(maps: Maps, on: Operations) -> Maps:
    """Mean over the map, then signed square root; there is no sign to keep after a ReLU.

    Sum-pooled convolutional features: Babenko & Lempitsky, "Aggregating deep convolutional features for image
    retrieval", ICCV 2015, without the centre prior. Square root: Arandjelovic & Zisserman, "Three things
    everyone should know to improve object retrieval", CVPR 2012, section 3 (RootSIFT).
    """
    return on.power(on.mean(maps), 0.5)


def gem(maps: Maps, on: Operations) -> Maps:
    """Generalised mean with p = 3: Radenovic, Tolias & Chum, "Fine-tuning CNN image retrieval with no human
    annotation", TPAMI 2018, section 3.1. p = 1 is the mean, p = infinity the maximum.
    """
    return on.power(on.mean(on.power(maps, GEM_POWER)), 1 / GEM_POWER)


def mac(maps: Maps, on: Operations) -> Maps:
    """Maximum activation of each channel: Razavian et al., "Visual instance retrieval with deep convolutional
    networks", 2014; named MAC by Tolias, Sicre & Jegou, ICLR 2016, section 3.1.
    """
    return on.maximum(maps)


def rmac(maps: Maps, on: Operations) -> Maps:
    """Sum of L2-normalised regional maxima on a grid of 3 scales with 40 % overlap: Tolias, Sicre & Jegou,
    "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016, section 3.2,
    without the PCA-whitening of each region.
    """
    _, height, width = on.shape(maps)
    first, *others = [on.unit(on.maximum(on.cut(maps, *region))) for region in rmac_regions(height, width)]
    for region in others:
        first = first + region
    return first


def rmac_regions(height: int, width: int, levels: int = RMAC_LEVELS) -> list[tuple[int, int, int]]:
    """Return (top, left, side) of the square regions of R-MAC, in cells, coarse scales first.

    At scale l a region's side is 2 min(height, width) / (l + 1). The longer side of the map gets as many extra
    regions as bring the overlap of neighbours closest to 40 %.
    """
    shorter, longer = min(height, width), max(height, width)
    extra = 0
    if longer > shorter:
        steps = range(1, 7)
        gaps = [(longer - shorter) / step for step in steps]
        overlaps = [abs((shorter**2 - shorter * gap) / shorter**2 - RMAC_OVERLAP) for gap in gaps]
        extra = steps[overlaps.index(min(overlaps))]
    regions = []
    for level in range(1, levels + 1):
        side = max(1, int(2 * shorter / (level + 1)))
        rows = _starts(height, side, level + (extra if height > width else 0))
        columns = _starts(width, side, level + (extra if width > height else 0))
        regions += [(top, left, side) for top in rows for left in columns]
    return regions


def _starts(length: int, side: int, count: int) -> list[int]:
    """Return the starts of `count` regions of `side` cells, spread evenly over `length` cells."""
    if count == 1:
        return [(length - side) // 2]
    return [int(number * (length - side) / (count - 1)) for number in range(count)]


def crow(maps: Maps, on: Operations) -> Maps:
    """Cross-dimensional weighting: Kalantidis, Mellina & Osindero, "Cross-dimensional weighting for aggregated
    deep convolutional features", ECCV workshops 2016: spatial weights (section 3.2, a = b = 2) times channel
    sparsity weights (section 3.3).
    """
    strength = on.sum_channels(maps)
    norm = on.power(on.sum(on.power(strength, 2.0)), 0.5)
    spatial = on.power(strength / on.plus(norm, SMALL), 0.5)
    active = on.mean(on.is_positive(maps))
    channels, _, _ = on.shape(maps)
    sparsity = on.log(on.plus(on.sum_channels(active), SMALL * channels) / on.plus(active, SMALL))
    return on.sum(maps * spatial) * sparsity


def flat(maps: Maps, on: Operations) -> Maps:  # noqa: ARG001
    """Return the map itself, unpooled: every cell of every channel."""
    return maps


POOLINGS: dict[str, Callable[[Maps, Operations], Maps]] = {
    "spoc": spoc,
    "gem": gem,
    "mac": mac,
    "rmac": rmac,
    "crow": crow,
    "flat": flat,
}


def embedding(outputs: Sequence[Maps], layer: str, pooling: str, on: Operations) -> Maps:
    """Pool and L2-normalise the output of each layer, multiply by its factor, concatenate, and normalise again.

    `outputs` are maps, or (n, windows, dimensions) of VECTOR_LAYERS, which are averaged over windows, not pooled.
    Returns (n, dim), rows of unit length.
    """
    pool = POOLINGS[pooling]
    vectors = [
        on.mean_windows(output) if part in VECTOR_LAYERS else on.flatten(pool(output, on))
        for part, output in zip(parts(layer), outputs, strict=True)
    ]
    weighted = [
        on.unit(vector) if factor == 1 else on.times(on.unit(vector), factor)
        for vector, factor in zip(vectors, factors(layer), strict=True)
    ]
    return on.unit(on.join(weighted))
