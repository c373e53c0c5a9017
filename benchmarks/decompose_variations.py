"""Vary the photos that benchmarks/decompose.py trains on: parts, mirrored and turned, other colours, less sharp."""

from collections.abc import Iterator

import torch
from decompose_layers import SIZE, inputs
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

SOURCE = 224  # side of the photos of which parts are taken
LEAST_PART = 0.7  # of a side
LEAST_BLUR = 0.3  # of the resolution that a blurred batch keeps
BLURRED = 0.2  # of the batches
GREY = 0.1  # of the photos
CHANGE = 0.3  # of brightness, contrast and saturation, at most


def parts(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return a random part of each photo, (n, 3, SIZE, SIZE) in 0..255, mirrored, turned or both at random."""
    count, device = len(photos), photos.device
    scale = LEAST_PART + (1 - LEAST_PART) * torch.rand(count, 2, generator=random, device=device)
    shift = (2 * torch.rand(count, 2, generator=random, device=device) - 1) * (1 - scale)
    sign = torch.randint(2, (count, 2), generator=random, device=device) * 2 - 1
    turned = (torch.rand(count, 1, 1, generator=random, device=device) < 1 / 4).float()
    straight = torch.diag_embed(scale * sign)
    matrix = straight * (1 - turned) + straight.flip(2) * turned
    grid = affine_grid(torch.cat([matrix, shift[:, :, None]], 2), [count, 3, SIZE, SIZE], align_corners=False)
    return grid_sample(photos.float(), grid, padding_mode="reflection", align_corners=False)


def recoloured(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return the photos with other brightness, contrast and saturation, some in grey."""
    count, device = len(photos), photos.device
    change = 1 + CHANGE * (2 * torch.rand(3, count, 1, 1, 1, generator=random, device=device) - 1)
    coloured = torch.rand(count, 1, 1, 1, generator=random, device=device) >= GREY
    grey = photos.mean(1, keepdim=True)
    photos = grey + (photos - grey) * change[0] * coloured
    mean = photos.mean((1, 2, 3), keepdim=True)
    return (mean * change[1] + (photos - mean) * change[2]).clamp(0, 255)


def blurred(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return the photos, in some of all calls as if they had been small."""
    kept, chance = torch.rand(2, generator=random).tolist()
    if chance >= BLURRED:
        return photos
    side = int(SIZE * (LEAST_BLUR + (1 - LEAST_BLUR) * kept))
    small = interpolate(photos, size=(side, side), mode="bilinear", antialias=True)
    return interpolate(small, size=(SIZE, SIZE), mode="bilinear")


def varied_batches(photos: Tensor, batch: int) -> Iterator[Tensor]:
    """Yield the network's input for batches of the photos without end, in a new order and varied each time."""
    random = torch.Generator(photos.device).manual_seed(0)
    of_batches = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(photos), generator=random, device=photos.device)
        for some in torch.split(order, batch):
            yield inputs(blurred(recoloured(parts(photos[some], random), random), of_batches))
