"""How a feature map becomes one vector: a table of poolings, in torch so that they run where the network runs.

Each takes maps of shape (n, channels, height, width), float32 and >= 0 (they come after a ReLU), and returns
(n, numbers) before the final L2 normalisation. `numbers` is channels, but channels * height * width for `flat`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

RMAC_LEVELS = 3
RMAC_OVERLAP = 0.4
GEM_POWER = 3.0
SMALL = 1e-6  # keeps roots and divisions finite on an all-zero map


def spoc(maps: Tensor) -> Tensor:
    """Mean over the map, then signed square root.

    Sum-pooled convolutional features: Babenko & Lempitsky, "Aggregating deep convolutional features for image
    retrieval", ICCV 2015, without the centre prior. Square root: Arandjelovic & Zisserman, "Three things
    everyone should know to improve object retrieval", CVPR 2012, section 3 (RootSIFT).
    """
    means = maps.mean((2, 3))
    return means.sign() * means.abs().sqrt()


def gem(maps: Tensor) -> Tensor:
    """Generalised mean with p = 3: Radenovic, Tolias & Chum, "Fine-tuning CNN image retrieval with no human
    annotation", TPAMI 2018, section 3.1. p = 1 is the mean, p = infinity the maximum.
    """
    return maps.clamp(min=SMALL).pow(GEM_POWER).mean((2, 3)).pow(1 / GEM_POWER)


def mac(maps: Tensor) -> Tensor:
    """Maximum activation of each channel: Razavian et al., "Visual instance retrieval with deep convolutional
    networks", 2014; named MAC by Tolias, Sicre & Jegou, ICLR 2016, section 3.1.
    """
    return maps.amax((2, 3))


def rmac(maps: Tensor) -> Tensor:
    """Sum of L2-normalised regional maxima on a grid of 3 scales with 40 % overlap: Tolias, Sicre & Jegou,
    "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016, section 3.2,
    without the PCA-whitening of each region.
    """
    height, width = int(maps.shape[2]), int(maps.shape[3])
    total = torch.zeros(maps.shape[:2], dtype=maps.dtype, device=maps.device)
    for top, left, side in rmac_regions(height, width):
        region = maps[:, :, top : top + side, left : left + side]
        total = total + normalize(region.amax((2, 3)), dim=1)
    return total


def rmac_regions(height: int, width: int) -> list[tuple[int, int, int]]:
    """Return the (top, left, side) of R-MAC's square regions, in cells, coarse scales first.

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
    for level in range(1, RMAC_LEVELS + 1):
        side = max(1, int(2 * shorter / (level + 1)))
        rows = _starts(height, side, level + (extra if height > width else 0))
        columns = _starts(width, side, level + (extra if width > height else 0))
        regions += [(top, left, side) for top in rows for left in columns]
    return regions


def _starts(length: int, side: int, count: int) -> list[int]:
    """Return where `count` regions of `side` cells begin, spread evenly over `length` cells."""
    if count == 1:
        return [(length - side) // 2]
    return [int(number * (length - side) / (count - 1)) for number in range(count)]


def crow(maps: Tensor) -> Tensor:
    """Cross-dimensional weighting: Kalantidis, Mellina & Osindero, "Cross-dimensional weighting for aggregated
    deep convolutional features", ECCV workshops 2016: spatial weights (section 3.2, a = b = 2) times channel
    sparsity weights (section 3.3).
    """
    strength = maps.sum(1, keepdim=True)
    norm = strength.pow(2).sum((2, 3), keepdim=True).sqrt()
    spatial = (strength / norm.clamp(min=SMALL)).sqrt()
    summed = (maps * spatial).sum((2, 3))
    active = (maps > 0).to(maps.dtype).mean((2, 3))
    weights = torch.log((active.sum(1, keepdim=True) + SMALL * maps.shape[1]) / (active + SMALL))
    return summed * weights


def flat(maps: Tensor) -> Tensor:
    """Every cell of every channel, in (channel, row, column) order: the map itself, nothing pooled."""
    return maps.flatten(1)


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "spoc": spoc,
    "gem": gem,
    "mac": mac,
    "rmac": rmac,
    "crow": crow,
    "flat": flat,
}


def embed_maps(outputs: list[Tensor], pooling: str) -> Tensor:
    """Pool each layer's output, L2-normalise it, join them and normalise again: rows of unit length.

    `outputs` are maps (n, c, h, w), or (n, 4096) of fc6 and fc7, which are taken as they are. All float32.
    """
    pool = POOLINGS[pooling]
    vectors = [normalize(pool(output) if output.ndim == 4 else output, dim=1) for output in outputs]
    return normalize(torch.cat(vectors, dim=1), dim=1)
